//! Stampede: a WebRTC load engine for LiveKit.
//!
//! The binary: flags, preflight, the run itself (signalling plane), live view, report. Media is
//! carried by `stampede-engine`, signalling by `stampede-signaling`, the embedded SFU is
//! `stampede-sfu`.

#![forbid(unsafe_code)]

mod calibrate;
mod capture;
mod console;
mod embedded;
mod exit;
mod files;
mod flags;
mod live;
mod machine;
mod metrics;
mod preflight;
mod report;
mod run;
mod server_metrics;
mod signals;
mod summary;

use std::process::ExitCode;

use exit::{Exit, Failure};
use flags::{Command, Parsed};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    init_logging();
    match command() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            console::err(&format!("error: {failure}\n"));
            failure.exit.into()
        }
    }
}

fn command() -> Result<Exit, Failure> {
    match flags::parse(std::env::args_os())? {
        Parsed::Text(text) => {
            console::out(&text);
            Ok(Exit::Pass)
        }
        Parsed::Command(Command::Run(flags)) => run::command(*flags),
        Parsed::Command(Command::Sfu(flags)) => embedded::sfu_command(&flags),
        Parsed::Command(Command::Doctor(flags)) if flags.calibrate => calibrate::command(&flags),
        Parsed::Command(Command::Doctor(flags)) => preflight::doctor(&flags),
        Parsed::Command(Command::Init(flags)) => flags::init(&flags),
        Parsed::Command(Command::Report(flags)) => report::command(flags),
        Parsed::Command(Command::Compare(flags)) => report::compare::command(&flags),
    }
}

/// Libraries that would log whole requests, and with them tokens, at `debug` or `trace`. They stay
/// at `info` whatever `RUST_LOG` says.
const TALKATIVE: [&str; 9] = [
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "tokio_tungstenite",
    "tower_http",
    "tungstenite",
];

/// Quiet unless `RUST_LOG` says otherwise; to stderr, above the live view.
fn init_logging() {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    for name in TALKATIVE {
        if let Ok(directive) = format!("{name}=info").parse() {
            filter = filter.add_directive(directive);
        }
    }
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| live::LogWriter)
        .with_ansi(false)
        .finish();
    // Fails only if one is installed already, and this is the first.
    let _ = tracing::subscriber::set_global_default(logs);
}
