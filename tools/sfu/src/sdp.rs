//! The little the SFU reads and changes of SDP text itself. Pure.

/// An m-line of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MediaSection {
    /// `audio`, `video` or `application`.
    pub(crate) kind: String,
    /// `a=mid`.
    pub(crate) mid: String,
    /// Second word of `a=msid`.
    pub(crate) track_id: Option<String>,
    /// Whether its direction lets the offerer send.
    pub(crate) sends: bool,
}

/// The m-lines of an SDP, in order.
pub(crate) fn media_sections(sdp: &str) -> Vec<MediaSection> {
    let mut sections: Vec<MediaSection> = Vec::new();
    for line in sdp.lines() {
        if let Some(rest) = line.strip_prefix("m=") {
            let mut words = rest.split_whitespace();
            let kind = words.next().unwrap_or_default().to_owned();
            sections.push(MediaSection { kind, sends: true, ..MediaSection::default() });
            continue;
        }
        let Some(section) = sections.last_mut() else { continue };
        if let Some(mid) = line.strip_prefix("a=mid:") {
            section.mid = mid.trim().to_owned();
        } else if let Some(msid) = line.strip_prefix("a=msid:") {
            section.track_id = msid.split_whitespace().nth(1).map(str::to_owned);
        } else if matches!(line.trim(), "a=recvonly" | "a=inactive") {
            section.sends = false;
        }
    }
    sections
}

/// The offer with `sendrecv` media turned into `sendonly`.
pub(crate) fn receive_only(sdp: &str) -> String {
    let mut media = false;
    let mut out = String::with_capacity(sdp.len());
    for line in sdp.lines() {
        if let Some(rest) = line.strip_prefix("m=") {
            media = !rest.starts_with("application");
        }
        out.push_str(if media && line.trim() == "a=sendrecv" { "a=sendonly" } else { line });
        out.push_str("\r\n");
    }
    out
}

/// The description without its candidates, which an ICE-lite server has no use for: it learns an
/// address from the first check. One that names addresses of another family only would end ICE
/// before it began.
pub(crate) fn without_candidates(sdp: &str) -> String {
    let lines = sdp.split_inclusive('\n');
    lines.filter(|line| !line.starts_with("a=candidate:")).collect()
}

/// The answer with DTX asked for in the Opus m-lines of these mids, as LiveKit has it
/// (`pkg/rtc/participant_sdp.go`, `usedtx`; RFC 7587 §6.1).
pub(crate) fn with_dtx(sdp: &str, mids: &[&str]) -> String {
    // Each section from its m-line on, and what is before the first of them.
    let starts = sdp.match_indices("\nm=").map(|(at, _)| at + 1);
    let mut bounds: Vec<usize> = std::iter::once(0).chain(starts).collect();
    bounds.push(sdp.len());
    let mut out = String::with_capacity(sdp.len() + 16);
    for (start, end) in bounds.iter().zip(&bounds[1..]) {
        let section = &sdp[*start..*end];
        let mid = section.lines().find_map(|line| line.strip_prefix("a=mid:"));
        let opus = section.lines().find_map(|line| {
            let (pt, codec) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
            codec.to_ascii_lowercase().starts_with("opus/").then(|| format!("a=fmtp:{pt} "))
        });
        let opus = opus.filter(|_| mid.is_some_and(|mid| mids.contains(&mid.trim())));
        for line in section.split_inclusive('\n') {
            match &opus {
                Some(opus) if line.starts_with(opus.as_str()) => {
                    let text = line.trim_end();
                    out.push_str(text);
                    out.push_str(";usedtx=1");
                    out.push_str(&line[text.len()..]);
                }
                _ => out.push_str(line),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtx_is_asked_for_where_it_is_wanted() {
        let section = |mid: &str, parameters: &str| {
            format!(
                "m=audio 9 UDP/TLS/RTP/SAVPF 111 8\r\na=rtpmap:111 opus/48000/2\r\n\
                 a=rtpmap:8 PCMA/8000\r\na=fmtp:111 {parameters}\r\na=fmtp:8 x=1\r\n\
                 a=mid:{mid}\r\n"
            )
        };
        let sdp = |second: &str| {
            let plain = "useinbandfec=1";
            format!("v=0\r\n{}{}{}", section("0", plain), section("1", second), section("2", plain))
        };
        let answer = sdp("useinbandfec=1");
        assert_eq!(with_dtx(&answer, &["1"]), sdp("useinbandfec=1;usedtx=1"));
        assert_eq!(with_dtx(&answer, &[]), answer);
    }

    #[test]
    fn only_candidates_are_left_out() {
        let text = "a=mid:0\r\na=candidate:1 1 udp 1 ::1 9 typ host\r\na=end-of-candidates\r\n";
        assert_eq!(without_candidates(text), "a=mid:0\r\na=end-of-candidates\r\n");
    }

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendrecv\r\na=msid:stream mic\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=inactive\r\na=msid:- cam\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sendrecv\r\n";

    #[test]
    fn sections_are_read() {
        let sections = media_sections(OFFER);
        assert_eq!(sections.len(), 3);
        assert_eq!(
            sections[0],
            MediaSection {
                kind: "audio".into(),
                mid: "0".into(),
                track_id: Some("mic".into()),
                sends: true
            }
        );
        assert!(!sections[1].sends);
        assert_eq!(sections[2].kind, "application");
    }

    #[test]
    fn only_media_directions_change() {
        let changed = receive_only(OFFER);
        assert!(changed.contains("a=mid:0\r\na=sendonly\r\n"));
        assert!(changed.ends_with("a=mid:2\r\na=sendrecv\r\n"));
    }
}
