//! The embedded SFU as a child process: the parent's end, and what both ends say.
//!
//! The child is this same binary. Its stdin brings one line of JSON with its options, keys
//! included, so that neither its arguments nor its environment show them. It prints one line of
//! JSON when it is ready, answers each line `ledger NUMBER` on its stdin with one line that holds
//! the number and its ledger (or why there is none), and ends when its stdin closes; on Linux the
//! kernel also kills it when the parent's main thread dies.

use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stampede_report::Failure;
use stampede_sfu::{Ledger, SfuOptions};
use stampede_signaling::{ApiCredentials, ServerUrl};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::prepare::random_hex;

/// The argument that makes `stampede sfu` a child.
pub const CHILD_FLAG: &str = "--embedded-child";
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
pub struct Ready {
    /// Signalling URL.
    pub url: String,
}

/// An answer to a request for the ledger.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The number that came with the request: an answer that nobody waits for any more must not
    /// be taken for a later one.
    pub request: u64,
    /// The ledger.
    pub ledger: Option<Ledger>,
    /// Why there is none.
    pub error: Option<String>,
}

/// A running child.
pub(crate) struct EmbeddedSfu {
    child: Child,
    requests: u64,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    pub url: ServerUrl,
    /// The key it was started with.
    pub credentials: ApiCredentials,
}

impl EmbeddedSfu {
    /// Starts the child and waits until it listens.
    ///
    /// # Errors
    /// When it can't be started, or says nothing usable in time.
    pub(crate) async fn start(
        options: &SfuOptions,
        cores: &[usize],
        seed: u64,
    ) -> Result<Self, Failure> {
        let failed = |why: String| Failure::other(format!("the embedded SFU: {why}"));
        let program = std::env::current_exe()
            .map_err(|error| failed(format!("this program can't find itself: {error}")))?;
        let (key, secret) = (format!("stampede-{}", random_hex()?), random_hex()? + &random_hex()?);
        let credentials = ApiCredentials::new(&key, &secret).map_err(Failure::other)?;
        let mut options = SfuOptions { api_key: key, api_secret: secret, seed, ..options.clone() };
        if options.cores.is_empty() {
            options.workers = cores.len().max(1);
            options.cores = cores.to_vec();
        }
        let mut first_line = serde_json::to_string(&options)
            .map_err(|error| failed(format!("its options can't be told: {error}")))?;
        first_line.push('\n');
        let mut command = Command::new(program);
        command.args(["sfu", CHILD_FLAG]);
        for name in ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"] {
            command.env_remove(name);
        }
        // Its own group: Ctrl-C is for the parent, which ends the child when it is done with it.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its log lines must not tear the full-screen view.
        let screen = stampede_output::log::is_held();
        command.stderr(if screen { Stdio::piped() } else { Stdio::inherit() });
        let mut child = command.spawn().map_err(|error| failed(format!("can't start: {error}")))?;
        let log = child.stderr.take().map(|stderr| tokio::task::spawn_local(forward_log(stderr)));
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("it has no pipes".to_owned()));
        };
        // If it has ended already, its last words say why, and not the pipe that it left.
        let _ = stdin.write_all(first_line.as_bytes()).await;
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
        stampede_output::say(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_that_dies_before_it_has_read_its_options_is_told_by_its_end() {
        // This test's own binary knows no `sfu`. The options are more than a pipe holds, so that
        // they are still being written when it ends.
        let spec: stampede_sfu::impair::Spec = "loss=1%".parse().unwrap();
        let options = SfuOptions { impair: vec![spec; 1 << 10], ..SfuOptions::default() };
        let tasks = tokio::task::LocalSet::new();
        let started = tasks.run_until(EmbeddedSfu::start(&options, &[], 1)).await;
        let failure = started.err().unwrap();
        assert!(failure.to_string().contains("ended before it was ready"), "{failure}");
    }
}
