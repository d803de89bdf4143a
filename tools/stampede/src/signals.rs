//! SIGINT, SIGTERM, SIGHUP and SIGQUIT, all alike: the first ends what is going on gracefully, the
//! second ends the process at once.
//!
//! A thread of its own takes them, so that they count whatever the other threads are blocked in: a
//! name that is looked up, a terminal that has stopped, a FIFO that nobody reads. A SIGHUP that was
//! ignored when the process started stays ignored (nohup).

use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::terminal;
use stampede_output::files;
use stampede_report::Exit;

/// How long an exit at once waits for the terminal to take its last bytes.
const GOODBYE_MAX: Duration = Duration::from_millis(300);

/// What a signal does; false if it has nothing to do any more, which ends the process.
type Handler = Arc<dyn Fn() -> bool + Send + Sync>;

struct State {
    handler: Option<Handler>,
    /// A signal came while nothing was armed.
    pending: bool,
}

static STATE: Mutex<State> = Mutex::new(State { handler: None, pending: false });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Signals go to its handler while this lives.
pub(crate) struct Armed(());

impl Drop for Armed {
    fn drop(&mut self) {
        state().handler = None;
    }
}

/// From now on a signal calls `handler`, on the signals' thread: it may not block. Once it gives
/// false the process ends at once. One handler at a time; a signal that came while there was none
/// is not forgotten, it calls the next one.
pub(crate) fn arm(handler: impl Fn() -> bool + Send + Sync + 'static) -> Armed {
    install();
    let handler: Handler = Arc::new(handler);
    let pending = {
        let mut state = state();
        state.handler = Some(Arc::clone(&handler));
        std::mem::take(&mut state.pending)
    };
    if pending && !handler() {
        exit_at_once();
    }
    Armed(())
}

fn came() {
    let handler = {
        let mut state = state();
        if state.handler.is_none() && !state.pending {
            state.pending = true;
            return;
        }
        state.handler.clone()
    };
    if !handler.is_some_and(|handler| handler()) {
        exit_at_once();
    }
}

/// Starts the thread, once. The handlers are there when this returns; where they are refused,
/// signals keep their default effect, which ends the process.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (ready, wait) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let installed = take_signals(&ready);
            if let Err(error) = installed {
                tracing::warn!("signals can't be handled: {error}");
            }
        });
        match thread {
            Ok(_) => {
                // It ends without a word where it could not install them.
                let _ = wait.recv();
            }
            Err(error) => tracing::warn!("signals can't be handled: {error}"),
        }
    });
}

fn take_signals(ready: &mpsc::SyncSender<()>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = match is_ignored(SignalKind::hangup()) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    drop(entered);
    let _ = ready.send(());
    runtime.block_on(async {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = quit.recv() => {}
                () = received(&mut hangup) => {}
            }
            came();
        }
    })
}

/// Waits for a signal that may not be handled at all.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether the process ignores a signal now, as it does if whoever started it did.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status, kind.as_raw_value())
}

fn ignored_in(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

/// The first signal from now on. While the value that then comes lives, the next one ends the
/// process.
pub(crate) fn first() -> impl Future<Output = Armed> {
    let (sender, mut receiver) = tokio::sync::watch::channel(false);
    let armed = arm(move || !sender.send_replace(true));
    async move {
        // The sender lives as long as it is armed.
        let _ = receiver.wait_for(|came| *came).await;
        armed
    }
}

/// Takes the signals that a terminal, or its end, sends to everybody in it, and does nothing with
/// them: for the embedded SFU, which ends when its parent is done with it.
pub(crate) fn leave_to_parent() -> Vec<Signal> {
    let kinds = [SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
    kinds
        .into_iter()
        .filter(|kind| !is_ignored(*kind))
        .filter_map(|kind| signal(kind).ok())
        .collect()
}

/// Calls `on_signal` at each SIGUSR1.
pub(crate) async fn on_user1(on_signal: impl Fn()) {
    match signal(SignalKind::user_defined1()) {
        Ok(mut signals) => {
            while signals.recv().await.is_some() {
                on_signal();
            }
        }
        Err(error) => tracing::warn!("SIGUSR1 can't be handled: {error}"),
    }
}

/// Says one thing without waiting for whoever reads stderr.
pub(crate) fn say_aside(text: &'static str) {
    // Without a thread nothing is said, which is better than a handler that hangs.
    let _ = thread::Builder::new().name("say".to_owned()).spawn(move || stampede_output::say(text));
}

/// Ends the process now: half-written files are removed, the terminal is given back.
pub(crate) fn exit_at_once() -> ! {
    files::remove_half_written();
    let (done, wait) = mpsc::sync_channel(1);
    let goodbye = thread::Builder::new().spawn(move || {
        terminal::restore();
        let _ = done.send(());
    });
    if goodbye.is_ok() {
        let _ = wait.recv_timeout(GOODBYE_MAX);
    }
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_is_read_from_the_mask() {
        let status = "Name:\tstampede\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(ignored_in(status, SignalKind::hangup().as_raw_value()));
        assert!(!ignored_in(status, SignalKind::interrupt().as_raw_value()));
        assert!(ignored_in(status, SignalKind::pipe().as_raw_value()));
        assert!(!ignored_in("", SignalKind::hangup().as_raw_value()));
    }
}
