//! The answer of a subscriber whose media str0m never sees.
//!
//! str0m's part is the transport, so it is told of nothing else: an offer with one data channel
//! m-line. What the answer says of media is written here. That spares each peer the reading of
//! some hundred lines (a quarter of a join) and str0m's state for streams that it never receives.

use std::fmt::Write;

use stampede_media::{Codec, dependency_descriptor};
use stampede_sdp::{
    Description, Extension, Media, MediaKind, MediaType, ParseError, PayloadType, Transport,
};

use super::REMOTE_CANDIDATES_MAX;
use super::receiving::{Agreed, ExtensionIds, Format};
use crate::{CongestionFeedback, VideoCodecs};

pub(super) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
pub(super) const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub(super) const ABS_CAPTURE_TIME: &str =
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// When a packet was sent (24 bits, 2⁻¹⁸ s).
pub(super) const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
/// The sequence number over all streams of a transport.
pub(super) const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Header extensions that are answered: those of [`ExtensionIds`], and what a browser takes too.
const EXTENSIONS: [&str; 6] = [
    AUDIO_LEVEL,
    MID,
    ABS_CAPTURE_TIME,
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    dependency_descriptor::URI,
];
/// Feedback that is answered for video, as str0m would; none for audio, like a browser.
pub(super) const FEEDBACK: [&str; 4] = ["nack", "nack pli", "ccm fir", GOOG_REMB];
const GOOG_REMB: &str = "goog-remb";
/// Feedback on [`TRANSPORT_CC`], for video too; only with [`CongestionFeedback::Chrome`].
pub(super) const TRANSPORT_CC_FEEDBACK: &str = "transport-cc";
/// What our answers' session and m-lines say where WebRTC has no use for an address.
pub(super) const NO_ADDRESS: &str = "c=IN IP4 0.0.0.0\r\n";

/// An answer and what it agrees on.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) agreed: Agreed,
}

/// What str0m is told of the server's description: its transport, as one data channel m-line.
pub(super) fn transport_of(description: &Description<'_>) -> String {
    let mut media = description.media.iter();
    let application = media.find(|media| media.media_type == MediaType::Application);
    let mid = application.map_or("data", |media| media.mid);
    let mut text = String::with_capacity(1_024);
    text.push_str("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
    if description.ice_lite {
        text.push_str("a=ice-lite\r\n");
    }
    put(&mut text, format_args!("a=group:BUNDLE {mid}"));
    text.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    text.push_str(NO_ADDRESS);
    put(&mut text, format_args!("a=mid:{mid}"));
    let transport = description.transport();
    put_attribute(&mut text, "setup", transport.setup);
    put_attribute(&mut text, "fingerprint", transport.fingerprint);
    put_attribute(&mut text, "ice-ufrag", transport.ice_ufrag);
    put_attribute(&mut text, "ice-pwd", transport.ice_pwd);
    let port = application.and_then(|media| media.sctp_port);
    put_attribute(&mut text, "sctp-port", port.or(Some("5000")));
    let bytes = application.and_then(|media| media.max_message_size);
    put_attribute(&mut text, "max-message-size", bytes);
    let usable = description.candidates().filter(|candidate| {
        (candidate.is_udp() || candidate.is_tcp())
            && !candidate.is_rtcp()
            && candidate.socket_address().is_some()
    });
    for candidate in usable.take(REMOTE_CANDIDATES_MAX) {
        put(&mut text, format_args!("a=candidate:{}", candidate.value));
    }
    text
}

/// The answer to an offer, given str0m's to its [`transport_of`]. `version` is one more with
/// each answer (RFC 3264 §8).
///
/// # Errors
/// str0m's answer can't be read.
pub(super) fn answer(
    offer: &Description<'_>,
    transport: &str,
    version: u64,
    feedback: CongestionFeedback,
    codecs: VideoCodecs,
) -> Result<Answer, ParseError> {
    let transport = Description::parse(transport)?;
    let own = transport.media.first().ok_or(ParseError::NoMedia)?;
    let answered: Vec<_> =
        offer.media.iter().map(|media| Answered::to(offer, media, feedback, codecs)).collect();
    let mut text = String::with_capacity(2_048);
    let accepted = answered.iter().filter(|answered| answered.is_accepted());
    let mids: Vec<_> = accepted.map(|answered| answered.media.mid).collect();
    put_session(&mut text, version, &mids.join(" "));
    let mut agreed = Agreed { reduced_size: true, ..Agreed::default() };
    let mut is_first = true;
    for answered in &answered {
        answered.write_line(&mut text);
        if !answered.is_accepted() {
            put(&mut text, format_args!("a=mid:{}\r\na=inactive", answered.media.mid));
            continue;
        }
        // The bundle's first m-line carries its candidates (RFC 9143 §7.2).
        if std::mem::take(&mut is_first) {
            for candidate in &own.candidates {
                put(&mut text, format_args!("a=candidate:{}", candidate.value));
            }
        }
        put_transport(&mut text, &own.transport);
        put(&mut text, format_args!("a=mid:{}", answered.media.mid));
        if answered.media.media_type == MediaType::Application {
            put_attribute(&mut text, "sctp-port", own.sctp_port);
            put_attribute(&mut text, "max-message-size", own.max_message_size);
            continue;
        }
        answered.write_attributes(&mut text);
        answered.formats.iter().for_each(|&(format, _)| agreed.formats.add(format));
        answered.extensions.iter().for_each(|&e| add_id(&mut agreed.ids, answered.media, e));
        agreed.reduced_size &= answered.media.rtcp_rsize;
    }
    Ok(Answer { text, agreed })
}

/// What an answer of the server agrees on, of what it sends. Its RTCP is not of reduced size though the answer would
/// have it: Chrome, where it offers, was seen to send compound packets only.
pub(super) fn agreed_by(answer: &Description<'_>) -> Agreed {
    let mut agreed = Agreed::default();
    let sent = |media: &&Media<'_>| !answer.is_rejected(media) && media.direction.sends();
    for media in answer.media.iter().filter(sent) {
        accepted_formats(media, VideoCodecs::default())
            .iter()
            .for_each(|&(format, _)| agreed.formats.add(format));
        media.extensions.iter().for_each(|&e| add_id(&mut agreed.ids, media, e));
    }
    agreed
}

/// What is taken of one offered m-line.
struct Answered<'a> {
    media: &'a Media<'a>,
    is_rejected: bool,
    feedback: CongestionFeedback,
    formats: Vec<(Format, &'a PayloadType<'a>)>,
    extensions: Vec<Extension<'a>>,
}

impl<'a> Answered<'a> {
    fn to(
        offer: &Description<'_>,
        media: &'a Media<'a>,
        feedback: CongestionFeedback,
        codecs: VideoCodecs,
    ) -> Self {
        let is_rejected = offer.is_rejected(media);
        let formats = if is_rejected { Vec::new() } else { accepted_formats(media, codecs) };
        let congestion =
            feedback == CongestionFeedback::Chrome && media.media_type == MediaType::Video;
        let known = |extension: &&Extension<'_>| {
            EXTENSIONS.contains(&extension.uri)
                || (congestion && [ABS_SEND_TIME, TRANSPORT_CC].contains(&extension.uri))
        };
        let extensions = media.extensions.iter().filter(known).copied().collect();
        Self { media, is_rejected, feedback, formats, extensions }
    }

    fn is_accepted(&self) -> bool {
        let is_application = self.media.media_type == MediaType::Application;
        !self.is_rejected && (is_application || !self.formats.is_empty())
    }

    fn write_line(&self, text: &mut String) {
        let Media { media_word, protocol, first_format, .. } = self.media;
        let port = if self.is_accepted() { 9 } else { 0 };
        let _ = write!(text, "m={media_word} {port} {protocol}");
        if self.formats.is_empty() {
            let _ = write!(text, " {first_format}");
        }
        for (format, _) in &self.formats {
            let _ = write!(text, " {}", format.wire);
        }
        text.push_str("\r\n");
        text.push_str(NO_ADDRESS);
    }

    fn write_attributes(&self, text: &mut String) {
        for Extension { id, uri } in &self.extensions {
            put(text, format_args!("a=extmap:{id} {uri}"));
        }
        // LiveKit's offers say `sendrecv` (a pion transceiver's default) where it only sends, and
        // `recvonly` for a track that is gone. An answer that promised to send would make it set
        // up receivers.
        let sends = self.media.direction.sends();
        text.push_str(if sends { "a=recvonly\r\n" } else { "a=inactive\r\n" });
        text.push_str("a=rtcp-mux\r\n");
        if self.media.rtcp_rsize {
            text.push_str("a=rtcp-rsize\r\n");
        }
        for (_, payload_type) in &self.formats {
            self.write_payload_type(payload_type, text);
        }
    }

    /// What the offer says of a payload type, without feedback that we don't give.
    fn write_payload_type(&self, payload_type: &PayloadType<'_>, text: &mut String) {
        let number = payload_type.number;
        if let Some(rtpmap) = payload_type.rtpmap {
            put(text, format_args!("a=rtpmap:{number} {}", rtpmap.value));
        }
        let is_video = self.media.media_type == MediaType::Video;
        let chrome = self.feedback == CongestionFeedback::Chrome;
        let given = |value: &&&str| {
            is_video && (FEEDBACK.contains(value) || (chrome && **value == TRANSPORT_CC_FEEDBACK))
        };
        for value in payload_type.feedback.iter().filter(given) {
            put(text, format_args!("a=rtcp-fb:{number} {value}"));
        }
        if let Some(parameters) = payload_type.fmtp {
            put(text, format_args!("a=fmtp:{number} {parameters}"));
        }
    }
}

/// Payload types that we follow, in the order of the offer, each with its RTX.
fn accepted_formats<'a>(
    media: &'a Media<'a>,
    codecs: VideoCodecs,
) -> Vec<(Format, &'a PayloadType<'a>)> {
    let Some(kind) = media.media_type.kind() else { return Vec::new() };
    let is_video = kind == MediaKind::Video;
    let known = media.payload_types.iter().filter_map(|payload_type| {
        let codec = codec(payload_type)
            .filter(|codec| codec.is_video() == is_video && codecs.has(*codec))?;
        let (number, clock_rate) = (payload_type.number, payload_type.rtpmap?.clock_rate);
        Some(Format { wire: number, media: number, red: false, codec, clock_rate })
    });
    let known: Vec<Format> = known.collect();
    let accepted = media.payload_types.iter().filter_map(|payload_type| {
        let red = !is_video && payload_type.is("red");
        let number = match (red, payload_type.is("rtx")) {
            (true, _) => payload_type.redundant()?,
            // RFC 4588 §8.1.
            (_, true) => payload_type.parameter("apt")?.parse().ok()?,
            _ => payload_type.number,
        };
        let format = known.iter().find(|format| format.media == number)?;
        Some((Format { wire: payload_type.number, red, ..*format }, payload_type))
    });
    accepted.collect()
}

fn codec(payload_type: &PayloadType<'_>) -> Option<Codec> {
    let codecs = [
        ("opus", Codec::Opus),
        ("vp8", Codec::Vp8),
        ("vp9", Codec::Vp9),
        ("h264", Codec::H264),
        ("h265", Codec::H265),
        ("av1", Codec::Av1),
    ];
    let (_, codec) = *codecs.iter().find(|(name, _)| payload_type.is(name))?;
    // Profiles 1 and 3 (not 4:2:0) are what str0m doesn't take either.
    let is_other_profile =
        codec == Codec::Vp9 && matches!(payload_type.parameter("profile-id"), Some("1" | "3"));
    (!is_other_profile).then_some(codec)
}

fn add_id(ids: &mut ExtensionIds, media: &Media<'_>, extension: Extension<'_>) {
    // Only what the sender takes feedback on. Of audio it takes none on send times.
    let takes = |feedback| {
        media.payload_types.iter().any(|payload_type| payload_type.feedback.contains(&feedback))
    };
    let known = match extension.uri {
        ABS_SEND_TIME if takes(GOOG_REMB) => &mut ids.abs_send_time,
        TRANSPORT_CC if takes(TRANSPORT_CC_FEEDBACK) => &mut ids.transport_cc,
        MID => &mut ids.mid,
        ABS_CAPTURE_TIME => &mut ids.abs_capture_time,
        dependency_descriptor::URI => &mut ids.dependency_descriptor,
        _ => return,
    };
    known.get_or_insert(extension.id);
}

/// What a description of ours says of the session. `version` is one more with each (RFC 3264 §8);
/// `bundled` are the mids of the bundle, if there is one.
pub(super) fn put_session(text: &mut String, version: u64, bundled: &str) {
    text.push_str("v=0\r\n");
    put(text, format_args!("o=stampede 1 {version} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0"));
    if !bundled.is_empty() {
        put(text, format_args!("a=group:BUNDLE {bundled}"));
    }
    text.push_str("a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n");
}

/// What an m-line of ours says of its ICE and DTLS transport.
pub(super) fn put_transport(text: &mut String, transport: &Transport<'_>) {
    put_attribute(text, "ice-ufrag", transport.ice_ufrag);
    put_attribute(text, "ice-pwd", transport.ice_pwd);
    put_attribute(text, "ice-options", transport.ice_options);
    put_attribute(text, "fingerprint", transport.fingerprint);
    put_attribute(text, "setup", transport.setup);
}

pub(super) fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(line);
    text.push_str("\r\n");
}

pub(super) fn put_attribute(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        put(text, format_args!("a={name}:{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::*;
    use crate::peer::receiving::reference::Reference;
    use crate::{DtlsIdentity, Peer, PeerOptions};

    const OFFERS: [&str; 4] = [
        include_str!("../../tests/data/subscriber-offer-vp8-1.sdp"),
        include_str!("../../tests/data/subscriber-offer-vp8-2.sdp"),
        include_str!("../../tests/data/subscriber-offer-h264-1.sdp"),
        include_str!("../../tests/data/subscriber-offer-h264-2.sdp"),
    ];

    fn options() -> PeerOptions {
        PeerOptions::new(DtlsIdentity::generate().unwrap())
    }

    fn local() -> SocketAddr {
        "127.0.0.1:40001".parse().unwrap()
    }

    fn answer_of(offer: &str) -> String {
        let now = Instant::now();
        let mut peer = Peer::subscriber(now, local(), &options(), false).unwrap();
        peer.accept_offer(now, offer, &[]).unwrap()
    }

    /// What each m-line agrees on, in no order; without what is random.
    fn meaning(answer: &str) -> Vec<(String, BTreeSet<String>)> {
        let random = ["ice-ufrag", "ice-pwd", "fingerprint", "candidate"];
        let exact = ["rtpmap", "rtcp-fb", "fmtp", "extmap", "setup", "rtcp-mux", "recvonly", "mid"];
        let exact = [&exact[..], &["sctp-port", "max-message-size", "ice-options"]].concat();
        let answer = Description::parse(answer).unwrap();
        let mut meaning = Vec::new();
        for media in &answer.media {
            let mut lines = BTreeSet::new();
            answer.rewrite(|of, line| {
                let attribute = line.strip_prefix("a=").filter(|_| of == Some(media))?;
                let name = attribute.split(':').next().unwrap_or_default();
                if exact.contains(&name) {
                    lines.insert(attribute.to_owned());
                } else if random.contains(&name) {
                    lines.insert(name.to_owned());
                }
                None
            });
            meaning.push((format!("{} {}", media.media_word, media.port), lines));
        }
        meaning
    }

    #[test]
    fn the_answer_is_str0ms() {
        for offer in OFFERS {
            let own = meaning(&answer_of(offer));
            let now = Instant::now();
            let mut reference = Reference::new(now, local(), &options());
            let reference = meaning(&reference.accept_offer(now, offer, &[]));
            assert_eq!(own.len(), reference.len());
            for (own, reference) in own.iter().zip(&reference) {
                assert_eq!(own, reference);
            }
        }
    }

    #[test]
    fn formats_and_extensions_of_a_captured_offer() {
        let offer = Description::parse(OFFERS[1]).unwrap();
        let answer = answer(
            &offer,
            &answer_of(OFFERS[0]),
            1,
            CongestionFeedback::Chrome,
            VideoCodecs::default(),
        )
        .unwrap();
        let format =
            |wire, media, codec, clock_rate| Format { wire, media, red: false, codec, clock_rate };
        let of = |wire| answer.agreed.formats.get(wire);
        let opus = format(111, 111, Codec::Opus, 48_000);
        assert_eq!(of(111), Some(opus));
        assert_eq!(of(63), Some(Format { wire: 63, red: true, ..opus }));
        assert_eq!(of(96), Some(format(96, 96, Codec::Vp8, 90_000)));
        assert_eq!(of(109), Some(format(109, 108, Codec::H264, 90_000)), "RTX");
        assert_eq!(of(116), Some(format(116, 116, Codec::H265, 90_000)));
        assert_eq!((of(0), of(101)), (None, None));
        let ids = ExtensionIds {
            mid: None,
            abs_capture_time: Some(2),
            dependency_descriptor: Some(1),
            abs_send_time: Some(3),
            transport_cc: None,
        };
        assert_eq!(answer.agreed.ids, ids);
    }

    #[test]
    fn congestion_feedback_is_what_the_server_offers_and_we_give() {
        let none = CongestionFeedback::None;
        let send_side = OFFERS[1]
            .replace("goog-remb", "transport-cc")
            .replace("http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", TRANSPORT_CC);
        let agreed = |offer: &str, feedback| {
            let offer = Description::parse(offer).unwrap();
            let answer =
                answer(&offer, &answer_of(OFFERS[0]), 1, feedback, VideoCodecs::default()).unwrap();
            let says = |what: &str| answer.text.contains(what);
            let said = (says(ABS_SEND_TIME), says(TRANSPORT_CC), says(" transport-cc\r\n"));
            let ids = answer.agreed.ids;
            (said, ids.abs_send_time, ids.transport_cc)
        };
        let chrome = CongestionFeedback::Chrome;
        assert_eq!(agreed(OFFERS[1], chrome), ((true, false, false), Some(3), None));
        assert_eq!(agreed(&send_side, chrome), ((false, true, true), None, Some(3)));
        assert_eq!(agreed(OFFERS[1], none), ((false, false, false), None, None));
        assert_eq!(agreed(&send_side, none), ((false, false, false), None, None));
    }

    #[test]
    fn only_codecs_that_are_taken_are_answered() {
        let offer = Description::parse(OFFERS[1]).unwrap();
        let answer = |codecs: &[Codec]| {
            let codecs = VideoCodecs::of(codecs.iter().copied());
            let feedback = CongestionFeedback::Chrome;
            answer(&offer, &answer_of(OFFERS[0]), 1, feedback, codecs).unwrap()
        };
        let some = answer(&[Codec::Vp8, Codec::H265]).text;
        assert!(some.contains("VP8/90000") && some.contains("H265/90000"), "{some}");
        assert!(!some.contains("AV1/90000") && !some.contains("H264/90000"), "{some}");
        let none = answer(&[]);
        assert!(none.text.contains("m=video 0 "), "{}", none.text);
        assert!(none.text.contains("opus/48000"), "audio all the same");
    }

    #[test]
    fn what_is_rejected_stays_out_of_the_bundle() {
        let is_at = |answer: &str, line: &str| answer.lines().filter(|l| *l == line).count();
        let offer = OFFERS[1].replace("opus/48000/2", "L16/48000/2");
        let answer = answer_of(&offer);
        assert_eq!(is_at(&answer, "a=group:BUNDLE 0 2"), 1, "{answer}");
        assert_eq!(is_at(&answer, "m=audio 0 UDP/TLS/RTP/SAVPF 111"), 1);
        assert_eq!((is_at(&answer, "a=inactive"), is_at(&answer, "a=recvonly")), (1, 1));
        let gone = OFFERS[1].replacen("a=group:BUNDLE 0 1 2", "a=group:BUNDLE 0 2", 1);
        let gone = gone.replacen("m=audio 9", "m=audio 0", 1);
        let answer = answer_of(&gone);
        assert_eq!(is_at(&answer, "a=group:BUNDLE 0 2"), 1, "{answer}");
        let bundle_only = OFFERS[1].replacen("m=audio 9", "m=audio 0", 1);
        let answer = answer_of(&bundle_only);
        assert_eq!(is_at(&answer, "a=group:BUNDLE 0 1 2"), 1, "{answer}");
    }

    #[test]
    fn a_track_that_is_gone_is_inactive_and_no_data_channel_is_no_harm() {
        let gone =
            OFFERS[1].replacen("a=sendrecv", "a=keep", 1).replace("a=sendrecv", "a=recvonly");
        let answer = answer_of(&gone);
        let lines = |name: &str| answer.lines().filter(|line| *line == name).count();
        assert_eq!((lines("a=inactive"), lines("a=recvonly")), (2, 0), "{answer}");

        let (head, rest) = OFFERS[1].split_once("m=application").unwrap();
        let media = &rest[rest.find("m=audio").unwrap()..];
        let offer = format!("{head}{media}").replace("BUNDLE 0 1 2", "BUNDLE 1 2");
        let answer = answer_of(&offer);
        assert!(!answer.contains("m=application"), "{answer}");
        let (audio, video) = answer.split_once("m=video").unwrap();
        assert!(audio.contains("a=candidate:") && !video.contains("a=candidate:"), "{answer}");
    }

    #[test]
    fn rtx_with_more_parameters_is_rtx() {
        let offer = OFFERS[1].replace("a=fmtp:97 apt=96", "a=fmtp:97 rtx-time=3000; apt=96");
        let offer = Description::parse(&offer).unwrap();
        let answer = answer(
            &offer,
            &answer_of(OFFERS[0]),
            1,
            CongestionFeedback::Chrome,
            VideoCodecs::default(),
        )
        .unwrap();
        assert_eq!(answer.agreed.formats.get(97).map(|format| format.media), Some(96));
        assert!(answer.text.contains("a=fmtp:97 rtx-time=3000; apt=96\r\n"), "{}", answer.text);
    }

    #[test]
    fn later_offers_of_the_same_peer() {
        let now = Instant::now();
        let mut peer = Peer::subscriber(now, local(), &options(), false).unwrap();
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
}
