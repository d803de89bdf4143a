//! One request, and what its answer means (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode};
use stampede_output::{one_line, with_causes};
use stampede_scenario::OtlpUrl;
use thiserror::Error;

use super::PUSH_TIMEOUT;

/// What is posted, and what is answered.
const PROTOBUF: &str = "application/x-protobuf";
/// Longest answer read; a longer one to a push that was taken is a failure.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Of what a receiver says so much is told.
const SAID_CHARS_MAX: usize = 200;

/// Where metrics are posted to.
pub(super) struct Receiver {
    /// With a timeout.
    pub http: Client,
    /// Where.
    pub url: OtlpUrl,
    /// Sent with each request; they may be secrets.
    pub headers: HeaderMap,
}

/// Why metrics did not arrive. What the receiver said is cut to a line.
#[derive(Debug, Error)]
pub(super) enum PushError {
    #[error("there was no answer within {0:?}")]
    TimedOut(Duration),
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    #[error("the answer can't be read: {0}")]
    Broken(String),
    #[error("it answered with HTTP status {status}{}", saying(.said))]
    Refused { status: StatusCode, said: String },
    #[error("it answered with HTTP status {status}, to another place{}", saying(.place))]
    Elsewhere { status: StatusCode, place: String },
    #[error("it did not take {points} values{}", saying(.said))]
    Rejected { points: i64, said: String },
    #[error("its answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("its answer is not one to metrics{}", saying(.said))]
    NotOtlp { said: String },
}

/// `: TEXT`, if there is a text.
fn saying(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// An error as a receiver tells it (`google.rpc.Status`), as far as people read it.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

impl PushError {
    fn of(error: &reqwest::Error, otherwise: fn(String) -> Self) -> Self {
        match error.is_timeout() {
            true => Self::TimedOut(PUSH_TIMEOUT),
            false => otherwise(with_causes(error)),
        }
    }

    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        let wrong_place = "is that a receiver of OTLP over HTTP? A Collector's port is 4318 (4317 \
                           is gRPC's), Prometheus's path is /api/v1/otlp with \
                           --web.enable-otlp-receiver";
        match self {
            Self::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. } => {
                "give what it wants in OTEL_EXPORTER_OTLP_HEADERS, such as \
                 authorization=Bearer%20TOKEN, or as http://USER:PASSWORD@HOST"
            }
            Self::Refused { status, .. }
                if status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS =>
            {
                "look at what the receiver logs"
            }
            Self::Rejected { .. } => "look at what the receiver logs",
            Self::TimedOut(_) => "look at whether the receiver has too much to do",
            Self::Elsewhere { .. } => "give that address, if it is the receiver's",
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::Refused { .. }
            | Self::TooLong
            | Self::NotOtlp { .. } => wrong_place,
        }
    }
}

impl Receiver {
    /// Posts an encoded request.
    ///
    /// # Errors
    /// [`PushError`].
    pub(super) async fn post(&self, request: Vec<u8>) -> Result<(), PushError> {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        // The URL may hold a password, so it stays out of errors.
        let unreachable =
            |error: reqwest::Error| PushError::of(&error.without_url(), PushError::Unreachable);
        let posted = self.http.post(self.url.url().clone()).headers(headers).body(request);
        let mut response = posted.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_redirection() {
            let place = response.headers().get(LOCATION).map(HeaderValue::as_bytes);
            let place = said(place.unwrap_or_default());
            return Err(PushError::Elsewhere { status, place });
        }
        let protobuf = response.headers().get(CONTENT_TYPE).is_none_or(|content_type| {
            content_type.as_bytes().to_ascii_lowercase().starts_with(PROTOBUF.as_bytes())
        });
        let mut answer = Vec::new();
        let read = read(&mut response, &mut answer).await;
        if !status.is_success() {
            // However far it could be read.
            let told = Status::decode(&*answer).ok().filter(|_| protobuf);
            let said = told.map_or_else(|| said(&answer), |told| said(told.message.as_bytes()));
            return Err(PushError::Refused { status, said });
        }
        read?;
        taken(&answer, protobuf)
    }
}

/// Whether an answer to a push that was taken says that all of it was.
fn taken(answer: &[u8], protobuf: bool) -> Result<(), PushError> {
    let decoded = ExportMetricsServiceResponse::decode(answer).ok();
    // Prometheus's is empty, and has no type.
    let decoded = decoded.filter(|_| protobuf || answer.is_empty());
    let Some(response) = decoded else {
        return Err(PushError::NotOtlp { said: said(answer) });
    };
    match response.partial_success {
        Some(partial) if partial.rejected_data_points != 0 => {
            let points = partial.rejected_data_points;
            Err(PushError::Rejected { points, said: said(partial.error_message.as_bytes()) })
        }
        _ => Ok(()),
    }
}

async fn read(response: &mut Response, answer: &mut Vec<u8>) -> Result<(), PushError> {
    loop {
        let part = response.chunk().await;
        let broken = |error: reqwest::Error| PushError::of(&error.without_url(), PushError::Broken);
        let Some(part) = part.map_err(broken)? else { return Ok(()) };
        if answer.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(PushError::TooLong);
        }
        answer.extend_from_slice(&part);
    }
}

/// What somebody else said, as it may be shown.
fn said(text: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(text)).chars().take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;

    use super::*;

    fn answer(rejected_data_points: i64, error_message: &str) -> Vec<u8> {
        let error_message = error_message.to_owned();
        let partial_success = ExportMetricsPartialSuccess { rejected_data_points, error_message };
        let partial_success = Some(partial_success);
        ExportMetricsServiceResponse { partial_success }.encode_to_vec()
    }

    #[test]
    fn only_an_answer_that_rejects_nothing_says_that_all_was_taken() {
        assert!(taken(&[], true).is_ok() && taken(&[], false).is_ok());
        assert!(taken(&answer(0, "a warning"), true).is_ok());
        let rejected = taken(&answer(3, "too\nold"), true).unwrap_err().to_string();
        assert_eq!(rejected, "it did not take 3 values: too old");
        let page = taken(b"<html>Welcome</html>", false).unwrap_err();
        assert_eq!(page.to_string(), "its answer is not one to metrics: <html>Welcome</html>");
        assert!(page.remedy().contains("4318"), "{}", page.remedy());
        assert!(taken(b"<html>Welcome</html>", true).is_err());
    }

    #[test]
    fn what_others_say_is_cut_to_a_line() {
        let text = format!("a\r\nb\u{1b}[1m {}", "x".repeat(10_000));
        let said = said(text.as_bytes());
        assert!(said.starts_with("a b [1m xxx"), "{said}");
        assert_eq!(said.chars().count(), SAID_CHARS_MAX);
    }

    #[test]
    fn each_failure_says_what_to_do() {
        let refused = |code| {
            let status = StatusCode::from_u16(code).unwrap();
            PushError::Refused { status, said: String::new() }.remedy()
        };
        assert!(refused(401).contains("OTEL_EXPORTER_OTLP_HEADERS"));
        assert!(refused(404).contains("/api/v1/otlp"));
        assert!(refused(503).contains("logs") && refused(429).contains("logs"));
    }
}
