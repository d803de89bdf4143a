//! Where a run shows itself: the terminal, Prometheus, and who is told its metrics.

use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;

use stampede_run::{Controls, Progress, View};

use crate::live::Live;
use crate::metrics::{self, Exposed, Pusher};
use crate::signals;

/// The view of one run.
pub(crate) struct RunView {
    /// The terminal.
    pub live: Live,
    /// What others are told, if anybody is.
    pub exposed: Option<Arc<Exposed>>,
    /// Where it is scraped, until it is served.
    pub listener: Option<TcpListener>,
    /// What tells it to who does not ask, until it is started.
    pub pusher: Option<Pusher>,
    /// What SIGUSR1 asks.
    pub controls: Arc<Controls>,
    /// There is a flight recorder.
    pub captures: bool,
}

impl View for RunView {
    fn show(&mut self, progress: &Progress) {
        if let Some(exposed) = &self.exposed {
            exposed.update(progress);
        }
        self.live.show(progress);
    }

    fn say(&self, text: &str) {
        self.live.say(text);
    }

    fn beside(&mut self) -> Pin<Box<dyn Future<Output = ()>>> {
        if let Some(pusher) = self.pusher.take() {
            pusher.start();
        }
        let served = self.listener.take().zip(self.exposed.clone());
        let (controls, captures) = (Arc::clone(&self.controls), self.captures);
        let quiet = self.live.is_quiet();
        let serve = async move {
            if let Some((listener, exposed)) = served {
                metrics::serve(listener, exposed).await;
            }
        };
        // Unhandled it would end the process.
        let on_user1 = signals::on_user1(move || {
            if captures {
                controls.want_capture();
            } else if !quiet {
                stampede_output::say(
                    "SIGUSR1: there is no flight recorder to write, see --capture",
                );
            }
        });
        Box::pin(async move {
            tokio::join!(serve, on_user1);
        })
    }
}
