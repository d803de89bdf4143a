//! The answer of a subscriber whose media str0m never sees.
//!
//! str0m's part is the transport, so it is told of nothing else: an offer with one data channel
//! m-line. What the answer says of media is written here. That spares each peer the reading of
//! some hundred lines (a quarter of a join) and str0m's state for streams that it never receives.

use std::fmt::Write;

use stampede_media::{Codec, dependency_descriptor};

use super::offer::{Offer, Section};
use crate::peer::fast::ExtensionIds;
use crate::peer::formats::{Format, Formats};
use crate::peer::{REMOTE_CANDIDATES_MAX, is_unusable_candidate};

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const ABS_CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// Header extensions that are answered: those of [`ExtensionIds`], and what a browser takes too.
const EXTENSIONS: [&str; 6] = [
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    MID,
    ABS_CAPTURE_TIME,
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    dependency_descriptor::URI,
];
/// Feedback that is answered for video, as str0m would; none for audio, like a browser. Never
/// `transport-cc`: see `config::subscriber`.
const FEEDBACK: [&str; 4] = ["nack", "nack pli", "ccm fir", "goog-remb"];
/// What our answers' session and m-lines say where WebRTC has no use for an address.
const NO_ADDRESS: &str = "c=IN IP4 0.0.0.0\r\n";

/// An answer and what it agrees on.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) formats: Formats,
    pub(crate) ids: ExtensionIds,
}

/// What str0m is told of an offer: its transport, as one data channel m-line.
pub(crate) fn transport_offer(offer: &Offer<'_>) -> String {
    let application = offer.sections.iter().find(|section| section.media == "application");
    let mid = application.map_or("data", |section| section.mid);
    let mut text = String::with_capacity(1_024);
    text.push_str("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
    if offer.session_attributes("ice-lite").next().is_some() {
        text.push_str("a=ice-lite\r\n");
    }
    put(&mut text, format_args!("a=group:BUNDLE {mid}"));
    text.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    text.push_str(NO_ADDRESS);
    put(&mut text, format_args!("a=mid:{mid}"));
    for name in ["setup", "fingerprint", "ice-ufrag", "ice-pwd"] {
        if let Some(value) = offer.shared(name) {
            put(&mut text, format_args!("a={name}:{value}"));
        }
    }
    let port = application.and_then(|section| section.attribute("sctp-port")).unwrap_or("5000");
    put(&mut text, format_args!("a=sctp-port:{port}"));
    if let Some(bytes) = application.and_then(|section| section.attribute("max-message-size")) {
        put(&mut text, format_args!("a=max-message-size:{bytes}"));
    }
    let candidates = offer.sections.iter().flat_map(|section| section.attributes("candidate"));
    // Component 2 is RTCP's, which is multiplexed (RFC 8843 §9.3.2.1).
    let usable = candidates.filter(|candidate| {
        candidate.split(' ').nth(1) != Some("2") && !is_unusable_candidate(candidate)
    });
    for candidate in usable.take(REMOTE_CANDIDATES_MAX) {
        put(&mut text, format_args!("a=candidate:{candidate}"));
    }
    text
}

/// The answer to an offer, given str0m's to its [`transport_offer`]. `version` is one more with
/// each answer (RFC 3264 §8).
///
/// # Errors
/// What str0m's answer lacks; it lacks nothing.
pub(crate) fn answer(offer: &Offer<'_>, transport: &str, version: u64) -> Result<Answer, String> {
    let transport = Offer::parse(transport)?;
    let own = transport.sections.first().ok_or("no transport was answered")?;
    let media: Vec<_> = offer.sections.iter().map(|section| Media::of(offer, section)).collect();

    let mut text = String::with_capacity(2_048);
    text.push_str("v=0\r\n");
    put(&mut text, format_args!("o=stampede 1 {version} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0"));
    let accepted = media.iter().filter(|media| media.is_accepted());
    let mids: Vec<_> = accepted.map(|media| media.section.mid).collect();
    if !mids.is_empty() {
        put(&mut text, format_args!("a=group:BUNDLE {}", mids.join(" ")));
    }
    text.push_str("a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n");
    let (mut formats, mut ids) = (Formats::default(), ExtensionIds::default());
    let mut is_first = true;
    for media in &media {
        media.write_line(&mut text);
        if !media.is_accepted() {
            put(&mut text, format_args!("a=mid:{}\r\na=inactive", media.section.mid));
            continue;
        }
        // The bundle's first m-line carries its candidates (RFC 9143 §7.2).
        if std::mem::take(&mut is_first) {
            for candidate in own.attributes("candidate") {
                put(&mut text, format_args!("a=candidate:{candidate}"));
            }
        }
        for name in ["ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup"] {
            if let Some(value) = own.attribute(name) {
                put(&mut text, format_args!("a={name}:{value}"));
            }
        }
        put(&mut text, format_args!("a=mid:{}", media.section.mid));
        if media.section.media == "application" {
            for name in ["sctp-port", "max-message-size"] {
                if let Some(value) = own.attribute(name) {
                    put(&mut text, format_args!("a={name}:{value}"));
                }
            }
            continue;
        }
        media.write_attributes(&mut text);
        media.formats.iter().for_each(|&format| formats.add(format));
        media.extensions.iter().for_each(|&(id, uri)| add_id(&mut ids, id, uri));
    }
    Ok(Answer { text, formats, ids })
}

/// What is taken of one offered m-line.
struct Media<'a> {
    section: &'a Section<'a>,
    rejected: bool,
    formats: Vec<Format>,
    extensions: Vec<(u8, &'a str)>,
}

impl<'a> Media<'a> {
    fn of(offer: &Offer<'_>, section: &'a Section<'a>) -> Self {
        let rejected = offer.is_rejected(section);
        let formats = if rejected { Vec::new() } else { accepted_formats(section) };
        let extensions = section.attributes("extmap").filter_map(|line| {
            let (id, uri) = line.split_once(' ')?;
            // The id may have a direction, the URI attributes (RFC 8285 §5).
            let id = id.split('/').next()?.parse().ok()?;
            let uri = uri.split(' ').next()?;
            EXTENSIONS.contains(&uri).then_some((id, uri))
        });
        Self { section, rejected, formats, extensions: extensions.collect() }
    }

    fn is_accepted(&self) -> bool {
        !self.rejected && (self.section.media == "application" || !self.formats.is_empty())
    }

    fn write_line(&self, text: &mut String) {
        let Section { media, protocol, .. } = self.section;
        let port = if self.is_accepted() { 9 } else { 0 };
        let _ = write!(text, "m={media} {port} {protocol}");
        if self.formats.is_empty() {
            let first = self.section.formats.first().unwrap_or(&"0");
            let _ = write!(text, " {first}");
        }
        for format in &self.formats {
            let _ = write!(text, " {}", format.wire);
        }
        text.push_str("\r\n");
        text.push_str(NO_ADDRESS);
    }

    fn write_attributes(&self, text: &mut String) {
        for (id, uri) in &self.extensions {
            put(text, format_args!("a=extmap:{id} {uri}"));
        }
        // LiveKit's offers say `sendrecv` where it only sends, and `recvonly` for a track that is
        // gone (see the `sdp` module).
        let is_gone = ["recvonly", "inactive"];
        let is_gone = is_gone.iter().any(|name| self.section.attribute(name).is_some());
        text.push_str(if is_gone { "a=inactive\r\n" } else { "a=recvonly\r\n" });
        text.push_str("a=rtcp-mux\r\n");
        if self.section.attribute("rtcp-rsize").is_some() {
            text.push_str("a=rtcp-rsize\r\n");
        }
        for format in &self.formats {
            self.write_format(format.wire, text);
        }
    }

    /// What the offer says of a payload type, without feedback that we don't give.
    fn write_format(&self, wire: u8, text: &mut String) {
        let is_video = self.section.media == "video";
        for name in ["rtpmap", "rtcp-fb", "fmtp"] {
            for line in self.section.attributes(name) {
                let Some((of, value)) = line.split_once(' ') else { continue };
                let is_given = name != "rtcp-fb" || is_video && FEEDBACK.contains(&value);
                if of.parse() == Ok(wire) && is_given {
                    put(text, format_args!("a={name}:{wire} {value}"));
                }
            }
        }
    }
}

/// Payload types that we follow, in the order of the offer, each with its RTX.
fn accepted_formats(section: &Section<'_>) -> Vec<Format> {
    let of_wire = |name: &str, wire: &str| {
        let mut lines = section.attributes(name).filter_map(|line| line.split_once(' '));
        lines.find(|(of, _)| *of == wire).map(|(_, value)| value)
    };
    let is_audio = section.media == "audio";
    let known = section.formats.iter().filter_map(|word| {
        let mut rtpmap = of_wire("rtpmap", word)?.split('/');
        let (name, clock_rate) = (rtpmap.next()?, rtpmap.next()?.parse().ok()?);
        let codec = codec(name, of_wire("fmtp", word)).filter(|c| c.is_video() != is_audio)?;
        let wire = word.parse().ok()?;
        Some(Format { wire, media: wire, codec, clock_rate })
    });
    let known: Vec<Format> = known.collect();
    let formats = section.formats.iter().filter_map(|word| {
        let wire: u8 = word.parse().ok()?;
        let is_rtx = of_wire("rtpmap", word)?.to_ascii_lowercase().starts_with("rtx/");
        let media = match is_rtx {
            // With other parameters beside it, perhaps (RFC 4588 §8.6).
            true => {
                let mut parameters = of_wire("fmtp", word)?.split(';').map(str::trim);
                parameters.find_map(|parameter| parameter.strip_prefix("apt="))?.parse().ok()?
            }
            false => wire,
        };
        let format = known.iter().find(|format| format.media == media)?;
        Some(Format { wire, ..*format })
    });
    formats.collect()
}

/// Names are compared without case (RFC 8866 §6.6).
fn codec(name: &str, parameters: Option<&str>) -> Option<Codec> {
    let codecs = [
        ("opus", Codec::Opus),
        ("vp8", Codec::Vp8),
        ("vp9", Codec::Vp9),
        ("h264", Codec::H264),
        ("av1", Codec::Av1),
    ];
    let (_, codec) = *codecs.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    // Profiles 1 and 3 (not 4:2:0) are what str0m doesn't take either.
    let is_odd_vp9 = codec == Codec::Vp9
        && parameters.is_some_and(|p| p.contains("profile-id=1") || p.contains("profile-id=3"));
    (!is_odd_vp9).then_some(codec)
}

fn add_id(ids: &mut ExtensionIds, id: u8, uri: &str) {
    let known = match uri {
        MID => &mut ids.mid,
        ABS_CAPTURE_TIME => &mut ids.abs_capture_time,
        dependency_descriptor::URI => &mut ids.dependency_descriptor,
        _ => return,
    };
    known.get_or_insert(id);
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(line);
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::*;
    use crate::{DtlsIdentity, Peer, PeerOptions, ReceivePath};

    const OFFERS: [&str; 4] = [
        include_str!("../../../tests/data/subscriber-offer-vp8-1.sdp"),
        include_str!("../../../tests/data/subscriber-offer-vp8-2.sdp"),
        include_str!("../../../tests/data/subscriber-offer-h264-1.sdp"),
        include_str!("../../../tests/data/subscriber-offer-h264-2.sdp"),
    ];

    fn answer_of(path: ReceivePath, offer: &str) -> String {
        let now = Instant::now();
        let identity = DtlsIdentity::generate().unwrap();
        let options = PeerOptions { receive_path: path, ..PeerOptions::new(identity) };
        let local: SocketAddr = "127.0.0.1:40001".parse().unwrap();
        let mut peer = Peer::subscriber(now, local, &options, false).unwrap();
        peer.accept_offer(now, offer, &[]).unwrap()
    }

    /// What an m-line agrees on, in no order; without what is random.
    fn meaning(answer: &str) -> Vec<(String, String, BTreeSet<String>)> {
        let answer = Offer::parse(answer).unwrap();
        let of = |section: &Section<'_>| {
            let random = ["ice-ufrag", "ice-pwd", "fingerprint", "candidate", "msid"];
            let names = ["rtpmap", "rtcp-fb", "fmtp", "extmap", "setup", "rtcp-mux", "recvonly"];
            let names = names.iter().chain(&["sctp-port", "max-message-size", "ice-options"]);
            let lines = names.flat_map(|name| {
                section.attributes(name).map(move |value| format!("{name}:{value}"))
            });
            let present = random.iter().filter(|name| section.attribute(name).is_some());
            let present = present.filter(|name| **name != "msid").map(|name| (*name).to_owned());
            let lines = lines.chain(present).collect();
            (format!("{} {}", section.media, section.port), section.mid.to_owned(), lines)
        };
        answer.sections.iter().map(of).collect()
    }

    #[test]
    fn the_answer_is_str0ms() {
        for offer in OFFERS {
            let own = meaning(&answer_of(ReceivePath::Fast, offer));
            let reference = meaning(&answer_of(ReceivePath::Str0m, offer));
            assert_eq!(own.len(), reference.len());
            for (own, reference) in own.iter().zip(&reference) {
                assert_eq!(own, reference);
            }
        }
    }

    #[test]
    fn formats_and_extensions_of_a_captured_offer() {
        let offer = Offer::parse(OFFERS[1]).unwrap();
        let answer = answer(&offer, &answer_of(ReceivePath::Fast, OFFERS[0]), 1).unwrap();
        let format = |wire, media, codec, clock_rate| Format { wire, media, codec, clock_rate };
        let of = |wire| answer.formats.get(wire);
        assert_eq!(of(111), Some(format(111, 111, Codec::Opus, 48_000)));
        assert_eq!(of(96), Some(format(96, 96, Codec::Vp8, 90_000)));
        assert_eq!(of(109), Some(format(109, 108, Codec::H264, 90_000)), "RTX");
        assert_eq!((of(63), of(0), of(116), of(101)), (None, None, None, None));
        let ids =
            ExtensionIds { mid: None, abs_capture_time: Some(2), dependency_descriptor: Some(1) };
        assert_eq!(answer.ids, ids);
    }

    #[test]
    fn what_is_rejected_stays_out_of_the_bundle() {
        let is_at = |answer: &str, line: &str| answer.lines().filter(|l| *l == line).count();
        let offer = OFFERS[1].replace("opus/48000/2", "L16/48000/2");
        let answer = answer_of(ReceivePath::Fast, &offer);
        assert_eq!(is_at(&answer, "a=group:BUNDLE 0 2"), 1, "{answer}");
        assert_eq!(is_at(&answer, "m=audio 0 UDP/TLS/RTP/SAVPF 111"), 1);
        assert_eq!((is_at(&answer, "a=inactive"), is_at(&answer, "a=recvonly")), (1, 1));
        let gone = OFFERS[1].replacen("a=group:BUNDLE 0 1 2", "a=group:BUNDLE 0 2", 1);
        let gone = gone.replacen("m=audio 9", "m=audio 0", 1);
        let answer = answer_of(ReceivePath::Fast, &gone);
        assert_eq!(is_at(&answer, "a=group:BUNDLE 0 2"), 1, "{answer}");
        let bundle_only = OFFERS[1].replacen("m=audio 9", "m=audio 0", 1);
        let answer = answer_of(ReceivePath::Fast, &bundle_only);
        assert_eq!(is_at(&answer, "a=group:BUNDLE 0 1 2"), 1, "{answer}");
    }

    #[test]
    fn a_track_that_is_gone_is_inactive_and_no_data_channel_is_no_harm() {
        let gone =
            OFFERS[1].replacen("a=sendrecv", "a=keep", 1).replace("a=sendrecv", "a=recvonly");
        let answer = answer_of(ReceivePath::Fast, &gone);
        let lines = |name: &str| answer.lines().filter(|line| *line == name).count();
        assert_eq!((lines("a=inactive"), lines("a=recvonly")), (2, 0), "{answer}");

        let (head, rest) = OFFERS[1].split_once("m=application").unwrap();
        let media = &rest[rest.find("m=audio").unwrap()..];
        let offer = format!("{head}{media}").replace("BUNDLE 0 1 2", "BUNDLE 1 2");
        let answer = answer_of(ReceivePath::Fast, &offer);
        assert!(!answer.contains("m=application"), "{answer}");
        let (audio, video) = answer.split_once("m=video").unwrap();
        assert!(audio.contains("a=candidate:") && !video.contains("a=candidate:"), "{answer}");
    }

    #[test]
    fn rtx_with_more_parameters_is_rtx() {
        let offer = OFFERS[1].replace("a=fmtp:97 apt=96", "a=fmtp:97 rtx-time=3000; apt=96");
        let offer = Offer::parse(&offer).unwrap();
        let answer = answer(&offer, &answer_of(ReceivePath::Fast, OFFERS[0]), 1).unwrap();
        assert_eq!(answer.formats.get(97).map(|format| format.media), Some(96));
        assert!(answer.text.contains("a=fmtp:97 rtx-time=3000; apt=96\r\n"), "{}", answer.text);
    }

    #[test]
    fn later_offers_of_the_same_peer() {
        let now = Instant::now();
        let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
        let local: SocketAddr = "127.0.0.1:40001".parse().unwrap();
        let mut peer = Peer::subscriber(now, local, &options, false).unwrap();
        let mut answer_to = |offer: &str| peer.accept_offer(now, offer, &[]).unwrap();
        let line = |answer: &str, start: &str| {
            answer.lines().find(|line| line.starts_with(start)).map(str::to_owned)
        };
        let first = answer_to(OFFERS[0]);
        let second = answer_to(OFFERS[1]);
        for same in ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=candidate:"] {
            assert!(line(&first, same).is_some());
            assert_eq!(line(&first, same), line(&second, same));
        }
        assert_ne!(line(&first, "o="), line(&second, "o="), "another version");
        // The video is gone, and another track has its place.
        let other = OFFERS[1].replace("a=mid:2", "a=mid:3").replace("BUNDLE 0 1 2", "BUNDLE 0 1 3");
        let recycled = answer_to(&other);
        assert_eq!(line(&recycled, "a=group:").as_deref(), Some("a=group:BUNDLE 0 1 3"));
        // The server restarts ICE (RFC 8445 §9): new credentials on both sides, the same DTLS.
        let restart = OFFERS[1].replace("NzzjEwczVgHHTsuJ", "AAAAEwczVgHHTsuJ");
        let restarted = answer_to(&restart);
        assert_ne!(line(&restarted, "a=ice-ufrag:"), line(&first, "a=ice-ufrag:"));
        assert_eq!(line(&restarted, "a=fingerprint:"), line(&first, "a=fingerprint:"));
        assert_eq!(line(&restarted, "a=setup:"), line(&first, "a=setup:"));
    }

    #[test]
    fn what_is_no_offer_is_told() {
        for (text, reason) in [
            ("", "it does not begin with v=0"),
            ("v=0\r\n", "it has no m-line"),
            ("v=0\r\nrubbish\r\n", "\"rubbish\" is no line of SDP"),
            ("v=0\r\nm=audio 9\r\n", "\"m=audio 9\" is cut short"),
            ("v=0\r\nm=audio 9 X 0\r\n", "m-line 0 has no mid of its own"),
            (
                "v=0\r\nm=audio 9 X 0\r\na=mid:1\r\nm=audio 9 X 0\r\na=mid:1",
                "m-line 1 has no mid of its own",
            ),
        ] {
            assert_eq!(Offer::parse(text).unwrap_err(), reason);
        }
    }
}
