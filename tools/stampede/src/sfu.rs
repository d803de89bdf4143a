//! `stampede sfu`: the embedded SFU alone, or as the child of a run.

use serde::Serialize;
use stampede_output::console;
use stampede_report::{Exit, Failure};
use stampede_run::embedded::{Answer, Ready};
use stampede_sfu::{Sfu, SfuOptions};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, Lines};

use crate::flags::{SfuFlags, known_secret_warning, sfu_options};
use crate::signals;

/// `stampede sfu`.
///
/// # Errors
/// Bad flags, or a port that can't be had.
pub(crate) fn command(flags: &SfuFlags) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("no runtime: {error}")))?;
    match flags.embedded_child {
        true => child(&runtime),
        false => alone(&runtime, flags),
    }
}

fn alone(runtime: &tokio::runtime::Runtime, flags: &SfuFlags) -> Result<Exit, Failure> {
    let mut options = sfu_options(flags)?;
    let short = flags.short().spec();
    options.impair.extend(short.map_err(|error| Failure::config(format!("sfu: --drop: {error}")))?);
    let warning = known_secret_warning(&options);
    let sfu = start(options)?;
    runtime.block_on(async {
        let first_signal = signals::first();
        print_line(&Ready { url: sfu.url() });
        stampede_output::say(&format!(
            "SFU ready at {} with API key '{}'; Ctrl-C ends it and prints its ledger",
            sfu.url(),
            flags.api_key
        ));
        if let Some(warning) = warning {
            stampede_output::say(&warning);
        }
        let _armed = first_signal.await;
        match sfu.ledger() {
            Ok(ledger) => print_line(&ledger),
            Err(error) => stampede_output::say(&format!("no ledger: {error}")),
        }
    });
    sfu.stop();
    Ok(Exit::Pass)
}

/// Outside of any runtime: it makes its own.
fn start(options: SfuOptions) -> Result<Sfu, Failure> {
    Sfu::start(options).map_err(|error| Failure::config(format!("sfu: {error}")))
}

/// The child's end of [`stampede_run::embedded`].
fn child(runtime: &tokio::runtime::Runtime) -> Result<Exit, Failure> {
    let kill = Some(rustix::process::Signal::KILL);
    if let Err(error) = rustix::process::set_parent_process_death_signal(kill) {
        tracing::debug!("no parent death signal: {error}; stdin is watched all the same");
    }
    let (_ours, mut lines) = runtime.block_on(async {
        (signals::leave_to_parent(), BufReader::new(tokio::io::stdin()).lines())
    });
    let first = runtime.block_on(lines.next_line()).ok().flatten().unwrap_or_default();
    let options: SfuOptions = serde_json::from_str(&first)
        .map_err(|error| Failure::other(format!("sfu: stdin brought no options: {error}")))?;
    let sfu = start(options)?;
    print_line(&Ready { url: sfu.url() });
    runtime.block_on(answer_parent(&sfu, lines));
    sfu.stop();
    // The thread that reads stdin may wait for ever.
    Ok(Exit::Pass)
}

/// Answers `ledger NUMBER` lines until stdin closes.
async fn answer_parent(sfu: &Sfu, mut lines: Lines<impl AsyncBufRead + Unpin>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let request = line.strip_prefix("ledger ").and_then(|number| number.parse().ok());
        let Some(request) = request else { continue };
        let (ledger, error) = match sfu.ledger() {
            Ok(ledger) => (Some(ledger), None),
            Err(error) => (None, Some(error.to_string())),
        };
        print_line(&Answer { request, ledger, error });
    }
}

/// One line of JSON to stdout.
fn print_line(value: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(value) {
        console::out(&(line + "\n"));
    }
}
