//! What becomes of a peer's output.

use std::net::SocketAddr;

use stampede_core::{
    AddressRequest, LocalId, PeerEvent, PeerSink, RecordedFrame, RecordedStream, Sample,
};
use stampede_media::AssemblerCounters;
use stampede_udp::{Backend, Streams};

use super::sockets::{Socket, Sockets};
use crate::clock::Clock;
use crate::distributions::Measured;
use crate::mailbox::EventSink;
use crate::recorder::PeerRecorder;
use crate::{EngineEvent, PeerId, PeerNotice};

/// Where a peer's output goes during one drain.
pub(super) struct Sink<'a> {
    pub(super) backend: &'a mut dyn Backend,
    pub(super) streams: Option<&'a mut Streams>,
    pub(super) events: &'a mut EventSink,
    pub(super) measured: &'a mut Measured,
    pub(super) recorder: Option<&'a mut PeerRecorder>,
    pub(super) sockets: &'a Sockets,
    pub(super) address_requests: &'a mut Vec<AddressRequest>,
    pub(super) id: PeerId,
    pub(super) cohort: u16,
    pub(super) clock: Clock,
    pub(super) handshake_over: bool,
}

impl PeerSink for Sink<'_> {
    fn transmit(&mut self, via: LocalId, destination: SocketAddr, payload: &[u8]) {
        match self.sockets.get(via) {
            Some(Socket::Udp(socket)) => self.backend.send(socket, destination, payload),
            Some(Socket::Stream(stream)) => {
                if let Some(streams) = &mut self.streams {
                    streams.send(stream, payload);
                }
            }
            None => {}
        }
    }

    fn transmit_with(
        &mut self,
        via: LocalId,
        destination: SocketAddr,
        bytes: usize,
        write: &mut dyn FnMut(&mut [u8]) -> bool,
    ) {
        if let Some(Socket::Udp(socket)) = self.sockets.get(via) {
            return self.backend.send_with(socket, destination, bytes, write);
        }
        self.transmit_copied(via, destination, bytes, write);
    }

    fn address(&mut self, request: AddressRequest) {
        self.address_requests.push(request);
    }

    fn event(&mut self, event: PeerEvent) {
        let here = self.clock.here();
        self.handshake_over |=
            matches!(event, PeerEvent::Connected | PeerEvent::Disconnected { .. });
        let (at, notice) = match event {
            PeerEvent::IceConnected => (here, PeerNotice::IceConnected),
            PeerEvent::Path { path } => (here, PeerNotice::Path { path }),
            PeerEvent::Connected => (here, PeerNotice::Connected),
            PeerEvent::FirstPacket { kind, at } => (at, PeerNotice::FirstPacket { kind }),
            PeerEvent::FirstKeyframe { at } => (at, PeerNotice::FirstKeyframe),
            PeerEvent::NextFrame { at } => (at, PeerNotice::NextFrame),
            PeerEvent::Speaks { loud, at } => (at, PeerNotice::Speaks { loud }),
            PeerEvent::LocalCandidate { candidate } => {
                (here, PeerNotice::LocalCandidate { candidate })
            }
            PeerEvent::BackupRefused { cid, reason } => {
                (here, PeerNotice::BackupRefused { cid, reason })
            }
            PeerEvent::Disconnected { failure } => (here, PeerNotice::Disconnected { failure }),
        };
        self.events.push(EngineEvent::Peer { peer: self.id, at_unix_ns: at.unix_ns, notice });
    }

    fn recorded(&mut self, stream: &RecordedStream, frame: RecordedFrame) {
        if let Some(recorder) = &mut self.recorder {
            recorder.frame(stream, frame);
        }
    }

    fn recording_ended(&mut self, stream: &RecordedStream, counted: &AssemblerCounters) {
        if let Some(recorder) = &mut self.recorder {
            recorder.end(stream.id, counted);
        }
    }

    fn sample(&mut self, sample: Sample) {
        self.measured.record(self.cohort, sample);
    }
}
