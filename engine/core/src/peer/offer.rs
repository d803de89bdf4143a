//! The offers of a peer that sends, and of one that receives over LiveKit's single connection, where
//! the client always offers and the server answers with what it sends (livekit pkg/rtc/transport.go).
//!
//! As with the answers of the `answer` module, str0m is told nothing of what we receive: it describes
//! the transport and the tracks that we send. The m-lines to receive by are written here among them,
//! and the server's answer to those is not shown to it.

use std::borrow::Cow;

use stampede_media::Codec;
use stampede_sdp::{
    Description, Media, MediaKind, MediaType, ParseError, SLOTS_MAX, Slots, Transport,
};
use str0m::change::{SdpAnswer, SdpApi, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::{Rtc, RtcError};

use super::NegotiateError;
use super::answer::{
    self, ABS_CAPTURE_TIME, ABS_SEND_TIME, AUDIO_LEVEL, MID, NO_ADDRESS, TRANSPORT_CC, put,
    put_session, put_transport,
};
use super::publishing::Publishing;
use crate::{CongestionFeedback, VideoCodecs};

/// The channels that a client of the single connection makes (client-sdk-js
/// src/room/RTCEngine.ts): name, and whether what is sent over it comes in any case and in order.
const CHANNELS: [(&str, bool); 3] =
    [("_reliable", true), ("_lossy", false), ("_data_track", false)];

/// A payload type that is offered, and its `a=fmtp`.
struct Offered {
    number: u8,
    /// Of its retransmissions.
    rtx: Option<u8>,
    /// Of video.
    codec: Option<Codec>,
    rtpmap: &'static str,
    fmtp: Option<&'static str>,
}

/// Opus, and what comes of it redundantly (RFC 2198).
const AUDIO: [Offered; 2] = [
    Offered {
        number: 111,
        rtx: None,
        codec: None,
        rtpmap: "opus/48000/2",
        fmtp: Some("minptime=10;useinbandfec=1"),
    },
    Offered { number: 63, rtx: None, codec: None, rtpmap: "red/48000/2", fmtp: Some("111/111") },
];

const fn video(number: u8, rtx: u8, codec: Codec, fmtp: Option<&'static str>) -> Offered {
    let rtpmap = match codec {
        Codec::Vp9 => "VP9/90000",
        Codec::H264 => "H264/90000",
        Codec::H265 => "H265/90000",
        Codec::Av1 => "AV1/90000",
        Codec::Vp8 | Codec::Opus => "VP8/90000",
    };
    Offered { number, rtx: Some(rtx), codec: Some(codec), rtpmap, fmtp }
}

/// What Chrome offers to receive of codecs that are understood here, with its numbers.
const VIDEO: [Offered; 8] = [
    video(96, 97, Codec::Vp8, None),
    video(
        103,
        104,
        Codec::H264,
        Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
    ),
    video(
        109,
        114,
        Codec::H264,
        Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    ),
    video(
        115,
        116,
        Codec::H264,
        Some("level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f"),
    ),
    video(
        119,
        120,
        Codec::H264,
        Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f"),
    ),
    video(45, 46, Codec::Av1, Some("level-idx=5;profile=0;tier=0")),
    video(98, 99, Codec::Vp9, Some("profile-id=0")),
    video(49, 50, Codec::H265, Some("level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST")),
];

/// Header extensions by id: Chrome's numbers, and the capture time, by which latency is measured.
const AUDIO_EXTENSIONS: [(u8, &str); 3] = [(1, AUDIO_LEVEL), (4, MID), (9, ABS_CAPTURE_TIME)];
const VIDEO_EXTENSIONS: [(u8, &str); 3] =
    [(4, MID), (9, ABS_CAPTURE_TIME), (12, stampede_media::dependency_descriptor::URI)];

/// Those of video that congestion feedback goes by, with Chrome's numbers.
const CONGESTION_EXTENSIONS: [(u8, &str); 2] = [(2, ABS_SEND_TIME), (3, TRANSPORT_CC)];

/// How the line begins that names the mids of a bundle (RFC 9143 §7).
const BUNDLE: &str = "a=group:BUNDLE";

/// An m-line of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// str0m's, by its place in what str0m describes: the data channels, and the tracks that we send.
    Own(usize),
    /// To receive by. It is never taken away: the server uses it again for another track.
    Slot { number: usize, kind: MediaKind },
}

/// What was offered, and what of it waits for its answer.
#[derive(Debug)]
pub(super) struct Offering {
    /// What is told of congestion, of a connection that receives too.
    receives: Option<CongestionFeedback>,
    /// What it takes.
    codecs: VideoCodecs,
    /// The data channels are offered too: of who receives, as clients of the single connection do, and
    /// of who sends data.
    channels: bool,
    /// In their order, in which they stay (RFC 3264 §8).
    lines: Vec<Line>,
    /// Mids of the audio that is sent without redundancy.
    plain_audio: Vec<String>,
    /// str0m's latest description.
    own: String,
    pending: Option<Pending>,
    /// str0m knows nothing of what it offered last: the answer could not be applied.
    forgotten: bool,
    /// Offers made so far.
    version: u64,
    answered: bool,
}

/// An offer that waits for its answer.
#[derive(Debug)]
enum Pending {
    /// With something that str0m has to hear the answer to.
    Own(SdpPendingOffer),
    /// With other m-lines only.
    Slots,
}

impl Offering {
    /// `receives`: what a connection that receives too tells of congestion, and what it takes. `data`:
    /// data is sent over it.
    pub(super) fn new(receives: Option<(CongestionFeedback, VideoCodecs)>, data: bool) -> Self {
        let (receives, codecs) = receives.unzip();
        Self {
            receives,
            codecs: codecs.unwrap_or_default(),
            channels: receives.is_some() || data,
            lines: Vec::new(),
            plain_audio: Vec::new(),
            own: String::new(),
            pending: None,
            forgotten: false,
            version: 0,
            answered: false,
        }
    }

    fn slots(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line, Line::Slot { .. })).count()
    }

    /// An offer with so many m-lines more to receive by, and, once `publish` was true, with the tracks
    /// of `publishing`. Slots past [`SLOTS_MAX`] are left out.
    pub(super) fn offer(
        &mut self,
        rtc: &mut Rtc,
        added: Slots,
        publish: bool,
        publishing: Option<&mut Publishing>,
    ) -> Result<String, NegotiateError> {
        let publishing = publishing.filter(|publishing| match publishing.is_offered() {
            true => self.forgotten && publishing.is_unanswered(),
            false => publish,
        });
        let anew = self.own.is_empty() || self.forgotten;
        if anew || publishing.is_some() {
            self.describe_own(rtc, publishing)?;
        } else if self.pending.is_none() {
            self.pending = Some(Pending::Slots);
        }
        let own = Description::parse(&self.own)
            .map_err(|error| NegotiateError::unreadable("offer", &error))?;
        let mut ahead: Vec<_> = (0..own.media.len()).map(Line::Own).collect();
        ahead.retain(|line| !self.lines.contains(line));
        // The bundle's transport first.
        if self.lines.is_empty() && self.receives.is_some() && !ahead.is_empty() {
            self.lines.push(ahead.remove(0));
        }
        let Slots { audio, video } = added;
        for (kind, count) in [(MediaKind::Audio, audio), (MediaKind::Video, video)] {
            let first = self.slots();
            let room = (SLOTS_MAX as usize).saturating_sub(first).min(count as usize);
            self.lines.extend((first..first + room).map(|number| Line::Slot { number, kind }));
        }
        // The server takes tracks for those that were announced only behind the m-lines that it
        // knows (livekit pkg/rtc/transportmanager.go, `HandleOffer`).
        self.lines.extend(ahead);
        self.write()
    }

    /// An offer with new ICE credentials; everything else stays. While nothing was answered there
    /// is nothing to restart: it is offered once more.
    pub(super) fn restart_ice(
        &mut self,
        rtc: &mut Rtc,
        publishing: Option<&mut Publishing>,
    ) -> Result<String, NegotiateError> {
        if !self.answered {
            return self.offer(rtc, Slots::default(), false, publishing);
        }
        if publishing.is_some_and(|publishing| publishing.is_unanswered()) {
            // They would be offered under other names than the server may have taken.
            return Err(NegotiateError::WrongRole("our tracks wait for the answer to their offer"));
        }
        let mut changes = rtc.sdp_api();
        changes.ice_restart(true);
        self.take_own(changes)?;
        self.write()
    }

    fn describe_own(
        &mut self,
        rtc: &mut Rtc,
        publishing: Option<&mut Publishing>,
    ) -> Result<(), NegotiateError> {
        let mut changes = rtc.sdp_api();
        // What was offered and is forgotten may have been a restart.
        if self.forgotten && self.answered {
            changes.ice_restart(true);
        }
        let channels = self.channels && !self.answered;
        let channels: &[_] = if channels { &CHANNELS } else { &[] };
        for (label, reliable) in channels {
            let reliability = match reliable {
                true => Reliability::Reliable,
                false => Reliability::MaxRetransmits { retransmits: 0 },
            };
            let (label, ordered) = ((*label).to_owned(), *reliable);
            changes.add_channel_with_config(ChannelConfig {
                label,
                ordered,
                reliability,
                ..ChannelConfig::default()
            });
        }
        if let Some(publishing) = publishing {
            publishing.offer(&mut changes);
            self.plain_audio = publishing.plain_audio();
        }
        self.take_own(changes)
    }

    /// These changes are offered, and the answer is for str0m too.
    fn take_own(&mut self, changes: SdpApi<'_>) -> Result<(), NegotiateError> {
        let (offer, pending) = changes.apply().ok_or(NegotiateError::NothingToOffer)?;
        (self.own, self.pending) = (offer.to_sdp_string(), Some(Pending::Own(pending)));
        // It is kept for as long as the connection.
        self.own.shrink_to_fit();
        self.forgotten = false;
        Ok(())
    }

    fn write(&mut self) -> Result<String, NegotiateError> {
        self.version += 1;
        let chrome = self.receives == Some(CongestionFeedback::Chrome);
        let taken = Taken { congestion: chrome, codecs: self.codecs };
        write(&self.lines, &self.own, &self.plain_audio, self.version, taken)
            .map_err(|error| NegotiateError::unreadable("offer", &error))
    }

    /// Takes the answer to the latest offer.
    pub(super) fn accept(
        &mut self,
        rtc: &mut Rtc,
        answer: &Description<'_>,
    ) -> Result<(), NegotiateError> {
        let pending = self.pending.take().ok_or(NegotiateError::NoOffer)?;
        if let Pending::Own(pending) = pending
            && let Err(error) = self.accept_own(rtc, pending, answer)
        {
            self.forgotten = true;
            return Err(error);
        }
        self.answered = true;
        Ok(())
    }

    fn accept_own(
        &self,
        rtc: &mut Rtc,
        pending: SdpPendingOffer,
        answer: &Description<'_>,
    ) -> Result<(), NegotiateError> {
        let own = Description::parse(&self.own)
            .map_err(|error| NegotiateError::unreadable("offer", &error))?;
        let text = match own.media.iter().all(|media| media.media_type == MediaType::Application) {
            true => answer::transport_of(answer),
            false => answer_to(&own, answer),
        };
        let answer = SdpAnswer::from_sdp_string(&text)
            .map_err(|error| NegotiateError::unreadable("answer", &error))?;
        let accepted = rtc.sdp_api().accept_answer(pending, answer);
        let refused =
            |error: RtcError| NegotiateError::Apply { what: "answer", reason: error.to_string() };
        accepted.map_err(refused)
    }
}

/// Of an answer the m-lines that answer these of str0m's, as they are.
fn answer_to(own: &Description<'_>, answer: &Description<'_>) -> String {
    let is_own = |mid: &str| own.media.iter().any(|media| media.mid == mid);
    answer.rewrite(|media, line| match media {
        Some(media) => is_own(media.mid).then_some(line.into()),
        None if line.starts_with(BUNDLE) => {
            let mids = answer.bundled.iter().filter(|mid| is_own(mid)).copied();
            let line: Vec<_> = std::iter::once(BUNDLE).chain(mids).collect();
            Some(line.join(" ").into())
        }
        None => Some(line.into()),
    })
}

/// What is offered of what is received.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// Feedback on congestion.
    congestion: bool,
    codecs: VideoCodecs,
}

/// The offer of these m-lines, of which `own` describes str0m's. `version` is one more with each
/// (RFC 3264 §8).
fn write(
    lines: &[Line],
    own: &str,
    plain_audio: &[String],
    version: u64,
    taken: Taken,
) -> Result<String, ParseError> {
    let own = Description::parse(own)?;
    let first = own.media.first().ok_or(ParseError::NoMedia)?;
    let mut text = String::with_capacity(1_024 + 1_024 * lines.len());
    let mids: Vec<String> = lines
        .iter()
        .filter_map(|line| match *line {
            Line::Own(place) => own.media.get(place).map(|media| media.mid.to_owned()),
            Line::Slot { number, .. } => Some(mid(number)),
        })
        .collect();
    put_session(&mut text, version, &mids.join(" "));
    for (line, mid) in lines.iter().zip(&mids) {
        match *line {
            Line::Own(_) => {
                text += &own.rewrite(|media, line| {
                    let media = media.filter(|media| media.mid == mid)?;
                    let plain = line.starts_with("m=") && plain_audio.contains(mid);
                    Some(if plain { without_redundancy_first(media, line) } else { line.into() })
                })
            }
            Line::Slot { number, kind } => {
                write_slot(&mut text, number, kind, &first.transport, taken);
            }
        }
    }
    Ok(text)
}

/// An m-line's first line with its redundant format (RED) last. livekit-server takes audio that was
/// announced without redundancy for the first format of its m-line all the same, and would wait for a
/// payload type that never comes.
fn without_redundancy_first<'a>(media: &Media<'_>, line: &'a str) -> Cow<'a, str> {
    let red = media.payload_types.iter().find(|format| format.is("red"));
    let Some(red) = red.map(|red| red.number.to_string()) else { return line.into() };
    let words: Vec<_> = line.split(' ').collect();
    let others = words.iter().enumerate().filter(|(at, word)| *at < 3 || **word != red);
    let words: Vec<_> = others.map(|(_, word)| *word).chain([&*red]).collect();
    words.join(" ").into()
}

/// An m-line to receive by.
fn write_slot(
    text: &mut String,
    number: usize,
    kind: MediaKind,
    transport: &Transport<'_>,
    Taken { congestion, codecs }: Taken,
) {
    let (formats, extensions) = match kind {
        MediaKind::Audio => (&AUDIO[..], AUDIO_EXTENSIONS),
        MediaKind::Video => (&VIDEO[..], VIDEO_EXTENSIONS),
    };
    let formats = || formats.iter().filter(|format| format.codec.is_none_or(|it| codecs.has(it)));
    let numbers = formats().flat_map(|format| [Some(format.number), format.rtx]);
    let numbers: String = numbers.flatten().map(|number| format!(" {number}")).collect();
    put(text, format_args!("m={kind} 9 UDP/TLS/RTP/SAVPF{numbers}"));
    text.push_str(NO_ADDRESS);
    put_transport(text, transport);
    put(text, format_args!("a=mid:{}", mid(number)));
    for (id, uri) in extensions {
        put(text, format_args!("a=extmap:{id} {uri}"));
    }
    let congestion_extensions: &[_] = match kind {
        MediaKind::Video if congestion => &CONGESTION_EXTENSIONS,
        _ => &[],
    };
    for (id, uri) in congestion_extensions {
        put(text, format_args!("a=extmap:{id} {uri}"));
    }
    // Never `inactive`: that stops pion's transceiver for good.
    text.push_str("a=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n");
    for format in formats() {
        format.write(text, congestion);
    }
}

/// The mid of a slot; str0m's own have no such beginning and are never asked for.
fn mid(number: usize) -> String {
    format!("slot{number}")
}

impl Offered {
    fn write(&self, text: &mut String, transport_cc: bool) {
        let Self { number, rtx, rtpmap, fmtp, .. } = self;
        put(text, format_args!("a=rtpmap:{number} {rtpmap}"));
        if let Some(rtx) = rtx {
            let transport_cc = transport_cc.then_some(answer::TRANSPORT_CC_FEEDBACK);
            for feedback in answer::FEEDBACK.into_iter().chain(transport_cc) {
                put(text, format_args!("a=rtcp-fb:{number} {feedback}"));
            }
            put(text, format_args!("a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={number}"));
        }
        if let Some(fmtp) = fmtp {
            put(text, format_args!("a=fmtp:{number} {fmtp}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::config::h265_numbers;
    use super::*;
    use crate::{DtlsIdentity, Peer, PeerOptions};

    fn peer() -> Peer {
        let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
        let local: std::net::SocketAddr = "127.0.0.1:40001".parse().unwrap();
        Peer::subscriber(Instant::now(), local, &options, false).unwrap()
    }

    /// In one bundle a number means one thing.
    #[test]
    fn h265_that_is_not_offered_to_receive_by_has_numbers_of_its_own() {
        let of =
            |number: u8| VIDEO.iter().find(|one| one.number == number || one.rtx == Some(number));
        let (main, rtx) = h265_numbers(1, 0);
        let offered = of(main).unwrap();
        assert_eq!((offered.codec, offered.rtx), (Some(Codec::H265), Some(rtx)));
        assert!(offered.fmtp.unwrap().contains("profile-id=1;tier-flag=0"));
        for (profile, tier) in [(2, 0), (1, 1)] {
            let (payload_type, rtx) = h265_numbers(profile, tier);
            assert!(of(payload_type).is_none() && of(rtx).is_none());
        }
    }

    #[test]
    fn slots_are_added_and_never_taken_away() {
        let (mut peer, now) = (peer(), Instant::now());
        let lines = |offer: &str| -> Vec<(String, String)> {
            let offer = Description::parse(offer).unwrap();
            let own = offer.media.iter().skip(1);
            own.map(|media| (media.media_word.to_owned(), media.mid.to_owned())).collect()
        };
        let line = |word: &str, mid: &str| (word.to_owned(), mid.to_owned());
        let offer = peer.create_offer(now, Slots { audio: 1, video: 1 }, false).unwrap();
        assert_eq!(lines(&offer), [line("audio", "slot0"), line("video", "slot1")]);
        // What was offered and never answered is offered again.
        let offer = peer.create_offer(now, Slots { audio: 1, video: 0 }, false).unwrap();
        let all = [line("audio", "slot0"), line("video", "slot1"), line("audio", "slot2")];
        assert_eq!(lines(&offer), all);
        let again = peer.restart_ice(now).unwrap();
        assert_eq!(lines(&again), all);
        let description = Description::parse(&again).unwrap();
        assert_eq!(description.bundled.len(), 4);
        assert_eq!(description.candidates().count(), 1);
        assert!(description.media[1..].iter().all(|media| !media.direction.sends()));
        assert!(again.contains("o=stampede 1 3 IN"), "another version each time: {again}");
    }

    #[test]
    fn a_server_that_asks_for_too_much_gets_what_there_may_be() {
        let (mut peer, now) = (peer(), Instant::now());
        let offer = peer.create_offer(now, Slots { audio: 0, video: u32::MAX }, false).unwrap();
        assert_eq!(Description::parse(&offer).unwrap().media.len(), SLOTS_MAX as usize + 1);
        assert!(offer.len() < stampede_sdp::DESCRIPTION_BYTES_MAX / 3 * 2, "{}", offer.len());
    }
}
