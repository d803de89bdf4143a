//! SIGINT and SIGTERM: the first ends the run gracefully, the second at once.

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

/// Both signals as one stream.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: Option<tokio::signal::unix::Signal>,
    quit: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    /// Installs the handlers. Where that is refused the signals keep their default effect, which
    /// ends the process.
    fn install() -> Option<Self> {
        let installed = signal(SignalKind::interrupt()).and_then(|interrupt| {
            let terminate = signal(SignalKind::terminate())?;
            Ok(Self { interrupt, terminate, hangup: None, quit: None })
        });
        installed.inspect_err(|error| tracing::warn!("signals can't be handled: {error}")).ok()
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = received(&mut self.hangup) => {}
            () = received(&mut self.quit) => {}
        }
    }
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

/// Waits for a signal that may not be handled at all.
async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Waits for the first SIGINT or SIGTERM.
pub(crate) async fn first() {
    match Signals::install() {
        Some(mut signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// Calls `on_first` at the first signal and ends the process at the second. With `screen` SIGHUP
/// and SIGQUIT count as well: their default effect would leave the terminal in raw mode.
///
/// The handlers are there when this returns, before the future is polled.
pub(crate) fn watch(screen: bool, on_first: impl FnOnce()) -> impl Future<Output = ()> {
    let signals = Signals::install();
    async move {
        let Some(mut signals) = signals else { return };
        if screen {
            signals.hangup = signal(SignalKind::hangup()).ok();
            signals.quit = signal(SignalKind::quit()).ok();
        }
        signals.next().await;
        on_first();
        signals.next().await;
        crate::live::restore_terminal();
        std::process::exit(i32::from(Exit::Interrupted.code()));
    }
}
