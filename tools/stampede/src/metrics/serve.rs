//! The HTTP side: `GET /metrics` on a thread of its own, so that whoever scrapes, or pretends to, waits for
//! nobody but itself.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use stampede_http::{Event, Limits};
use stampede_report::Failure;
use tokio::sync::oneshot;

use super::{Exposed, exposition};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Scrapers at a time: a few Prometheus servers, people with curl, and as many others that an unasked one
/// waits for a second or two behind a hundred of them. Each further one takes the place of the one that is
/// idle for longest.
const LIMITS: Limits = Limits { connections_max: 128, source_connections_max: 64 };

/// Binds the endpoint, so that a bad address is known before anybody joins.
///
/// # Errors
/// Exit code 104 with what the system said about the address.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        Failure::config(format!(
            "--prometheus {address}: it can't be listened on: {error}; \
             give a free port of an address of this machine, such as 127.0.0.1:9464"
        ))
    })
}

/// Answers scrapes until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, exposed: Arc<Exposed>) {
    // The thread ends when this is dropped.
    let (_here, gone) = oneshot::channel::<Infallible>();
    let thread = thread::Builder::new().name("prometheus".to_owned()).spawn(move || {
        if let Err(error) = run(listener, exposed, gone) {
            tracing::warn!("--prometheus: nothing is served: {error}");
        }
    });
    if let Err(error) = thread {
        tracing::warn!("--prometheus: nothing is served, there is no thread for it: {error}");
    }
    std::future::pending::<()>().await;
}

fn run(
    listener: TcpListener,
    exposed: Arc<Exposed>,
    gone: oneshot::Receiver<Infallible>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let scrapes = Arc::new(Scrapes { exposed, last: Mutex::default() });
        let app =
            Router::new().route("/metrics", get(move || std::future::ready(scrapes.answer())));
        let served = stampede_http::serve(listener, app, LIMITS.within_descriptors(), told);
        tokio::select! {
            never = served => match never {},
            _ = gone => Ok(()),
        }
    })
}

fn told(event: Event) {
    match event {
        Event::TimedOut => tracing::debug!("--prometheus: a scraper was too slow"),
        Event::Displaced => tracing::debug!("--prometheus: an idle scraper made room for another"),
        Event::Refused(error) => tracing::warn!(
            "--prometheus: scrapers can't be let in: {error}; the run goes on, and so do the tries"
        ),
    }
}

/// What is scraped, written once each time it changes: the second scraper of a second costs nothing.
struct Scrapes {
    exposed: Arc<Exposed>,
    /// The last text, and how long the run had gone on by then.
    last: Mutex<Option<(Duration, Bytes)>>,
}

impl Scrapes {
    fn answer(&self) -> Response {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = self.exposed.elapsed();
        if last.as_ref().is_none_or(|(written, _)| *written != elapsed) {
            *last = exposition(&self.exposed).ok().map(|text| (elapsed, text.into()));
        }
        match &*last {
            Some((_, text)) => {
                ([(header::CONTENT_TYPE, CONTENT_TYPE)], text.clone()).into_response()
            }
            None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_run::Progress;

    async fn body(response: Response) -> Bytes {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_scraped_is_written_once_for_each_second() {
        let exposed = Arc::new(Exposed::default());
        let scrapes = Scrapes { exposed: Arc::clone(&exposed), last: Mutex::default() };
        let show = |second: f64, connected| {
            let elapsed = Duration::from_secs_f64(second);
            let mut progress = Progress { connected, elapsed, ..Progress::default() };
            progress.second.t_s = second;
            exposed.update(&progress);
        };
        show(1.0, 2);
        let first = body(scrapes.answer()).await;
        let text = String::from_utf8_lossy(&first);
        assert!(text.contains("stampede_participants_connected 2"), "{text}");
        assert_eq!(body(scrapes.answer()).await.as_ptr(), first.as_ptr(), "it is the same text");
        show(2.0, 3);
        let second = body(scrapes.answer()).await;
        let text = String::from_utf8_lossy(&second);
        assert!(text.contains("stampede_participants_connected 3"), "{text}");
    }
}
