//! A peer's calls: those that it makes, and its answers to those of others.

mod calls;
#[cfg(test)]
mod maxima_tests;
mod streams;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use stampede_counters::RpcCounters;
use str0m::Rtc;
use str0m::channel::{ChannelData, ChannelId};

use super::event::Callee;
use super::outbox::Outbox;
use crate::data::{
    DataKind, RPC_BYTES_MAX, RPC_V1_BYTES_MAX, RpcErrorCode, RpcRead, RpcReceived, RpcRole, Stream,
    put_ack, put_error, put_response, put_stream,
};
use crate::{Arrival, Sample};
use calls::{Calls, Outcome};
use streams::{Brought, Streams};

/// Messages that wait for room in the channel at most; then no call is made, and an answer is
/// dropped and counted.
pub(super) const OUTGOING_MAX: usize = 1_024;
/// Most bytes of them, but for what the last call has beside its payload.
pub(super) const OUTGOING_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a call's id, a stream's and a method's name. Those of LiveKit's SDKs have less than
/// a hundred.
const ID_BYTES_MAX: usize = 256;
/// Within this after its connection is up a channel opens and a server tells who else is there, which
/// it may gather for a second; calls are due from then on, channel or not.
const OPENS_WITHIN: Duration = Duration::from_secs(2);
/// When a channel that was full is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// Most calls that a peer makes up for at a time; what is further behind is not made, and counted.
const BURST_MAX: u32 = 64;

fn is_long<const N: usize>(ids: [&str; N]) -> bool {
    ids.iter().any(|id| id.len() > ID_BYTES_MAX)
}

/// How an answer goes out: as the request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Packet,
    Stream,
}

/// When a message came: by our clock, by the kernel's stamp, and that in milliseconds since the Unix
/// epoch.
#[derive(Debug, Clone, Copy)]
struct When {
    now: Instant,
    at: Instant,
    unix_ms: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Rpc {
    role: RpcRole,
    id: Option<ChannelId>,
    /// When the next call is due, once the connection was up.
    due: Option<Instant>,
    calls: Calls,
    streams: Streams,
    /// Messages that are to go out, and when that is tried.
    outgoing: VecDeque<Vec<u8>>,
    /// Bytes of them.
    outgoing_bytes: usize,
    send_at: Option<Instant>,
    /// It has left: nothing is called or answered any more.
    left: bool,
    counted: RpcCounters,
}

impl Rpc {
    pub(super) fn new(role: RpcRole) -> Self {
        let timeout = role.calls.map_or(Duration::ZERO, |calls| calls.timeout);
        Self {
            calls: Calls::new(role.tag, timeout),
            role,
            id: None,
            due: None,
            streams: Streams::default(),
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            send_at: None,
            left: false,
            counted: RpcCounters::default(),
        }
    }

    pub(super) fn counters(&self) -> RpcCounters {
        self.counted
    }

    pub(super) fn begin_measuring(&mut self) {
        self.counted = RpcCounters::default();
        self.calls.begin_measuring();
    }

    /// A channel is open; calls go over the reliable one.
    pub(super) fn opened(&mut self, id: ChannelId, label: &str) {
        if label == DataKind::Reliable.label() {
            self.id = Some(id);
        }
    }

    pub(super) fn closed(&mut self, id: ChannelId) {
        if self.id == Some(id) {
            self.id = None;
        }
    }

    /// Somebody can be called, unless only somebody else is to be.
    pub(super) fn met(&mut self, now: Instant, other: &Callee) {
        if self.role.callee.as_ref().is_none_or(|callee| **callee == *other.identity) {
            self.calls.met(now, &other.sid, &other.identity, other.client_protocol);
        }
    }

    /// Somebody is gone, whose calls nobody will answer.
    pub(super) fn parted(&mut self, sid: &str) {
        self.counted.cut_off += self.calls.parted(sid);
    }

    /// It leaves: nothing is called or answered from here on.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            self.counted.cut_off += self.calls.cut();
        }
        (self.due, self.send_at) = (None, None);
        self.outgoing.clear();
        self.outgoing_bytes = 0;
    }

    /// Whether so many messages more of so many bytes have room.
    fn has_room(&self, messages: usize, bytes: usize) -> bool {
        self.outgoing.len() + messages <= OUTGOING_MAX
            && self.outgoing_bytes + bytes <= OUTGOING_BYTES_MAX
    }

    fn put(&mut self, messages: Vec<Vec<u8>>) {
        self.outgoing_bytes += messages.iter().map(Vec::len).sum::<usize>();
        self.outgoing.extend(messages);
    }

    /// When [`Self::advance`] has something to do next.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.due, self.send_at, self.calls.expires()].into_iter().flatten().min()
    }

    /// Sends what waits, calls what is due and gives up what took too long. `up`: the connection
    /// stands, and nothing cuts it off. True if str0m has something to say now.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        clock: Option<Arrival>,
        up: bool,
        rtc: &mut Rtc,
    ) -> bool {
        self.calls.expire(now, &mut self.counted);
        if self.left {
            return false;
        }
        let mut wrote = self.flush(now, up, rtc);
        if up && self.due.is_none() {
            self.due = self.role.calls.map(|calls| now + OPENS_WITHIN + calls.offset);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.call(now, clock, up);
            wrote |= self.flush(now, up, rtc);
        }
        wrote
    }

    /// Writes what waits, as far as there is room.
    fn flush(&mut self, now: Instant, up: bool, rtc: &mut Rtc) -> bool {
        let mut wrote = false;
        if !self.outgoing.is_empty()
            && up
            && let Some(mut channel) = self.id.and_then(|id| rtc.channel(id))
        {
            while let Some(message) = self.outgoing.front() {
                if !matches!(channel.write(true, message), Ok(true)) {
                    break;
                }
                wrote = true;
                self.outgoing_bytes -= message.len();
                self.outgoing.pop_front();
            }
        }
        self.send_at = (!self.outgoing.is_empty()).then(|| now + RETRY_AFTER);
        wrote
    }

    fn call(&mut self, now: Instant, clock: Option<Arrival>, up: bool) {
        let Some((calls, mut due)) = self.role.calls.zip(self.due) else { return };
        // A full channel takes more in a moment: till then a call waits, as long as there is room.
        let mut ready = up && self.id.is_some();
        let mut made = 0;
        while due <= now {
            due += calls.every;
            made += 1;
            let Some(callee) = self.calls.callee(now) else {
                // Who comes later, or is gone, is not missed; if nobody ever came, all are.
                self.counted.not_called += u64::from(!self.calls.met_anybody());
                continue;
            };
            ready &= made <= BURST_MAX && self.has_room(1, calls.bytes);
            if !ready {
                self.counted.not_called += 1;
                continue;
            }
            let unix_ms = clock.map_or(0, |clock| clock.unix_ns / 1_000_000);
            if callee.protocol == 0 && calls.bytes > RPC_V1_BYTES_MAX {
                match self.calls.refused(now, &callee, unix_ms) {
                    Some(()) => {
                        self.counted.called += 1;
                        self.counted.errors.request_too_large += 1;
                    }
                    None => self.counted.not_called += 1,
                }
                continue;
            }
            let method = &self.role.method;
            let Some(messages) = self.calls.call(now, callee, method, calls.bytes, unix_ms) else {
                self.counted.not_called += 1;
                continue;
            };
            self.put(messages);
            self.counted.called += 1;
            self.counted.bytes_sent += calls.bytes as u64;
        }
        self.due = Some(due);
    }

    /// A message came; `at` is when the kernel had the datagram that completed it. False if it has
    /// nothing to do with calls.
    pub(super) fn received(
        &mut self,
        now: Instant,
        at: Option<Arrival>,
        data: &ChannelData,
        outbox: &mut Outbox,
    ) -> bool {
        self.id == Some(data.id) && self.heard(now, at, &data.data, outbox)
    }

    /// The same of one that came over the reliable channel of this or of another connection of the
    /// same participant.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        at: Option<Arrival>,
        message: &[u8],
        outbox: &mut Outbox,
    ) -> bool {
        if self.left {
            return false;
        }
        let Ok(RpcReceived { from, what }) = RpcReceived::read(message) else { return false };
        let unix_ms = at.map_or(0, |at| at.unix_ns / 1_000_000);
        let at = at.map_or(now, |at| at.instant);
        let when = When { now, at, unix_ms };
        match what {
            RpcRead::Request { call, method, .. } if is_long([from, call, method]) => {
                self.counted.dropped += 1;
            }
            RpcRead::Request { call, method, payload, known_version } => {
                self.requested(now, from, call);
                let answer = self.answer(method, known_version, Ok(payload));
                self.respond(when, from, call, By::Packet, answer);
            }
            RpcRead::Ack { call } => self.counted.acked += self.calls.acked(from, call),
            RpcRead::Response { call, bytes } => {
                self.answered(at, from, call, Outcome::Answered(bytes), outbox);
            }
            RpcRead::Error { call, code } => {
                self.answered(at, from, call, Outcome::Failed(code), outbox);
            }
            RpcRead::Stream(Stream { id, call, method, .. })
                if is_long([from, id, call]) || is_long([method]) =>
            {
                self.counted.dropped += 1;
            }
            // Nobody waits for it.
            RpcRead::Stream(Stream { answers: true, call, .. })
                if !self.calls.knows(from, call) =>
            {
                self.counted.unasked += 1;
            }
            RpcRead::Stream(stream) => {
                if !stream.answers {
                    self.requested(now, from, stream.call);
                }
                let brought = self.streams.begin(from, &stream);
                self.counted.dropped += self.streams.take_dropped();
                if let Some(brought) = brought {
                    self.brought(when, from, brought, outbox);
                }
            }
            RpcRead::Chunk { stream, index, content } => {
                let ours = self.streams.chunk(from, stream, index, content);
                self.counted.dropped += self.streams.take_dropped();
                return ours;
            }
            RpcRead::Trailer { stream, complete } => {
                let Some(brought) = self.streams.end(from, stream, complete) else { return false };
                self.brought(when, from, brought, outbox);
            }
            RpcRead::Other => return false,
        }
        true
    }

    /// A stream is complete, or broken.
    fn brought(&mut self, when: When, from: &str, brought: Brought, outbox: &mut Outbox) {
        let Brought { answers, call, method, known_version, payload, bytes } = brought;
        if answers {
            let outcome = match payload {
                Ok(_) => Outcome::Answered(bytes),
                Err(code) => Outcome::Failed(code as u64),
            };
            return self.answered(when.at, from, &call, outcome, outbox);
        }
        let payload = payload.as_deref().map_err(|code| *code);
        let answer = self.answer(&method, known_version, payload);
        self.respond(when, from, &call, By::Stream, answer);
    }

    /// What a request is answered with: what it brought.
    fn answer<'a>(
        &self,
        method: &str,
        known_version: bool,
        payload: Result<&'a [u8], RpcErrorCode>,
    ) -> Result<&'a [u8], RpcErrorCode> {
        if !known_version {
            return Err(RpcErrorCode::UnsupportedVersion);
        }
        if *method != *self.role.method {
            return Err(RpcErrorCode::UnsupportedMethod);
        }
        payload
    }

    /// A request came, which is acknowledged if there is room.
    fn requested(&mut self, now: Instant, to: &str, call: &str) {
        self.counted.requests += 1;
        let ack = put_ack(to, call);
        if self.has_room(1, ack.len()) {
            self.put(vec![ack]);
            self.send_at = Some(now);
        }
    }

    fn respond(
        &mut self,
        when: When,
        to: &str,
        call: &str,
        by: By,
        answer: Result<&[u8], RpcErrorCode>,
    ) {
        let answer = match (answer, by) {
            (Ok(payload), By::Packet) if payload.len() > RPC_V1_BYTES_MAX => {
                Err(RpcErrorCode::ResponsePayloadTooLarge)
            }
            (Ok(payload), By::Stream) if payload.len() > RPC_BYTES_MAX => {
                Err(RpcErrorCode::ResponsePayloadTooLarge)
            }
            (answer, _) => answer,
        };
        let messages = match (answer, by) {
            (Err(code), _) => vec![put_error(to, call, code as u64, code.message())],
            (Ok(payload), By::Packet) => vec![put_response(to, call, payload)],
            // Whoever sent a stream understands those of several messages.
            (Ok(payload), By::Stream) => {
                put_stream((to, self.calls.protocol_of(to)), call, None, payload, when.unix_ms)
            }
        };
        if !self.has_room(messages.len(), messages.iter().map(Vec::len).sum()) {
            self.counted.unanswered += 1;
            return;
        }
        self.put(messages);
        self.send_at = Some(when.now);
        self.counted.responses += 1;
    }

    fn answered(
        &mut self,
        at: Instant,
        from: &str,
        call: &str,
        outcome: Outcome,
        outbox: &mut Outbox,
    ) {
        self.calls.expire(at, &mut self.counted);
        let took = self.calls.answered(at, from, call, outcome, &mut self.counted);
        if let Some(round_trip) = took {
            outbox.sample(Sample::Rpc { round_trip });
        }
    }
}
