//! Media packets to subscribers are written and encrypted here, straight into the send queue,
//! without going through each subscriber's str0m.
//!
//! str0m keeps ICE, DTLS, SDP, data channels and RTCP. It is given no media to send, so every SSRC
//! and RTP index has one writer; SRTCP has one, too (see [`stampede_core::srtp`]). A subscriber
//! whose keys are of no use here can't get media, and is told to come back.

pub(crate) mod packet;
pub(crate) mod report;
pub(crate) mod resend;

use std::net::SocketAddr;
use std::time::Instant;

use packet::{ExtensionBlock, Packet};
use report::StreamReport;
use stampede_core::srtp::{KeyError, Keying, RtpSealer, SrtcpEditor};
use stampede_impair::Class;
use str0m::rtp::rtcp::Nack;

use super::peer::{Format, Peer, RETRANSMIT_CACHE_AGE, Stage, Subscription};
use super::rewrite::Rewritten;
use super::track::{MediaPacket, Track};
use super::worker::{Datagram, Outgoing, Worker};

/// Numbers of lost packets that one NACK of RFC 4585 §6.2.1 names at most: a number and 16 bits.
const NACK_BITS: u16 = 16;

/// The sending keys of one subscriber.
pub(crate) struct Srtp {
    rtp: RtpSealer,
    rtcp: SrtcpEditor,
}

impl Srtp {
    pub(crate) fn new(keying: &Keying) -> Result<Self, KeyError> {
        Ok(Self { rtp: keying.rtp_sealer()?, rtcp: keying.srtcp_editor()? })
    }
}

/// Sends one packet of a burst to a subscription whose numbers for it are `out`.
pub(super) fn send(
    to: &mut Outgoing,
    peer: &mut Peer,
    index: usize,
    format: Format,
    packet: &MediaPacket,
    out: &Rewritten,
) {
    let Some(destination) = peer.addresses.destination() else { return };
    let Peer { srtp: Some(srtp), impair, subscriptions, .. } = peer else { return };
    let Some(subscription) = subscriptions.get_mut(index) else { return };
    subscription.sent.add(packet.payload.len());
    let extensions = ExtensionBlock::new(&packet.extensions, &format.extensions);
    let outgoing = Packet {
        payload_type: *format.payload_type,
        marker: packet.marker,
        index: out.seq,
        timestamp: out.timestamp,
        ssrc: *subscription.ssrc,
        extensions: &extensions,
        original: None,
        payload: &packet.payload,
        vp8: out.vp8,
    };
    sealed(srtp, destination, &outgoing, |datagram| {
        to.put_media(impair.as_deref_mut(), subscription, false, datagram);
    });
}

/// Gives `send` a packet that is written and encrypted where it will be sent from.
fn sealed(
    srtp: &Srtp,
    destination: SocketAddr,
    packet: &Packet<'_>,
    send: impl FnOnce(Datagram<'_>),
) {
    let header_bytes = packet.header_bytes();
    send(Datagram {
        destination,
        class: Class::Rtp,
        len: packet.bytes() + srtp.rtp.tag_bytes(),
        // Written again it is the same, byte for byte.
        write: &mut |buffer| {
            packet.write(buffer);
            srtp.rtp.seal(buffer, header_bytes, packet.ssrc, packet.index).is_some()
        },
    });
}

/// Makes the sender reports of an SRTCP packet of str0m's say what this path sent. `at` is the time
/// that str0m was given when it made them. `None`, which never happens, if it is not sealed with
/// these keys.
pub(super) fn report(
    srtp: &Srtp,
    subscriptions: &slab::Slab<Subscription>,
    datagram: Vec<u8>,
    at: Instant,
) -> Option<Vec<u8>> {
    let stream = |ssrc: u32| {
        let subscription =
            subscriptions.iter().map(|(_, subscription)| subscription).find(|subscription| {
                subscription.stage == Stage::Active && *subscription.ssrc == ssrc
            })?;
        let (timestamp, arrived_at) = subscription.rewriter.last_passed()?;
        let rtp_time = report::rtp_time(timestamp, arrived_at, at, subscription.clock_rate);
        Some(StreamReport { sent: subscription.sent, rtp_time })
    };
    srtp.rtcp.edit(datagram, |compound| report::fill_in(compound, stream))
}

impl Worker {
    /// A subscriber misses packets: sends again, by RTX, what is still kept of them.
    pub(super) fn answer_nack(&mut self, index: usize, nack: &Nack) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let known = peer
            .subscriptions
            .iter_mut()
            .find(|(_, s)| s.stage == Stage::Active && s.ssrc == nack.ssrc && !s.removed);
        let Some((subscription, found)) = known else { return };
        found.ledger.nacks_received += 1;
        let Some(track) = self.tracks.get(found.track) else { return };
        for entry in nack.reports.iter() {
            resend(&mut self.out, peer, subscription, track, entry.pid);
            for bit in (0..NACK_BITS).filter(|bit| entry.blp >> bit & 1 == 1) {
                let seq = entry.pid.wrapping_add(bit + 1);
                resend(&mut self.out, peer, subscription, track, seq);
            }
        }
    }
}

/// Sends the packet that a subscription got under `seq` again, with RTX (RFC 4588).
fn resend(to: &mut Outgoing, peer: &mut Peer, index: usize, track: &Track, seq: u16) {
    let Some(destination) = peer.addresses.destination() else { return };
    let Peer { srtp: Some(srtp), impair, subscriptions, .. } = peer else { return };
    let Some(subscription) = subscriptions.get_mut(index) else { return };
    let (Some(format), Some(ssrc)) = (subscription.format(track), subscription.rtx_ssrc) else {
        return;
    };
    let Some(payload_type) = format.rtx_payload_type else { return };
    let Some((mapping, source_seq)) = subscription.rewriter.trace(seq) else { return };
    let kept = track.resend.get(mapping.source, source_seq, to.now, RETRANSMIT_CACHE_AGE);
    let Some(packet) = kept else { return };
    let Some(out) = mapping.apply(&packet.numbers) else { return };
    let extensions = ExtensionBlock::new(&packet.extensions, &format.extensions);
    let outgoing = Packet {
        payload_type: *payload_type,
        marker: packet.marker,
        index: subscription.rtx_index,
        timestamp: out.timestamp,
        ssrc,
        extensions: &extensions,
        original: Some(out.seq as u16),
        payload: &packet.payload,
        vp8: out.vp8,
    };
    subscription.rtx_index += 1;
    sealed(srtp, destination, &outgoing, |datagram| {
        to.put_media(impair.as_deref_mut(), subscription, true, datagram);
    });
}
