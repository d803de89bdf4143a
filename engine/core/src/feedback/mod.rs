//! Congestion feedback: what a receiving peer tells the server of the way to it, as Chrome does.
//!
//! Which of two ways is the server's choice, in its description: the receiver's own estimate
//! (`estimator`, sent as `remb`), or the arrival time of every packet (`twcc`), from which the server
//! makes its own. All of it is pure: times come in as arguments, and are those at which the kernel
//! received a packet, so that a starved machine does not look like a slow network.

mod estimator;
mod remb;
mod twcc;

use std::time::{Duration, Instant};

use estimator::Estimator;
use remb::Throttle;
pub(crate) use remb::write_remb;
use twcc::TransportCc;

/// An SSRC of which nothing came for this long is not in a REMB any more (libwebrtc
/// `kStreamTimeOut`).
pub(crate) const STREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// What is told to the server of what was received over one peer connection.
#[derive(Debug, Default)]
pub(crate) struct Feedback {
    /// Since a packet said when it was sent.
    estimator: Option<Box<Estimator>>,
    /// When the next estimate may be sent.
    throttle: Throttle,
    /// An estimate to be sent, in bits a second.
    due_bps: Option<u64>,
    /// The last one that was sent.
    sent_bps: Option<u64>,
    /// Since a packet had a transport-wide sequence number.
    transport_cc: Option<Box<TransportCc>>,
}

impl Feedback {
    /// Takes a video packet that arrived now: `sent` is the value of its abs-send-time, `bytes` its
    /// payload, padding included. True if an estimate is to be sent.
    #[inline]
    pub(crate) fn sent_at(&mut self, now: Instant, sent: &[u8], bytes: usize) -> bool {
        let &[first, second, third] = sent else { return false };
        let sent = u32::from_be_bytes([0, first, second, third]);
        let estimator = self.estimator.get_or_insert_with(|| Box::new(Estimator::new(now)));
        // A datagram is no longer than 64 kB.
        let Some(bitrate_bps) = estimator.packet(now, sent, bytes as u32) else { return false };
        if !self.throttle.passes(now, bitrate_bps) {
            return false;
        }
        self.due_bps = Some(bitrate_bps as u64);
        true
    }

    /// Takes a packet that arrived now with this value of the transport-wide sequence number; returns
    /// when a report is due. `video` is its SSRC if it is one of video.
    pub(crate) fn sequenced(
        &mut self,
        now: Instant,
        sequence: &[u8],
        video: Option<u32>,
    ) -> Option<Instant> {
        let sequence = u16::from_be_bytes(*sequence.first_chunk()?);
        let transport_cc = self.transport_cc.get_or_insert_with(|| Box::new(TransportCc::new(now)));
        Some(transport_cc.packet(now, sequence, video))
    }

    /// There is an estimate to be sent.
    pub(crate) fn has_estimate(&self) -> bool {
        self.due_bps.is_some()
    }

    /// The estimate that is to be sent now, in bits a second, once.
    pub(crate) fn take_estimate(&mut self) -> Option<u64> {
        self.sent_bps = Some(self.due_bps.take()?);
        self.sent_bps
    }

    /// The last estimate that was sent: libwebrtc repeats it in every RTCP packet.
    pub(crate) fn last_estimate(&self) -> Option<u64> {
        self.sent_bps
    }

    /// Hands the reports of arrivals that are due to `send`, with the SSRC that they are about;
    /// returns when to ask again.
    pub(crate) fn poll_arrivals(
        &mut self,
        now: Instant,
        sender: u32,
        send: &mut dyn FnMut(u32, &[u8]),
    ) -> Option<Instant> {
        self.transport_cc.as_mut()?.poll(now, sender, send)
    }
}
