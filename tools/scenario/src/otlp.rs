//! Who is told a run's metrics by OpenTelemetry's protocol (OTLP over HTTP), and URLs without secrets.

use std::fmt;

use thiserror::Error;
use url::Url;

/// What metrics are posted to below a base endpoint
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>).
const METRICS_PATH: &str = "/v1/metrics";

/// Where metrics are posted to. It may hold a user name and a password, which are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpUrl(Url);

/// Why a text is no [`OtlpUrl`]. The text is not told: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OtlpUrlError {
    /// Not a URL.
    #[error("it is no URL ({0}); {GIVE}")]
    NotAUrl(#[from] url::ParseError),
    /// Of another protocol.
    #[error("it does not begin with http:// or https://; {GIVE}")]
    OtherScheme,
}

/// What to do about it.
const GIVE: &str = "give the receiver's address for OTLP over HTTP, such as http://127.0.0.1:4318 \
                    of an OpenTelemetry Collector or http://127.0.0.1:9090/api/v1/otlp of Prometheus";

impl OtlpUrl {
    /// Of a base endpoint, or of its path for metrics.
    ///
    /// # Errors
    /// [`OtlpUrlError`].
    pub fn parse(text: &str) -> Result<Self, OtlpUrlError> {
        let mut url = Url::parse(text.trim())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OtlpUrlError::OtherScheme);
        }
        let base = url.path().trim_end_matches('/');
        let path = match base.ends_with(METRICS_PATH) {
            true => base.to_owned(),
            false => format!("{base}{METRICS_PATH}"),
        };
        url.set_path(&path);
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Where to post to, with user name and password.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OtlpUrl({self})")
    }
}

/// A URL without user, password and query: they may be secrets.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn secrets_in_a_url_are_not_shown() {
        let url = Url::parse("http://user:hunter2@host:6789/metrics?token=hunter2#x").unwrap();
        assert_eq!(shown(&url), "http://host:6789/metrics");
        let url = OtlpUrl::parse("https://user:hunter2@host/otlp?token=hunter2").unwrap();
        assert_eq!(format!("{url}"), "https://host/otlp/v1/metrics");
        assert_eq!(format!("{url:?}"), "OtlpUrl(https://host/otlp/v1/metrics)");
        assert_eq!(url.url().password(), Some("hunter2"));
    }

    #[test]
    fn a_base_endpoint_gets_the_path_of_metrics_once() {
        for (text, posted) in [
            ("http://h:4318", "http://h:4318/v1/metrics"),
            ("http://h:4318/", "http://h:4318/v1/metrics"),
            ("http://h:9090/api/v1/otlp", "http://h:9090/api/v1/otlp/v1/metrics"),
            ("http://h:9090/api/v1/otlp/", "http://h:9090/api/v1/otlp/v1/metrics"),
            ("http://h/v1/metrics", "http://h/v1/metrics"),
            ("http://h/v1/metrics/", "http://h/v1/metrics"),
            ("https://h/base?a=b#c", "https://h/base/v1/metrics?a=b"),
        ] {
            assert_eq!(OtlpUrl::parse(text).unwrap().url().as_str(), posted, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_told() {
        for (text, why) in [
            ("", "it is no URL"),
            ("hunter2", "it is no URL"),
            ("http://", "it is no URL"),
            ("http://u:hunter2@h:99999", "it is no URL (invalid port number)"),
            ("hunter2:4318", "it does not begin with http://"),
            ("grpc://hunter2:4317", "it does not begin with http://"),
        ] {
            let error = OtlpUrl::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(why) && error.contains("4318"), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
