//! Media packets to subscribers are written and encrypted here, straight into the send queue,
//! without going through each subscriber's str0m.
//!
//! str0m keeps ICE, DTLS, SDP, data channels, and RTCP of what the client publishes. It knows of no
//! stream that is sent but while it writes or reads a description, so every SSRC has one writer, of RTP
//! and of RTCP (see [`stampede_core::srtp`]). A subscriber whose keys are of no use here can't get
//! media, and is told to come back.

pub(crate) mod extensions;
pub(crate) mod packet;
pub(crate) mod report;
pub(crate) mod srtp;

use std::time::Instant;

use stampede_impair::{Class, Fate, Impairment};

use super::congestion::send_side::log::SendLog;
use super::endpoint::Endpoint;
use super::socket::{Datagram, MediaSocket};
use extensions::{Stamp, StampId};
use packet::Packet;
use srtp::Srtp;

/// One subscriber's way out: where to, with which keys, and what is done to it on purpose.
pub(crate) struct Egress<'a> {
    pub(crate) socket: &'a mut MediaSocket,
    pub(crate) srtp: &'a Srtp,
    pub(crate) impair: Option<&'a mut Impairment>,
    pub(crate) destination: Endpoint,
    /// The time of the worker's turn.
    pub(crate) now: Instant,
    /// When what goes out now is sent, as abs-send-time has it.
    pub(crate) send_time: [u8; 3],
    /// Where it is noted what is sent, if packets have transport-wide numbers.
    pub(crate) log: Option<&'a mut SendLog>,
}

/// What became of a packet of media.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) fate: Fate,
    /// Whether it was to be sent later than now.
    pub(crate) delayed: bool,
    /// Whether a broken one was sent before it.
    pub(crate) malformed: bool,
    /// Its length as a datagram.
    pub(crate) bytes: usize,
}

impl Egress<'_> {
    /// What the subscriber is told of the datagram of so many bytes that is sent next. Each number is
    /// of one, so that one that is not sent then was lost.
    fn stamp(&mut self, id: StampId, bytes: usize) -> Stamp {
        match id {
            StampId::None => Stamp::None,
            StampId::SentAt(_) => Stamp::SentAt(self.send_time),
            StampId::Number(_) => {
                let number = self.log.as_mut().map(|log| log.add(bytes));
                number.map_or(Stamp::None, Stamp::Number)
            }
        }
    }

    /// Sends a packet with what the subscriber is to be told of it; `None` if it can't be written,
    /// which counts as a send error.
    pub(crate) fn send(&mut self, stamp: StampId, packet: Packet<'_>) -> Option<Outcome> {
        let (srtp, now) = (self.srtp, self.now);
        let bytes = srtp.sealed_bytes(&packet);
        let extensions = packet.extensions.stamped(self.stamp(stamp, bytes));
        let packet = &Packet { extensions, ..packet };
        let datagram = Datagram {
            destination: self.destination,
            class: Class::Rtp,
            len: bytes,
            write: &mut |buffer| srtp.seal(packet, buffer),
        };
        let (fate, malformed) = self.socket.put_media(now, self.impair.as_deref_mut(), datagram)?;
        let delayed = matches!(fate, Fate::Deliver { at, .. } if at > now);
        Some(Outcome { fate, delayed, malformed, bytes })
    }
}
