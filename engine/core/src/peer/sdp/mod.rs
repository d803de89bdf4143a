//! SDP as text: what an offer says of media, and what we answer.
//!
//! LiveKit's subscriber offers say `sendrecv` (a pion transceiver's default) where they only send,
//! and `recvonly` for a removed track. str0m would answer `sendrecv` with SSRCs of its own, and
//! the server would make receivers for them. So an offer that str0m is to answer is rewritten first;
//! on the fast path it sees none of its media (see [`answer`]).

mod answer;
mod offer;

use std::borrow::Cow;

pub(crate) use answer::{Answer, answer, transport_offer};
pub(crate) use offer::Offer;

use crate::MediaKind;

/// One m-line of a remote description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteMedia {
    pub(crate) mid: String,
    pub(crate) kind: MediaKind,
    /// The remote side sends on it.
    pub(crate) sends: bool,
    /// Primary SSRCs with their RTX SSRC (`a=ssrc-group:FID`).
    pub(crate) ssrcs: Vec<(u32, Option<u32>)>,
    /// Track part of `a=msid`.
    pub(crate) track: Option<String>,
}

/// Rewrites an offer's audio and video m-lines: `sendrecv` (also where no direction is written,
/// RFC 8866 §6.7) becomes `sendonly`, `recvonly` becomes `inactive`. Nothing else changes.
pub(crate) fn rewrite_directions(offer: &str) -> String {
    let mut text = String::with_capacity(offer.len() + 64);
    let mut section = Section::default();
    for line in offer.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\r', '\n']);
        if bare.starts_with("m=") {
            section.end(&mut text);
            section = Section::begin(bare);
        }
        let new = if section.is_media { section.rewrite(bare) } else { Cow::Borrowed(bare) };
        text.push_str(&new);
        text.push_str(&line[bare.len()..]);
    }
    section.end(&mut text);
    text
}

#[derive(Default)]
struct Section {
    is_media: bool,
    has_direction: bool,
}

impl Section {
    fn begin(line: &str) -> Self {
        let is_media = line.starts_with("m=audio ") || line.starts_with("m=video ");
        Self { is_media, has_direction: false }
    }

    fn rewrite<'a>(&mut self, line: &'a str) -> Cow<'a, str> {
        let new = match line {
            "a=sendrecv" => "a=sendonly",
            "a=recvonly" => "a=inactive",
            "a=sendonly" | "a=inactive" => line,
            _ => return Cow::Borrowed(line),
        };
        self.has_direction = true;
        Cow::Borrowed(new)
    }

    fn end(&self, text: &mut String) {
        if self.is_media && !self.has_direction {
            if !text.ends_with('\n') {
                text.push_str("\r\n");
            }
            text.push_str("a=sendonly\r\n");
        }
    }
}

/// Reads the audio and video m-lines of a description. Lines it can't read are passed over:
/// [`Offer::parse`], or str0m's parser, is the one that refuses.
pub(crate) fn parse_media(sdp: &str) -> Vec<RemoteMedia> {
    let mut medias: Vec<RemoteMedia> = Vec::new();
    let mut repairs: Vec<(u32, u32)> = Vec::new();
    let mut ssrcs: Vec<u32> = Vec::new();
    let mut in_media = false;
    for line in sdp.lines().chain(["m=end"]) {
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("m=") {
            if in_media && let Some(media) = medias.last_mut() {
                pair_ssrcs(media, &ssrcs, &repairs);
            }
            ssrcs.clear();
            repairs.clear();
            let kind = match rest.split(' ').next() {
                Some("audio") => Some(MediaKind::Audio),
                Some("video") => Some(MediaKind::Video),
                _ => None,
            };
            in_media = kind.is_some();
            if let Some(kind) = kind {
                let (mid, ssrcs) = (String::new(), Vec::new());
                medias.push(RemoteMedia { mid, kind, sends: true, ssrcs, track: None });
            }
            continue;
        }
        let Some(media) = medias.last_mut().filter(|_| in_media) else { continue };
        match line.strip_prefix("a=").map(|rest| rest.split_once(':').unwrap_or((rest, ""))) {
            Some(("mid", mid)) => media.mid = mid.to_owned(),
            Some(("msid", msid)) => media.track = msid.split(' ').nth(1).map(str::to_owned),
            Some(("recvonly" | "inactive", "")) => media.sends = false,
            Some(("ssrc", rest)) => {
                if let Some(ssrc) = rest.split(' ').next().and_then(|ssrc| ssrc.parse().ok())
                    && !ssrcs.contains(&ssrc)
                {
                    ssrcs.push(ssrc);
                }
            }
            Some(("ssrc-group", rest)) => repairs.extend(parse_fid(rest)),
            _ => {}
        }
    }
    medias
}

fn parse_fid(group: &str) -> Option<(u32, u32)> {
    let mut words = group.split(' ');
    if words.next() != Some("FID") {
        return None;
    }
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn pair_ssrcs(media: &mut RemoteMedia, ssrcs: &[u32], repairs: &[(u32, u32)]) {
    let is_repair = |ssrc| repairs.iter().any(|&(_, repair)| repair == ssrc);
    let repair_of = |ssrc| repairs.iter().find(|&&(main, _)| main == ssrc).map(|&(_, rtx)| rtx);
    let primary = ssrcs.iter().copied().filter(|&ssrc| !is_repair(ssrc));
    media.ssrcs = primary.map(|ssrc| (ssrc, repair_of(ssrc))).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    const VP8_1: &str = include_str!("../../../tests/data/subscriber-offer-vp8-1.sdp");
    const VP8_2: &str = include_str!("../../../tests/data/subscriber-offer-vp8-2.sdp");
    const H264_2: &str = include_str!("../../../tests/data/subscriber-offer-h264-2.sdp");

    fn count(text: &str, line: &str) -> usize {
        text.lines().filter(|candidate| candidate.trim_end() == line).count()
    }

    #[test]
    fn only_the_application_line_keeps_its_direction() {
        assert_eq!(rewrite_directions(VP8_1), VP8_1);
        for offer in [VP8_2, H264_2] {
            let rewritten = rewrite_directions(offer);
            assert_eq!(count(&rewritten, "a=sendrecv"), 1);
            assert_eq!(count(&rewritten, "a=sendonly"), 2);
            assert_eq!(rewritten.lines().count(), offer.lines().count());
            let put_back = rewritten.replace("a=sendonly", "a=sendrecv");
            assert_eq!(put_back, offer, "nothing else changed");
            assert_eq!(rewrite_directions(&rewritten), rewritten, "idempotent");
        }
    }

    #[test]
    fn a_removed_track_becomes_inactive_and_a_missing_direction_sendonly() {
        let removed = VP8_2.replacen("a=sendrecv", "a=keep", 1).replace("a=sendrecv", "a=recvonly");
        let rewritten = rewrite_directions(&removed);
        assert_eq!(count(&rewritten, "a=inactive"), 2);
        assert_eq!(count(&rewritten, "a=recvonly"), 0);
        assert!(parse_media(&rewritten).iter().all(|media| !media.sends));

        let silent = rewrite_directions("v=0\r\nm=audio 9 X 0\r\na=mid:1\r\nm=video 9 X 1");
        let expected = "v=0\r\nm=audio 9 X 0\r\na=mid:1\r\na=sendonly\r\nm=video 9 X 1\r\n\
                        a=sendonly\r\n";
        assert_eq!(silent, expected);
    }

    #[test]
    fn ssrcs_mids_and_tracks_of_a_captured_offer() {
        assert!(parse_media(VP8_1).is_empty());
        let medias = parse_media(VP8_2);
        let audio = RemoteMedia {
            mid: "1".to_owned(),
            kind: MediaKind::Audio,
            sends: true,
            ssrcs: vec![(3_151_829_842, None)],
            track: Some("TR_AMPvZVst3PnizD".to_owned()),
        };
        let video = RemoteMedia {
            mid: "2".to_owned(),
            kind: MediaKind::Video,
            sends: true,
            ssrcs: vec![(1_432_898_797, Some(1_000_472_489))],
            track: Some("TR_VCkyJJ3dnCyNWY".to_owned()),
        };
        assert_eq!(medias, [audio, video]);
    }
}
