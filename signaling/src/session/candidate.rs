//! Trickled candidates: `candidate_init` is the JSON of `RTCIceCandidateInit`
//! (livekit rtc/participant_signal.go:217).

use serde::Deserialize;

/// Longest candidate line taken; longer ones are malformed.
pub(super) const CANDIDATE_BYTES_MAX: usize = 1_024;

#[derive(Deserialize)]
struct CandidateInit {
    candidate: String,
}

/// The candidate line; `Ok(None)` for the end of candidates, which is an empty string.
pub(super) fn parse(candidate_init: &str) -> Result<Option<String>, ()> {
    if candidate_init.is_empty() {
        return Ok(None);
    }
    let init: CandidateInit = serde_json::from_str(candidate_init).map_err(|_| ())?;
    if init.candidate.is_empty() {
        return Ok(None);
    }
    let line = init.candidate.strip_prefix("a=").unwrap_or(&init.candidate);
    let control = line.chars().any(|c| c.is_control());
    if !line.starts_with("candidate:") || line.len() > CANDIDATE_BYTES_MAX || control {
        return Err(());
    }
    Ok(Some(line.to_owned()))
}

/// The JSON to send for one of ours. The server bundles everything, so the m-line is the first.
pub(super) fn format(candidate: &str) -> String {
    let line = candidate.strip_prefix("a=").unwrap_or(candidate);
    serde_json::json!({
        "candidate": line,
        "sdpMid": "0",
        "sdpMLineIndex": 0,
        "usernameFragment": null,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_sends() {
        let line = "candidate:2878742611 1 udp 2130706431 127.0.0.1 7882 typ host ufrag abc";
        let json = format!(
            r#"{{"candidate":"{line}","sdpMid":"","sdpMLineIndex":0,"usernameFragment":null}}"#
        );
        assert_eq!(parse(&json), Ok(Some(line.to_owned())));
        assert_eq!(parse(&format(line)), Ok(Some(line.to_owned())));
        assert_eq!(parse(r#"{"candidate":""}"#), Ok(None));
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn malformed_ones_are_errors() {
        for json in ["{", "[]", "{}", r#"{"candidate":7}"#, r#"{"candidate":"foo"}"#, "null"] {
            assert_eq!(parse(json), Err(()), "{json}");
        }
        let injected = r#"{"candidate":"candidate:1 1 udp 1 127.0.0.1 1 typ host\r\na=evil"}"#;
        assert_eq!(parse(injected), Err(()));
        let long = format!(r#"{{"candidate":"candidate:{}"}}"#, "x".repeat(CANDIDATE_BYTES_MAX));
        assert_eq!(parse(&long), Err(()));
    }
}
