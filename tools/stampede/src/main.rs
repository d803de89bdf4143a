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
mod hosts;
mod kubernetes;
mod live;
mod metrics;
mod play;
mod reports;
mod run;
mod search;
mod sfu;
mod signals;
mod summary;
mod terminal;
mod view;

use std::process::ExitCode;

use flags::{Command, Parsed};
use stampede_output::{console, log};
use stampede_report::{Exit, Failure};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;

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
        Parsed::Command(Command::Work(flags)) => hosts::work(flags),
        Parsed::Command(Command::Doctor(flags)) if flags.calibrate => calibrate::command(&flags),
        Parsed::Command(Command::Doctor(flags)) => doctor::command(&flags),
        Parsed::Command(Command::Init(flags)) => flags::init(&flags),
        Parsed::Command(Command::Kubernetes(flags)) => kubernetes::command(&flags),
        Parsed::Command(Command::Pod(flags)) => kubernetes::pod(&flags),
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

/// Libraries that warn of what is told otherwise, for each participant, or log user names. They stay
/// silent.
const SILENT: [&str; 4] = ["stun_proto", "stun_types", "turn_client_proto", "turn_types"];

/// Quiet unless `RUST_LOG` says otherwise; to stderr, above the live view.
fn init_logging() {
    let said = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
    let (filter, wrong) = match log_filter(&said) {
        Ok(filter) => (filter, None),
        Err(error) => (bounded(&Targets::new().with_default(LevelFilter::WARN)), Some(error)),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(|| log::LogWriter).with_ansi(false);
    // Fails only if one is installed already, and this is the first.
    let _ = tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(layer.with_filter(filter)),
    );
    if let Some(error) = wrong {
        tracing::warn!("RUST_LOG is {said:?}, which can't be read ({error}): it stays at warn");
    }
}

/// Which targets are logged at which level: `LEVEL`, or `TARGET=LEVEL`, with commas between.
fn log_filter(said: &str) -> Result<Targets, ParseError> {
    said.parse().map(|said| bounded(&said))
}

/// Without what is not to be logged at any level.
fn bounded(said: &Targets) -> Targets {
    let default = said.default_level().unwrap_or(LevelFilter::OFF);
    let bounded = said.iter().map(|(target, level)| {
        let library = target.split("::").next().unwrap_or(target);
        (
            target.to_owned(),
            if TALKATIVE.contains(&library) { level.min(LevelFilter::INFO) } else { level },
        )
    });
    Targets::new()
        .with_default(default)
        .with_targets(SILENT.map(|library| (library, LevelFilter::OFF)))
        .with_targets(TALKATIVE.map(|library| (library, default.min(LevelFilter::INFO))))
        .with_targets(bounded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use tracing::Level;

    use super::*;

    #[test]
    fn what_may_log_tokens_stays_at_info_however_it_is_asked_for() {
        for said in
            ["trace", "hyper=trace", "hyper::proto::h1=trace", "warn,hyper=debug,reqwest=debug"]
        {
            let filter = log_filter(said).unwrap();
            for library in TALKATIVE {
                for target in [library.to_owned(), format!("{library}::proto::h1")] {
                    assert!(!filter.would_enable(&target, &Level::DEBUG), "{target} under {said}");
                }
            }
        }
        let filter = log_filter("info,stampede_run=debug,hyper=error").unwrap();
        assert!(filter.would_enable("stampede_run::joins", &Level::DEBUG));
        assert!(filter.would_enable("str0m", &Level::INFO));
        assert!(filter.would_enable("axum", &Level::INFO));
        assert!(!filter.would_enable("hyper", &Level::WARN));
        assert!(!log_filter("error").unwrap().would_enable("axum", &Level::INFO));
        assert!(log_filter("stampede=loud").is_err());
    }
}
