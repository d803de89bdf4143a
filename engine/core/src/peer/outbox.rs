//! What waits between an input and the next drain.

use std::net::SocketAddr;
use std::sync::Arc;

use stampede_media::AssemblerCounters;
use str0m::net::DatagramSend;

use crate::{PeerEvent, PeerSink, RecordedFrame, RecordedStream, Sample};

/// Most datagrams waiting for a drain. Further ones are dropped and counted; a worker that drains
/// after each batch never gets there.
pub const OUTBOX_DATAGRAMS_MAX: usize = 8_192;

/// Datagrams, events and frames on their way out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    datagrams: Vec<(SocketAddr, DatagramSend)>,
    events: Vec<PeerEvent>,
    /// `Err` where a recording ended.
    frames: Vec<(Arc<RecordedStream>, Result<RecordedFrame, AssemblerCounters>)>,
    samples: Vec<Sample>,
    /// Datagrams handed out.
    pub(super) sent: u64,
    /// Datagrams that found no room.
    pub(super) dropped: u64,
}

impl Outbox {
    pub(super) fn datagram(&mut self, destination: SocketAddr, contents: DatagramSend) {
        if self.datagrams.len() >= OUTBOX_DATAGRAMS_MAX {
            self.dropped += 1;
            return;
        }
        self.datagrams.push((destination, contents));
    }

    pub(super) fn event(&mut self, event: PeerEvent) {
        self.events.push(event);
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

    pub(super) fn flush(&mut self, sink: &mut dyn PeerSink) {
        self.sent += self.datagrams.len() as u64;
        for (destination, contents) in self.datagrams.drain(..) {
            sink.transmit(destination, &contents);
        }
        for event in self.events.drain(..) {
            sink.event(event);
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
