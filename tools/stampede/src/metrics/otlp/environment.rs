//! What OpenTelemetry's environment variables say: headers, which may be secrets, and attributes.
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>)

use std::ffi::OsString;

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

/// Headers of each request. Another variable names the receiver's address, which is not read: nothing
/// is told to anybody who was not named on the command line.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
/// Attributes of who tells, before those of its own.
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// Why a variable can't be used. Its text is not told: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{variable}: {why}; write it as NAME=VALUE,NAME=VALUE, with commas and spaces in a value as \
         %2C and %20"
)]
pub(super) struct EnvironmentError {
    variable: &'static str,
    why: Why,
}

/// What is wrong; entries are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum Why {
    #[error("it is no UTF-8")]
    NoText,
    #[error("entry {0} has no name and '='")]
    NoName(usize),
    #[error("entry {0} is no UTF-8 once its percent signs are decoded")]
    BadEncoding(usize),
    #[error("the name of entry {0} is not one that a header can have")]
    BadHeaderName(usize),
    #[error("the value of entry {0} is not one that a header can have")]
    BadHeaderValue(usize),
}

/// The headers to send, as `variable` reads the environment.
///
/// # Errors
/// [`EnvironmentError`].
pub(super) fn headers(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<HeaderMap, EnvironmentError> {
    let failed = |why| EnvironmentError { variable: HEADERS, why };
    let mut headers = HeaderMap::new();
    for (entry, name, value) in entries(variable(HEADERS)).map_err(failed)? {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_| failed(Why::BadHeaderName(entry)))?;
        let value = HeaderValue::from_str(&value);
        let mut value = value.map_err(|_| failed(Why::BadHeaderValue(entry)))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The attributes of who tells, as `variable` reads the environment.
///
/// # Errors
/// [`EnvironmentError`].
pub(super) fn attributes(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let entries = entries(variable(ATTRIBUTES))
        .map_err(|why| EnvironmentError { variable: ATTRIBUTES, why })?;
    Ok(entries.into_iter().map(|(_, name, value)| (name, value)).collect())
}

/// Which entry it is, its name, and its value.
type Entry = (usize, String, String);

/// The entries of a list, as of W3C's baggage without properties. Empty ones are passed over.
fn entries(text: Option<OsString>) -> Result<Vec<Entry>, Why> {
    let text = text.unwrap_or_default().into_string().map_err(|_| Why::NoText)?;
    let written = text.split(',').map(str::trim).zip(1..).filter(|(entry, _)| !entry.is_empty());
    let decoded = |text: &str, entry| {
        let bytes = percent_decode_str(text.trim());
        bytes.decode_utf8().map(String::from).map_err(|_| Why::BadEncoding(entry))
    };
    let read = |(text, entry): (&str, usize)| {
        let (name, value) = text.split_once('=').ok_or(Why::NoName(entry))?;
        let (name, value) = (decoded(name, entry)?, decoded(value, entry)?);
        if name.is_empty() { Err(Why::NoName(entry)) } else { Ok((entry, name, value)) }
    };
    written.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(name: &'a str, text: &'a str) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |asked| (asked == name).then(|| text.into())
    }

    #[test]
    fn headers_are_decoded_and_hidden() {
        let text = "authorization=Bearer%20hunter2, X-Scope-OrgID = one%2Ctwo%3D3,,empty=,";
        let headers = headers(with(HEADERS, text)).unwrap();
        assert_eq!(headers["authorization"], "Bearer hunter2");
        assert_eq!(headers["x-scope-orgid"], "one,two=3");
        assert_eq!(headers["empty"], "");
        assert_eq!(headers.len(), 3);
        assert!(!format!("{headers:?}").contains("hunter2"), "{headers:?}");
        assert!(super::headers(|_| None).unwrap().is_empty());
    }

    #[test]
    fn what_can_t_be_used_is_named_without_its_text() {
        for (text, why) in [
            ("hunter2", "entry 1 has no name"),
            ("a=b,=hunter2", "entry 2 has no name"),
            ("a=hunter2%ff", "entry 1 is no UTF-8"),
            ("hunter 2=b", "the name of entry 1"),
            ("a=b,c=hunter2%0Ad", "the value of entry 2"),
        ] {
            let error = headers(with(HEADERS, text)).unwrap_err().to_string();
            let named = error.starts_with(&format!("{HEADERS}: {why}"));
            assert!(named && error.contains("write it as"), "{text}: {error}");
            assert!(!error.contains("hunter"), "{error}");
        }
        let error = attributes(with(ATTRIBUTES, "team")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{ATTRIBUTES}: entry 1")), "{error}");
    }

    #[test]
    fn attributes_are_decoded_in_name_and_value() {
        let text = "service.name=load%20test,deployment%2Eenvironment=a%2Cb";
        let expected = [("service.name", "load test"), ("deployment.environment", "a,b")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(attributes(with(ATTRIBUTES, text)).unwrap(), expected);
    }
}
