//! The offers of a peer that receives over LiveKit's single connection, where the client always
//! offers and the server answers with what it sends (livekit pkg/rtc/transport.go).
//!
//! As with the answers of the `answer` module, str0m is told of the transport alone: one data
//! channel m-line. The m-lines to receive by are written here, and the server's answer is read here.

use stampede_sdp::{Description, MediaKind, ParseError, SLOTS_MAX, Slots};
use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpApi, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};

use super::NegotiateError;
use super::answer::{
    self, ABS_CAPTURE_TIME, AUDIO_LEVEL, MID, NO_ADDRESS, put, put_attribute, put_session,
    put_transport,
};
use super::negotiation::unreadable;
use super::receiving::Agreed;

/// The channels that a client of the single connection makes (client-sdk-js
/// src/room/RTCEngine.ts): name, and whether what is sent over it comes in any case and in order.
const CHANNELS: [(&str, bool); 3] =
    [("_reliable", true), ("_lossy", false), ("_data_track", false)];

/// A payload type that is offered, and its `a=fmtp`.
struct Offered {
    number: u8,
    /// Of its retransmissions.
    rtx: Option<u8>,
    rtpmap: &'static str,
    fmtp: Option<&'static str>,
}

const AUDIO: [Offered; 1] = [Offered {
    number: 111,
    rtx: None,
    rtpmap: "opus/48000/2",
    fmtp: Some("minptime=10;useinbandfec=1"),
}];

const fn video(number: u8, rtx: u8, rtpmap: &'static str, fmtp: Option<&'static str>) -> Offered {
    Offered { number, rtx: Some(rtx), rtpmap, fmtp }
}

/// What Chrome offers to receive of codecs that are understood here, with its numbers.
const VIDEO: [Offered; 7] = [
    video(96, 97, "VP8/90000", None),
    video(
        103,
        104,
        "H264/90000",
        Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
    ),
    video(
        109,
        114,
        "H264/90000",
        Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    ),
    video(
        115,
        116,
        "H264/90000",
        Some("level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f"),
    ),
    video(
        119,
        120,
        "H264/90000",
        Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f"),
    ),
    video(45, 46, "AV1/90000", Some("level-idx=5;profile=0;tier=0")),
    video(98, 99, "VP9/90000", Some("profile-id=0")),
];

/// Header extensions by id: Chrome's numbers, and the capture time, by which latency is measured.
const AUDIO_EXTENSIONS: [(u8, &str); 3] = [(1, AUDIO_LEVEL), (4, MID), (9, ABS_CAPTURE_TIME)];
const VIDEO_EXTENSIONS: [(u8, &str); 3] =
    [(4, MID), (9, ABS_CAPTURE_TIME), (12, stampede_media::dependency_descriptor::URI)];

/// What was offered, and what of it waits for its answer.
#[derive(Debug, Default)]
pub(super) struct Offering {
    /// Kinds of the m-lines to receive by, in their order. None is ever taken away: the server uses
    /// it again for another track.
    slots: Vec<MediaKind>,
    /// str0m's latest description of the transport.
    transport: String,
    pending: Option<Pending>,
    /// Offers made so far.
    version: u64,
    answered: bool,
}

/// An offer that waits for its answer.
#[derive(Debug)]
enum Pending {
    /// With a transport that str0m has to hear the answer for.
    Transport(SdpPendingOffer),
    /// With other m-lines only.
    Slots,
}

impl Offering {
    /// An offer with so many m-lines more. Slots past [`SLOTS_MAX`] are left out.
    pub(super) fn offer(&mut self, rtc: &mut Rtc, added: Slots) -> Result<String, NegotiateError> {
        if self.transport.is_empty() {
            self.describe_transport(rtc)?;
        } else if self.pending.is_none() {
            self.pending = Some(Pending::Slots);
        }
        let Slots { audio, video } = added;
        for (kind, count) in [(MediaKind::Audio, audio), (MediaKind::Video, video)] {
            let room = (SLOTS_MAX as usize).saturating_sub(self.slots.len());
            self.slots.extend(std::iter::repeat_n(kind, room.min(count as usize)));
        }
        self.write()
    }

    /// An offer with new ICE credentials; everything else stays. While nothing was answered there
    /// is nothing to restart: it is offered once more.
    pub(super) fn restart_ice(&mut self, rtc: &mut Rtc) -> Result<String, NegotiateError> {
        if !self.answered {
            return self.offer(rtc, Slots::default());
        }
        let mut changes = rtc.sdp_api();
        changes.ice_restart(true);
        self.take_transport(changes)?;
        self.write()
    }

    fn describe_transport(&mut self, rtc: &mut Rtc) -> Result<(), NegotiateError> {
        let mut changes = rtc.sdp_api();
        for (label, reliable) in CHANNELS {
            let reliability = match reliable {
                true => Reliability::Reliable,
                false => Reliability::MaxRetransmits { retransmits: 0 },
            };
            let (label, ordered) = (label.to_owned(), reliable);
            changes.add_channel_with_config(ChannelConfig {
                label,
                ordered,
                reliability,
                ..ChannelConfig::default()
            });
        }
        self.take_transport(changes)
    }

    /// These changes are offered, and the answer is for str0m too.
    fn take_transport(&mut self, changes: SdpApi<'_>) -> Result<(), NegotiateError> {
        let (offer, pending) = changes.apply().ok_or(NegotiateError::NothingToOffer)?;
        (self.transport, self.pending) = (offer.to_sdp_string(), Some(Pending::Transport(pending)));
        Ok(())
    }

    fn write(&mut self) -> Result<String, NegotiateError> {
        self.version += 1;
        write(&self.slots, &self.transport, self.version)
            .map_err(|error| unreadable("offer", &error))
    }

    /// Takes the answer to the latest offer, and gives out what is agreed on.
    pub(super) fn accept(
        &mut self,
        rtc: &mut Rtc,
        answer: &Description<'_>,
    ) -> Result<Agreed, NegotiateError> {
        let pending = self.pending.take().ok_or(NegotiateError::NoOffer)?;
        if let Pending::Transport(pending) = pending
            && let Err(error) = accept_transport(rtc, pending, answer)
        {
            // str0m has forgotten what it offered: the next offer begins anew.
            if !self.answered {
                self.transport.clear();
            }
            return Err(error);
        }
        self.answered = true;
        Ok(answer::agreed_by(answer))
    }
}

fn accept_transport(
    rtc: &mut Rtc,
    pending: SdpPendingOffer,
    answer: &Description<'_>,
) -> Result<(), NegotiateError> {
    let text = answer::transport_of(answer);
    let transport =
        SdpAnswer::from_sdp_string(&text).map_err(|error| unreadable("answer", &error))?;
    let accepted = rtc.sdp_api().accept_answer(pending, transport);
    accepted.map_err(|error| NegotiateError::Apply { what: "answer", reason: error.to_string() })
}

/// The offer of these m-lines over str0m's transport. `version` is one more with each
/// (RFC 3264 §8).
fn write(slots: &[MediaKind], transport: &str, version: u64) -> Result<String, ParseError> {
    let transport = Description::parse(transport)?;
    let own = transport.media.first().ok_or(ParseError::NoMedia)?;
    let mut text = String::with_capacity(1_024 + 1_024 * slots.len());
    let mids: String = (0..slots.len()).map(|number| format!(" {}", mid(number))).collect();
    put_session(&mut text, version, &format!("{}{mids}", own.mid));
    text.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    text.push_str(NO_ADDRESS);
    put_transport(&mut text, &own.transport);
    // The bundle's first m-line carries its candidates (RFC 9143 §7.2).
    for candidate in &own.candidates {
        put(&mut text, format_args!("a=candidate:{}", candidate.value));
    }
    put(&mut text, format_args!("a=mid:{}", own.mid));
    put_attribute(&mut text, "sctp-port", own.sctp_port);
    put_attribute(&mut text, "max-message-size", own.max_message_size);
    for (number, kind) in slots.iter().enumerate() {
        let (formats, extensions) = match kind {
            MediaKind::Audio => (&AUDIO[..], AUDIO_EXTENSIONS),
            MediaKind::Video => (&VIDEO[..], VIDEO_EXTENSIONS),
        };
        let numbers = formats.iter().flat_map(|format| [Some(format.number), format.rtx]);
        let numbers: String = numbers.flatten().map(|number| format!(" {number}")).collect();
        put(&mut text, format_args!("m={kind} 9 UDP/TLS/RTP/SAVPF{numbers}"));
        text.push_str(NO_ADDRESS);
        put_transport(&mut text, &own.transport);
        put(&mut text, format_args!("a=mid:{}", mid(number)));
        for (id, uri) in extensions {
            put(&mut text, format_args!("a=extmap:{id} {uri}"));
        }
        // Never `inactive`: that stops pion's transceiver for good.
        text.push_str("a=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n");
        for format in formats {
            format.write(&mut text);
        }
    }
    Ok(text)
}

/// The mid of a slot; str0m's own have no such beginning and are never asked for.
fn mid(number: usize) -> String {
    format!("slot{number}")
}

impl Offered {
    fn write(&self, text: &mut String) {
        let Self { number, rtx, rtpmap, fmtp } = self;
        put(text, format_args!("a=rtpmap:{number} {rtpmap}"));
        if let Some(rtx) = rtx {
            for feedback in answer::FEEDBACK {
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

    use super::*;
    use crate::{DtlsIdentity, Peer, PeerOptions};

    fn peer() -> Peer {
        let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
        let local: std::net::SocketAddr = "127.0.0.1:40001".parse().unwrap();
        Peer::subscriber(Instant::now(), local, &options, false).unwrap()
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
        let offer = peer.create_offer(now, Slots { audio: 1, video: 1 }).unwrap();
        assert_eq!(lines(&offer), [line("audio", "slot0"), line("video", "slot1")]);
        // What was offered and never answered is offered again.
        let offer = peer.create_offer(now, Slots { audio: 1, video: 0 }).unwrap();
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
        let offer = peer.create_offer(now, Slots { audio: 0, video: u32::MAX }).unwrap();
        assert_eq!(Description::parse(&offer).unwrap().media.len(), SLOTS_MAX as usize + 1);
        assert!(offer.len() < stampede_sdp::DESCRIPTION_BYTES_MAX / 3 * 2, "{}", offer.len());
    }
}
