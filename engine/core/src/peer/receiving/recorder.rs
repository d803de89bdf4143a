//! A recorded stream: its frames, put together and kept until the ledger has judged them.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use stampede_media::{AssembledFrame, AssemblerPacket, FrameAssembler};

use crate::accounting::{FinishedFrame, StreamLedger};
use crate::peer::outbox::Outbox;
use crate::{RecordedFrame, RecordedStream};

/// Most frames of a recording that the assembler has put together and the ledger has not judged
/// yet, or the other way round. At the maximum the oldest is left out of the recording.
pub(super) const WAITING_FRAMES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Recorder {
    stream: Arc<RecordedStream>,
    assembler: FrameAssembler,
    /// Assembled video frames of which the ledger has not said yet whether they can be decoded.
    waiting: VecDeque<AssembledFrame>,
    /// What the ledger said of frames that are not assembled yet.
    judged: VecDeque<FinishedFrame>,
}

impl Recorder {
    pub(super) fn new(stream: RecordedStream, assembler: FrameAssembler) -> Self {
        let (waiting, judged) = (VecDeque::new(), VecDeque::new());
        Self { stream: Arc::new(stream), assembler, waiting, judged }
    }

    pub(super) fn push(&mut self, packet: AssemblerPacket<'_>) {
        self.assembler.push(packet);
    }

    /// A packet without payload has this number.
    pub(super) fn skip(&mut self, sequence: u64) {
        self.assembler.skip(sequence);
    }

    /// What is missing before this number does not come any more. Where nothing is, what came before
    /// the first packet may still be put in front.
    pub(super) fn give_up_before(&mut self, sequence: u64) {
        if self.assembler.waits_before(sequence) {
            self.assembler.abandon_before(sequence);
        }
    }

    /// The same, and what would be put in front does not come any more either.
    pub(super) fn abandon_before(&mut self, sequence: u64) {
        self.assembler.abandon_before(sequence);
    }

    /// Hands out recorded frames that nothing before can change any more.
    pub(super) fn follow(&mut self, ledger: &mut StreamLedger, outbox: &mut Outbox) {
        self.judged.extend(std::iter::from_fn(|| ledger.next_kept()));
        self.release(outbox);
    }

    /// Hands out what is still whole, and says that nothing more comes.
    pub(super) fn end(mut self, ledger: &mut StreamLedger, outbox: &mut Outbox) {
        self.assembler.finish();
        self.follow(ledger, outbox);
        outbox.recording_ended(&self.stream, *self.assembler.counters());
    }

    /// Hands out what a decoder can show. A frame that refers to one that was lost would decode
    /// into a picture nobody published.
    fn release(&mut self, outbox: &mut Outbox) {
        let video = self.stream.codec.is_video();
        while let Some(frame) = self.assembler.poll() {
            if video {
                self.waiting.push_back(frame);
            } else {
                self.hand_out(frame, outbox);
            }
        }
        while let (Some(judged), Some(frame)) = (self.judged.front(), self.waiting.front()) {
            match judged.last_sequence.cmp(&frame.last_sequence) {
                // One of the two could not make sense of the frame.
                Ordering::Less => drop(self.judged.pop_front()),
                Ordering::Greater => drop(self.waiting.pop_front()),
                Ordering::Equal => {
                    let decodable = judged.decodable;
                    self.judged.pop_front();
                    if let Some(frame) = self.waiting.pop_front().filter(|_| decodable) {
                        self.hand_out(frame, outbox);
                    }
                }
            }
        }
        // One at its maximum means that the other has stopped.
        let excess = |len: usize| len.saturating_sub(WAITING_FRAMES_MAX);
        self.waiting.drain(..excess(self.waiting.len()));
        self.judged.drain(..excess(self.judged.len()));
    }

    fn hand_out(&self, frame: AssembledFrame, outbox: &mut Outbox) {
        let frame = RecordedFrame { data: frame.data, timestamp_ticks: frame.timestamp };
        outbox.recorded(&self.stream, frame);
    }
}
