//! The embedded SFU as a child process, and `stampede sfu` on its other end.
//!
//! The child is this same binary. Its keys travel in its environment, never in its arguments. It
//! prints one line of JSON when it is ready, answers each line `ledger NUMBER` on its stdin with
//! one line that holds the number and its ledger (or why there is none), and ends when its stdin
//! closes; on Linux the kernel also kills it when the parent's main thread dies.

use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stampede_sfu::impair::Spec;
use stampede_sfu::{Ledger, Sfu, SfuFaults, SfuOptions};
use stampede_signaling::{ApiCredentials, ServerUrl};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::exit::{Exit, Failure};
use crate::flags::values::CoreList;
use crate::flags::{EmbeddedPlan, SfuFlags};
use crate::{console, live, preflight, signals};

/// How long the child may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take to answer with its ledger.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// How long its last words may take to get here.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(300);

/// The child's first line.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    /// Signalling URL.
    url: String,
}

/// An answer to a request for the ledger.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// The number that came with the request: an answer that nobody waits for any more must not
    /// be taken for a later one.
    request: u64,
    ledger: Option<Ledger>,
    /// Why there is none.
    error: Option<String>,
}

/// A running child.
pub(crate) struct Embedded {
    child: Child,
    requests: u64,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    pub url: ServerUrl,
    /// The key it was started with.
    pub credentials: ApiCredentials,
}

impl Embedded {
    /// Starts the child and waits until it listens.
    ///
    /// # Errors
    /// When it can't be started, or says nothing usable in time.
    pub(crate) async fn start(
        plan: &EmbeddedPlan,
        cores: &[usize],
        seed: u64,
    ) -> Result<Self, Failure> {
        let failed = |why: String| Failure::other(format!("the embedded SFU: {why}"));
        let program = std::env::current_exe()
            .map_err(|error| failed(format!("this program can't find itself: {error}")))?;
        let (key, secret) = (format!("stampede-{}", random_hex()?), random_hex()? + &random_hex()?);
        let credentials = ApiCredentials::new(&key, &secret).map_err(Failure::other)?;
        let mut command = Command::new(program);
        command.args(child_args(plan, cores, seed));
        command.env("LIVEKIT_API_KEY", &key).env("LIVEKIT_API_SECRET", &secret);
        command.env_remove("LIVEKIT_URL");
        // Its own group: Ctrl-C is for the parent, which ends the child when it is done with it.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its log lines must not tear the full-screen view.
        let screen = live::has_the_screen();
        command.stderr(if screen { Stdio::piped() } else { Stdio::inherit() });
        let mut child = command.spawn().map_err(|error| failed(format!("can't start: {error}")))?;
        let log = child.stderr.take().map(|stderr| tokio::task::spawn_local(forward_log(stderr)));
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("it has no pipes".to_owned()));
        };
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY_TIMEOUT, lines.next_line())
            .await
            .map_err(|_| failed(format!("it was not ready within {READY_TIMEOUT:?}")))?
            .map_err(|error| failed(format!("its pipe broke: {error}")))?;
        let Some(line) = line else {
            if let Some(log) = log {
                let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, log).await;
            }
            return Err(failed("it ended before it was ready (its error is above)".to_owned()));
        };
        let ready: Ready = serde_json::from_str(&line)
            .map_err(|error| failed(format!("its first line is not understood: {error}")))?;
        let url = ServerUrl::parse(&ready.url).map_err(|error| failed(error.to_string()))?;
        Ok(Self { child, requests: 0, stdin, lines, url, credentials })
    }

    /// Its ledger so far; an error text if it does not answer.
    pub(crate) async fn ledger(&mut self) -> Result<Ledger, String> {
        self.requests += 1;
        let request = self.requests;
        let ask = async {
            let line = format!("ledger {request}\n");
            self.stdin.write_all(line.as_bytes()).await.map_err(|error| error.to_string())?;
            loop {
                let line = self.lines.next_line().await.map_err(|error| error.to_string())?;
                let line = line.ok_or_else(|| "it has ended".to_owned())?;
                let answer: Answer = serde_json::from_str(&line)
                    .map_err(|error| format!("its ledger is not understood: {error}"))?;
                if answer.request == request {
                    return answer.ledger.ok_or_else(|| {
                        answer.error.unwrap_or_else(|| "it gave no reason".to_owned())
                    });
                }
            }
        };
        tokio::time::timeout(LEDGER_TIMEOUT, ask)
            .await
            .map_err(|_| format!("no ledger within {LEDGER_TIMEOUT:?}"))?
    }

    /// Why the child is gone, if it is.
    pub(crate) fn died(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the embedded SFU ended on its own ({status})")),
            Err(error) => Some(format!("the embedded SFU can't be watched: {error}")),
        }
    }

    /// Ends the child: closes its stdin, then kills it if it stays.
    pub(crate) async fn stop(mut self) {
        drop(self.stdin);
        if tokio::time::timeout(END_TIMEOUT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// The child's log lines among ours. Ends with the child.
async fn forward_log(stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        live::say(&line);
    }
}

fn child_args(plan: &EmbeddedPlan, cores: &[usize], seed: u64) -> Vec<String> {
    let mut args: Vec<String> =
        ["sfu", "--embedded-child", "--port=0", "--rtc-port=0"].map(str::to_owned).into();
    args.push(format!("--seed={seed}"));
    if !cores.is_empty() {
        args.push(format!("--cores={}", CoreList(cores.to_vec())));
    }
    if let Some(share) = plan.drop {
        args.push(format!("--drop={}%", share * 100.0));
    }
    if let Some(packets) = plan.drop_burst {
        args.push(format!("--drop-burst={packets}"));
    }
    if let Some(delay) = plan.delay {
        args.push(format!("--delay={}us", delay.as_micros()));
    }
    args.extend(plan.impair.iter().map(|spec| format!("--impair={spec}")));
    args.extend(plan.flags.iter().cloned());
    args
}

/// 128 random bits in hexadecimal.
pub(crate) fn random_hex() -> Result<String, Failure> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::other(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a child or a lone SFU is started with.
fn sfu_options(flags: &SfuFlags) -> Result<SfuOptions, Failure> {
    let cores = flags.cores.clone().map_or_else(Vec::new, |list| list.0);
    if !flags.embedded_child {
        let allowed = preflight::allowed_cores()?;
        if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
            return Err(Failure::config(format!(
                "--cores: core {core} is not one this process may use (those are {})",
                CoreList(allowed)
            )));
        }
    }
    if flags.bind.is_unspecified() && flags.node_ip.is_none() {
        return Err(Failure::config(format!(
            "--bind {}: clients are told this address, so it must be one of this machine's own; \
             or give --node-ip",
            flags.bind
        )));
    }
    let options = SfuOptions {
        bind_ip: flags.bind,
        node_ip: flags.node_ip,
        port: flags.port,
        rtc_port: flags.rtc_port,
        api_key: flags.api_key.clone(),
        api_secret: flags
            .api_secret
            .as_ref()
            .map_or_else(|| "secret".to_owned(), |secret| secret.expose().to_owned()),
        workers: cores.len().max(1),
        cores,
        seed: flags.seed.unwrap_or(1),
        impair: flags.impair.iter().cloned().chain(shorthand(flags)?).collect(),
        faults: SfuFaults {
            refuse_joins: flags.refuse_joins.unwrap_or(0.0),
            stalls: flags.stall_signalling.clone(),
            withhold_keyframes: flags.withhold_keyframes,
            malformed: flags.malformed.unwrap_or(0.0),
            drop_upstream: flags.drop_upstream.unwrap_or(0.0),
        },
        ..SfuOptions::default()
    };
    options.validate().map_err(|error| Failure::config(format!("sfu: {error}")))?;
    Ok(options)
}

/// `--drop`, `--drop-burst` and `--delay` as an impairment.
fn shorthand(flags: &SfuFlags) -> Result<Option<Spec>, Failure> {
    let mut parts = Vec::new();
    if let Some(share) = flags.drop.filter(|share| *share > 0.0) {
        parts.push(format!("loss={}%", share * 100.0));
        parts.extend(flags.drop_burst.map(|packets| format!("burst={packets}")));
    }
    let delay = flags.delay.filter(|delay| !delay.is_zero());
    parts.extend(delay.map(|delay| format!("delay={}us", delay.as_micros())));
    if parts.is_empty() {
        return Ok(None);
    }
    let spec = parts.join(",").parse::<Spec>();
    spec.map(Some).map_err(|error| Failure::config(format!("sfu: --drop: {error}")))
}

/// `stampede sfu`.
///
/// # Errors
/// Bad flags, or a port that can't be had.
pub(crate) fn sfu_command(flags: &SfuFlags) -> Result<Exit, Failure> {
    if flags.embedded_child {
        let kill = Some(rustix::process::Signal::KILL);
        if let Err(error) = rustix::process::set_parent_process_death_signal(kill) {
            tracing::debug!("no parent death signal: {error}; stdin is watched all the same");
        }
    }
    let options = sfu_options(flags)?;
    // Outside of any runtime: it makes its own.
    let sfu = Sfu::start(options).map_err(|error| Failure::config(format!("sfu: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("no runtime: {error}")))?;
    runtime.block_on(serve(flags, &sfu));
    sfu.stop();
    Ok(Exit::Pass)
}

/// Serves until it is told to end.
async fn serve(flags: &SfuFlags, sfu: &Sfu) {
    if flags.embedded_child {
        let _ours = signals::leave_to_parent();
        print_line(&Ready { url: sfu.url() });
        answer_parent(sfu).await;
        return;
    }
    let first_signal = signals::first();
    print_line(&Ready { url: sfu.url() });
    live::say(&format!(
        "SFU ready at {} with API key '{}'; Ctrl-C ends it and prints its ledger",
        sfu.url(),
        flags.api_key
    ));
    let _armed = first_signal.await;
    match sfu.ledger() {
        Ok(ledger) => print_line(&ledger),
        Err(error) => live::say(&format!("no ledger: {error}")),
    }
}

/// Answers `ledger NUMBER` lines until stdin closes.
async fn answer_parent(sfu: &Sfu) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Command as Parsed, parse};

    #[test]
    fn the_child_s_arguments_parse_back_and_hold_no_key() {
        let plan = EmbeddedPlan {
            cores: None,
            drop: Some(0.01),
            drop_burst: Some(3),
            delay: Some(Duration::from_micros(1_500)),
            impair: vec!["cohort=50%,loss=2%,outage=1s@3s".parse().unwrap()],
            flags: vec!["--refuse-joins=10%".to_owned(), "--withhold-keyframes".to_owned()],
        };
        let args = child_args(&plan, &[1, 2], 7);
        let words = std::iter::once("stampede".to_owned()).chain(args.clone());
        let Ok(crate::flags::Parsed::Command(Parsed::Sfu(flags))) = parse(words.map(Into::into))
        else {
            panic!("{args:?}")
        };
        assert!(flags.embedded_child);
        assert_eq!((flags.port, flags.rtc_port, flags.seed), (0, 0, Some(7)));
        assert_eq!((flags.drop, flags.drop_burst), (Some(0.01), Some(3)));
        assert_eq!(flags.delay, Some(Duration::from_micros(1_500)));
        assert_eq!(flags.impair, plan.impair);
        assert_eq!((flags.refuse_joins, flags.withhold_keyframes), (Some(0.1), true));
        let short = shorthand(&flags).unwrap().unwrap();
        assert_eq!((short.loss, short.burst_packets), (0.01, 3));
        assert_eq!(short.delay, Duration::from_micros(1_500));
        assert_eq!(flags.cores.map(|list| list.0), Some(vec![1, 2]));
        assert!(args.iter().all(|arg| !arg.contains("api")));
    }

    #[test]
    fn keys_are_random() {
        let (one, two) = (random_hex().unwrap(), random_hex().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 32);
    }
}
