//! The HTTP side: `GET /metrics` on the signalling thread's runtime.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Exposed, exposition};
use stampede_report::Failure;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

/// Answers scrapes until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, exposed: Arc<Exposed>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("--prometheus: nothing is served: {error}"),
    };
    let app = Router::new().route("/metrics", get(move || scrape(Arc::clone(&exposed))));
    if let Err(error) = axum::serve(listener, app).await {
        tracing::warn!("--prometheus: nothing is served any more: {error}");
    }
}

async fn scrape(exposed: Arc<Exposed>) -> Response {
    match exposition(&exposed) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
