//! `--otlp URL`: the run's figures pushed as OpenTelemetry metrics (OTLP, protobuf over HTTP), for who is
//! gone before anybody scrapes.
//!
//! A thread of its own posts what [`Exposed`] has, one request at a time, and so delays nobody. Sums
//! are cumulative: what a push that failed was to tell, the next one tells. Nothing waits in a queue.

mod encode;
mod environment;
mod post;

use std::ffi::OsString;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use prost::Message;
use stampede_report::Failure;
use stampede_run::Network;
use stampede_scenario::OtlpUrl;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Exposed;
use encode::Encoder;
use post::{PushError, Receiver};

/// From one push to the next.
const PUSH_EVERY: Duration = Duration::from_secs(5);
/// How long one may take, its answer included.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of a run waits for the last one: until it has failed, and a moment to hear so.
const LAST_PUSH_WAIT_MAX: Duration = PUSH_TIMEOUT.saturating_add(Duration::from_millis(500));

/// Pushes one run's figures, once it is started.
pub(crate) struct Pusher {
    receiver: Receiver,
    encoder: Encoder,
    exposed: Arc<Exposed>,
    /// Told or dropped when the run is over.
    over: oneshot::Receiver<()>,
    tally: mpsc::Sender<Tally>,
}

/// The end of a [`Pusher`].
pub(crate) struct Ending {
    url: OtlpUrl,
    over: oneshot::Sender<()>,
    tally: mpsc::Receiver<Tally>,
}

/// What became of the pushes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    pushes: u64,
    failed: u64,
    /// The latest one failed.
    last_failed: bool,
}

/// A pusher of what `exposed` has of this run, with what the environment says of it.
///
/// # Errors
/// Exit code 104: what of the environment can't be used.
pub(crate) fn pusher(
    url: &OtlpUrl,
    run_id: &str,
    network: &Network,
    exposed: Arc<Exposed>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<(Pusher, Ending), Failure> {
    let headers = environment::headers(&variable).map_err(Failure::config)?;
    let more = environment::attributes(&variable).map_err(Failure::config)?;
    let own = [
        ("service.name", env!("CARGO_PKG_NAME").to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", run_id.to_owned()),
        ("host.name", rustix::system::uname().nodename().to_string_lossy().into_owned()),
    ];
    let attributes = own.map(|(name, text)| (name.to_owned(), text)).into_iter().chain(more);
    let http = network
        .http_client()
        .timeout(PUSH_TIMEOUT)
        .build()
        .map_err(|error| Failure::other(format!("--otlp: no HTTP client: {error}")))?;
    let (told, over) = oneshot::channel();
    let (sender, tally) = mpsc::channel();
    let receiver = Receiver { http, url: url.clone(), headers };
    let pusher =
        Pusher { receiver, encoder: Encoder::new(attributes), exposed, over, tally: sender };
    Ok((pusher, Ending { url: url.clone(), over: told, tally }))
}

impl Pusher {
    /// Starts to push, on a thread of its own, until the run is over.
    pub(crate) fn start(self) {
        let thread = thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    runtime.block_on(self.run());
                    // A name that is still looked up must not hold the thread.
                    runtime.shutdown_background();
                }
                Err(error) => tracing::warn!("--otlp: nothing is pushed: {error}"),
            }
        });
        if let Err(error) = thread {
            tracing::warn!("--otlp: nothing is pushed, there is no thread for it: {error}");
        }
    }

    async fn run(mut self) {
        let mut tally = Tally::default();
        let mut ticks = interval_at(Instant::now() + PUSH_EVERY, PUSH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut self.over => break,
                _ = ticks.tick() => {}
            }
            let Some(request) = self.request() else { continue };
            tokio::select! {
                pushed = self.receiver.post(request) => tally.count(&self.receiver.url, pushed),
                // What it tells the last one tells too.
                _ = &mut self.over => break,
            }
        }
        if let Some(request) = self.request() {
            let pushed = self.receiver.post(request).await;
            tally.count(&self.receiver.url, pushed);
        }
        // Nobody may wait for it any more.
        let _ = self.tally.send(tally);
    }

    /// What there is to tell now, if anything.
    fn request(&mut self) -> Option<Vec<u8>> {
        self.encoder.request(&self.exposed.progress()).map(|request| request.encode_to_vec())
    }
}

impl Tally {
    fn count(&mut self, url: &OtlpUrl, pushed: Result<(), PushError>) {
        self.pushes += 1;
        self.last_failed = pushed.is_err();
        let Err(error) = pushed else { return };
        self.failed += 1;
        if self.failed == 1 {
            let remedy = error.remedy();
            tracing::warn!(
                "--otlp {url}: a push failed: {error}; {remedy}. The next one tells all"
            );
        } else {
            tracing::debug!("--otlp {url}: a push failed: {error}");
        }
    }

    /// What has to be said of it at the end.
    fn notice(self) -> Option<String> {
        let Self { pushes, failed, last_failed } = self;
        let last = match (failed, last_failed) {
            (0, _) => return None,
            (_, true) => "the last one too, so that the sums there are not the report's",
            (_, false) => "the last one did not, so that the sums there are the report's",
        };
        Some(format!("{failed} of {pushes} pushes failed; {last}"))
    }
}

impl Ending {
    /// The run is over: waits a while for the last push, and says what failed.
    pub(crate) fn wait(self) {
        let Self { url, over, tally } = self;
        // Who is gone has pushed nothing, and said why.
        let _ = over.send(());
        match tally.recv_timeout(LAST_PUSH_WAIT_MAX) {
            Ok(tally) => {
                if let Some(notice) = tally.notice() {
                    tracing::warn!("--otlp {url}: {notice}");
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                tracing::warn!("--otlp {url}: the last push does not end: it is not waited for");
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_at_the_end_with_what_became_of_the_sums() {
        let url = OtlpUrl::parse("http://u:hunter2@127.0.0.1:1").unwrap();
        let failed = || Err(PushError::TimedOut(PUSH_TIMEOUT));
        let notice = |pushes: [bool; 3]| {
            let mut tally = Tally::default();
            let results = pushes.map(|well| if well { Ok(()) } else { failed() });
            results.into_iter().for_each(|pushed| tally.count(&url, pushed));
            tally.notice()
        };
        assert_eq!(notice([true; 3]), None);
        let told = notice([false, false, true]).unwrap();
        assert_eq!(
            told,
            "2 of 3 pushes failed; the last one did not, so that the sums there are the report's"
        );
        let told = notice([true, true, false]).unwrap();
        assert!(told.starts_with("1 of 3 pushes failed; the last one too"), "{told}");
    }
}
