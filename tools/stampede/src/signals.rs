//! SIGINT and SIGTERM: the first ends the run gracefully, the second at once.

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

/// Both signals as one stream.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Installs the handlers. Where that is refused the signals keep their default effect, which
    /// ends the process.
    fn install() -> Option<Self> {
        let installed = signal(SignalKind::interrupt()).and_then(|interrupt| {
            Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
        });
        installed.inspect_err(|error| tracing::warn!("signals can't be handled: {error}")).ok()
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for the first SIGINT or SIGTERM.
pub(crate) async fn first() {
    match Signals::install() {
        Some(mut signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// Calls `on_first` at the first signal and ends the process at the second.
pub(crate) async fn watch(on_first: impl FnOnce()) {
    let Some(mut signals) = Signals::install() else { return };
    signals.next().await;
    on_first();
    signals.next().await;
    std::process::exit(i32::from(Exit::Interrupted.code()));
}
