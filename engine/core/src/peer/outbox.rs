//! What waits between an input and the next drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use stampede_media::AssemblerCounters;
use str0m::net::DatagramSend;

use super::candidates::{AddressRequest, LocalId};
use crate::{PeerEvent, PeerSink, RecordedFrame, RecordedStream, Sample};

/// Most datagrams waiting for a drain. Further ones are dropped and counted; a worker that drains
/// after each batch never gets there.
pub const OUTBOX_DATAGRAMS_MAX: usize = 8_192;

/// What happens seldom, in its order.
#[derive(Debug)]
enum Notice {
    Event(PeerEvent),
    Address(AddressRequest),
}

/// Datagrams, events and frames on their way out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    datagrams: Vec<(LocalId, SocketAddr, DatagramSend)>,
    events: Vec<Notice>,
    /// `Err` where a recording ended.
    frames: Vec<(Arc<RecordedStream>, Result<RecordedFrame, AssemblerCounters>)>,
    samples: Vec<Sample>,
    /// Where what is being handled came in.
    pub(super) via: LocalId,
    /// Datagrams handed out.
    pub(super) sent: u64,
    /// Datagrams that found no room.
    pub(super) dropped: u64,
    /// Datagrams that were not to leave, on purpose.
    pub(super) withheld: u64,
    /// Until then nothing leaves.
    pub(super) cut_off_until: Option<Instant>,
}

impl Outbox {
    pub(super) fn datagram(
        &mut self,
        via: LocalId,
        destination: SocketAddr,
        contents: DatagramSend,
    ) {
        if self.datagrams.len() >= OUTBOX_DATAGRAMS_MAX {
            self.dropped += 1;
            return;
        }
        self.datagrams.push((via, destination, contents));
    }

    pub(super) fn event(&mut self, event: PeerEvent) {
        self.events.push(Notice::Event(event));
    }

    pub(super) fn request_address(&mut self, request: AddressRequest) {
        self.events.push(Notice::Address(request));
    }

    pub(super) fn sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(super) fn recorded(&mut self, stream: &Arc<RecordedStream>, frame: RecordedFrame) {
        self.frames.push((Arc::clone(stream), Ok(frame)));
    }

    pub(super) fn recording_ended(
        &mut self,
        stream: &Arc<RecordedStream>,
        counted: AssemblerCounters,
    ) {
        self.frames.push((Arc::clone(stream), Err(counted)));
    }

    pub(super) fn is_cut_off(&self, now: Instant) -> bool {
        self.cut_off_until.is_some_and(|until| now < until)
    }

    pub(super) fn flush(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        if self.is_cut_off(now) {
            self.withheld += self.datagrams.len() as u64;
            self.datagrams.clear();
        }
        self.sent += self.datagrams.len() as u64;
        for (via, destination, contents) in self.datagrams.drain(..) {
            sink.transmit(via, destination, &contents);
        }
        for notice in self.events.drain(..) {
            match notice {
                Notice::Event(event) => sink.event(event),
                Notice::Address(request) => sink.address(request),
            }
        }
        for sample in self.samples.drain(..) {
            sink.sample(sample);
        }
        for (stream, frame) in self.frames.drain(..) {
            match frame {
                Ok(frame) => sink.recorded(&stream, frame),
                Err(counted) => sink.recording_ended(&stream, &counted),
            }
        }
    }
}

#[cfg(test)]
mod tests;
