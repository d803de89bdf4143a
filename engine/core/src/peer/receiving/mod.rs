//! The receiving half of a peer.
//!
//! From the top: [`Receiving`] ties it to the connection; `srtp` opens packets and writes RTCP;
//! `streams` finds a packet's `stream`, with its ledger, NACKs, keyframe requests and `recorder`.

#[cfg(test)]
mod differential_tests;
mod due;
mod extension;
mod formats;
#[cfg(test)]
mod maxima_tests;
mod nack;
mod recorder;
#[cfg(test)]
mod red_tests;
#[cfg(test)]
pub(super) mod reference;
mod reports;
mod routes;
mod srtp;
mod ssrcs;
mod stream;
mod streams;
mod tracks;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stampede_sdp::Description;

pub(super) use extension::ExtensionIds;
pub(super) use formats::{Format, Formats};
use srtp::{PacketContext, SrtpReceiver};
pub(super) use srtp::{is_rtcp, is_srtp};
use streams::Streams;
pub use tracks::TRACK_STATES_MAX;

use super::GAP_GRACE;
use super::candidates::LocalId;
use super::outbox::Outbox;
use super::wire::RtpHeader;
use crate::srtp::KeySlot;
use crate::{Arrival, CongestionFeedback, PeerOptions, Receives, TransportCounters, VideoCodecs};

/// Memory that the peers of a thread share, for as long as one handles a datagram. One a worker
/// stays in its near caches, where one a peer would not.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Grows to the longest payload; a datagram bounds it.
    opened: Vec<u8>,
}

/// What the latest answer agreed on.
#[derive(Debug, Default)]
pub(super) struct Agreed {
    pub(super) formats: Formats,
    pub(super) ids: ExtensionIds,
    /// RTCP may be sent without a report in front (RFC 5506).
    pub(super) reduced_size: bool,
}

/// What a connection needs to receive.
pub(super) struct Receiving {
    pub(super) streams: Streams,
    agreed: Agreed,
    /// What is told of congestion.
    pub(super) feedback: CongestionFeedback,
    /// What it takes.
    pub(super) codecs: VideoCodecs,
    /// Where DTLS leaves the keys.
    pub(super) keys: KeySlot,
    /// Since there are keys.
    srtp: Option<SrtpReceiver>,
}

impl std::fmt::Debug for Receiving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiving").field("streams", &self.streams).finish_non_exhaustive()
    }
}

impl Receiving {
    pub(super) fn new(options: &PeerOptions, receives: Receives, keys: KeySlot) -> Self {
        let streams = Streams::new(options.playout_deadline, receives.record);
        let feedback = options.feedback;
        let codecs = receives.codecs;
        Self { streams, agreed: Agreed::default(), feedback, codecs, keys, srtp: None }
    }

    /// An offer was answered.
    pub(super) fn negotiated(
        &mut self,
        now: Instant,
        offer: &Description<'_>,
        mid_to_track_id: &[(String, String)],
        agreed: Agreed,
        outbox: &mut Outbox,
    ) {
        self.agreed = agreed;
        self.streams.apply_offer(now, offer, mid_to_track_id, outbox);
        if let Some(srtp) = &mut self.srtp {
            srtp.negotiated(&self.streams, self.agreed.reduced_size);
        }
    }

    /// DTLS is up: begins with the keys that it left. `ssrc` is ours in RTCP.
    ///
    /// # Errors
    /// There are no keys that can be used, in words.
    pub(super) fn start(&mut self, ssrc: u32, now: Instant) -> Result<(), String> {
        if self.srtp.is_some() {
            return Ok(());
        }
        let keying = self.keys.get().ok_or("DTLS handed out no SRTP keys")?;
        let mut srtp = SrtpReceiver::new(keying, ssrc, self.feedback, now)
            .map_err(|error| error.to_string())?;
        srtp.negotiated(&self.streams, self.agreed.reduced_size);
        self.srtp = Some(srtp);
        Ok(())
    }

    /// Takes an SRTP or SRTCP datagram (RFC 7983: first byte 128 to 191).
    pub(super) fn receive(
        &mut self,
        at: Arrival,
        source: SocketAddr,
        datagram: &[u8],
        transport: &mut TransportCounters,
        outbox: &mut Outbox,
        scratch: &mut Scratch,
    ) {
        let Some(srtp) = &mut self.srtp else {
            transport.before_connected += u64::from(RtpHeader::parse(datagram).is_some());
            return;
        };
        let (agreed, streams) = (&self.agreed, &mut self.streams);
        let opened = &mut scratch.opened;
        let mut context = PacketContext { agreed, streams, transport, outbox, opened };
        srtp.receive(at, source, datagram, &mut context);
    }

    /// Gives up gaps that are due and sends the feedback that is; returns when to call again.
    pub(super) fn drain(&mut self, now: Instant, outbox: &mut Outbox) -> Option<Instant> {
        let (streams, srtp) = (&mut self.streams, self.srtp.as_mut()?);
        if let Some(given_up) = now.checked_sub(GAP_GRACE) {
            streams.expire_gaps(given_up, outbox);
        }
        let (ssrcs, next_request) = streams.keyframe_requests(now);
        if !ssrcs.is_empty() {
            srtp.request_keyframes(&ssrcs, outbox);
        }
        let feedback = srtp.poll(now, streams, outbox);
        debug_assert!(streams.is_all_scheduled(), "what a stream has to do was forgotten");
        let expiry = streams.next_deadline().map(expiry);
        expiry.into_iter().chain(next_request).chain([feedback]).min()
    }

    /// The socket on which authentic packets come, once they do.
    pub(super) fn via(&self) -> Option<LocalId> {
        self.srtp.as_ref().and_then(SrtpReceiver::via)
    }

    /// What follows comes on another socket.
    pub(super) fn switched(&mut self) {
        if let Some(srtp) = &mut self.srtp {
            srtp.switched();
        }
    }
}

/// When a gap with this deadline expires: `expire_gaps` gives up what was due before its time, so one
/// tick after.
fn expiry(deadline: Instant) -> Instant {
    deadline + GAP_GRACE + Duration::from_micros(1)
}
