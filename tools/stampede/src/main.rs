//! Stampede: a WebRTC load engine for LiveKit.
//!
//! The binary: flags, terminal, exit codes. What a run is stands in `stampede-scenario`, it is
//! conducted by `stampede-run`, and `stampede-report` makes the report.

#![forbid(unsafe_code)]

mod calibrate;
mod calibration;
mod doctor;
mod find;
mod flags;
mod live;
mod metrics;
mod play;
mod reports;
mod run;
mod search;
mod sfu;
mod signals;
mod summary;
mod view;

use std::process::ExitCode;

use flags::{Command, Parsed};
use stampede_output::{console, log};
use stampede_report::{Exit, Failure};
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
        Parsed::Command(Command::Sfu(flags)) => sfu::command(&flags),
        Parsed::Command(Command::Doctor(flags)) if flags.calibrate => calibrate::command(&flags),
        Parsed::Command(Command::Doctor(flags)) => doctor::command(&flags),
        Parsed::Command(Command::Init(flags)) => flags::init(&flags),
        Parsed::Command(Command::Report(flags)) => reports::report(flags),
        Parsed::Command(Command::Compare(flags)) => reports::compare(&flags),
        Parsed::Command(Command::Man(_)) => flags::man(),
        Parsed::Command(Command::Completions(flags)) => Ok(flags::completions(&flags)),
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
        .with_writer(|| log::LogWriter)
        .with_ansi(false)
        .finish();
    // Fails only if one is installed already, and this is the first.
    let _ = tracing::subscriber::set_global_default(logs);
}
