//! Calls from one peer to another, over plain str0m servers between which the test relays as LiveKit
//! does: to whom a packet names, with who it is of.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::link::Link;
use common::*;
use livekit_protocol::DataPacket;
use livekit_protocol::data_packet::Value;
use prost::Message as _;
use stampede_core::data::{DataRole, DataRoom, RpcCalls, RpcRole};
use stampede_core::{Callee, PeerRole, PeerUpdate, Sample};
use stampede_counters::RpcCounters;

const STEP: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(15);

/// Which of LiveKit's signalling protocols, which say how many connections somebody has.
#[derive(Clone, Copy)]
enum By {
    V0,
    V1,
}

/// Somebody's connections.
struct Side {
    /// The only one, or that by which it sends.
    speaks: Link,
    /// By v0 that by which it receives.
    hears: Option<Link>,
}

impl Side {
    fn new(start: Instant, version: By, rpc: RpcRole) -> Self {
        let hears = match version {
            By::V0 => {
                let role = PeerRole { calls_elsewhere: true, ..PeerRole::subscriber(false) };
                Some(Link::offered(start, role))
            }
            By::V1 => None,
        };
        let speaks = Link::new(start, PeerRole { rpc: Some(rpc), ..PeerRole::default() });
        Self { speaks, hears }
    }

    fn now(&self) -> Instant {
        let hears = self.hears.as_ref().map(|link| link.sim.now);
        hears.map_or(self.speaks.sim.now, |now| now.max(self.speaks.sim.now))
    }

    fn run_until(&mut self, until: Instant) {
        if let Some(Link { sim, .. }) = &mut self.hears {
            sim.run_until(until);
            // As a worker does.
            if sim.peer.hand_calls_to(until, &mut self.speaks.sim.peer) {
                self.speaks.sim.exchange();
            }
        }
        self.speaks.sim.run_until(until);
    }

    fn is_told(&mut self, label: &str, message: &[u8]) {
        let link = self.hears.as_mut().unwrap_or(&mut self.speaks);
        link.look();
        link.send(label, message);
    }
}

/// One that calls, alice, and one that answers, bob.
struct Pair {
    caller: Side,
    answerer: Side,
    /// What went through.
    seen: Vec<Value>,
}

impl Pair {
    fn new(calls: RpcCalls, method: &str) -> Self {
        Self::calling(calls, method, None)
    }

    fn calling(calls: RpcCalls, method: &str, callee: Option<&str>) -> Self {
        Self::by([By::V1; 2], calls, method, callee)
    }

    /// Alice and bob by these.
    fn by(
        [caller, answerer]: [By; 2],
        calls: RpcCalls,
        method: &str,
        callee: Option<&str>,
    ) -> Self {
        let start = Instant::now();
        let role = |tag, method: &str, calls| {
            let callee = callee.map(Into::into);
            RpcRole { tag, method: method.into(), callee, calls }
        };
        let caller = Side::new(start, caller, role(1, "echo", Some(calls)));
        let answerer = Side::new(start, answerer, role(2, method, None));
        Self { caller, answerer, seen: Vec::new() }
    }

    /// The server tells alice of bob, who speaks this protocol, and both are ready.
    fn meet(&mut self, client_protocol: i32) {
        let (sid, identity) = ("PA_bob".to_owned(), "bob".to_owned());
        let others = vec![Callee { sid, identity, client_protocol }];
        self.run(STEP, |_| true);
        self.caller.speaks.sim.peer.update(PeerUpdate::Met { others });
        self.run(Duration::from_millis(1_900), |_| true);
    }

    fn run(&mut self, duration: Duration, passes: impl Fn(&Value) -> bool) {
        let mut now = self.caller.now().max(self.answerer.now());
        let until = now + duration;
        while now < until {
            now += STEP;
            self.caller.run_until(now);
            self.answerer.run_until(now);
            let (from, to) = (&mut self.caller, &mut self.answerer);
            relay(from, "alice", to, "bob", &passes, &mut self.seen);
            let (from, to) = (&mut self.answerer, &mut self.caller);
            relay(from, "bob", to, "alice", &passes, &mut self.seen);
        }
    }

    /// Nothing more is called; what is open is decided.
    fn counted(&self) -> [RpcCounters; 2] {
        [&self.caller, &self.answerer].map(|side| side.speaks.sim.peer.counters().rpc)
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.seen
            .iter()
            .map(|value| match value {
                Value::RpcRequest(_) => "request",
                Value::RpcAck(_) => "ack",
                Value::RpcResponse(_) => "response",
                Value::StreamHeader(header) if header.inline_content.is_some() => "stream",
                Value::StreamHeader(_) => "header",
                Value::StreamChunk(_) => "chunk",
                Value::StreamTrailer(_) => "trailer",
                _ => "other",
            })
            .collect()
    }
}

fn relay(
    from: &mut Side,
    sender: &str,
    to: &mut Side,
    receiver: &str,
    passes: impl Fn(&Value) -> bool,
    seen: &mut Vec<Value>,
) {
    for (label, message) in from.speaks.sent() {
        let mut packet = DataPacket::decode(&message[..]).unwrap();
        assert_eq!(
            (label.as_str(), &packet.destination_identities[..]),
            ("_reliable", &[receiver.to_owned()][..])
        );
        packet.participant_identity = sender.to_owned();
        let value = packet.value.clone().unwrap();
        if passes(&value) {
            to.is_told(&label, &packet.encode_to_vec());
        }
        seen.push(value);
    }
}

fn calls(bytes: usize) -> RpcCalls {
    let every = Duration::from_millis(500);
    RpcCalls { every, bytes, timeout: TIMEOUT, offset: Duration::ZERO }
}

#[test]
fn calls_are_answered_in_the_form_that_who_is_called_understands() {
    let cases: [(i32, usize, &[&str]); 4] = [
        (0, 300, &["request", "ack", "response"]),
        (1, 300, &["header", "chunk", "trailer", "ack", "header", "chunk", "trailer"]),
        // Bob does not know what alice speaks.
        (2, 300, &["stream", "ack", "header", "chunk", "trailer"]),
        (
            2,
            20_000,
            &["header", "chunk", "chunk", "trailer", "ack", "header", "chunk", "chunk", "trailer"],
        ),
    ];
    let by_v1 = [By::V1; 2];
    let all = cases.into_iter().map(|case| (by_v1, case));
    // By v0 all of them too, and some where the other one has a single connection.
    let by_v0 = cases.into_iter().map(|case| ([By::V0; 2], case));
    let mixed = [[By::V0, By::V1], [By::V1, By::V0]];
    let mixed = mixed.into_iter().zip([cases[0], cases[3]]);
    for (versions, (protocol, bytes, messages)) in all.chain(by_v0).chain(mixed) {
        let mut pair = Pair::by(versions, calls(bytes), "echo", None);
        pair.meet(protocol);
        pair.seen.clear();
        pair.run(Duration::from_secs(3), |_| true);
        let [caller, answerer] = pair.counted();
        assert!((4..=6).contains(&caller.called), "{protocol}: {caller:?}");
        assert_eq!((caller.answered, caller.acked), (caller.called, caller.called), "{protocol}");
        assert_eq!((caller.failed(), caller.not_called, caller.late), (0, 0, 0), "{caller:?}");
        assert_eq!(caller.bytes_sent, bytes as u64 * caller.called);
        assert_eq!(caller.bytes_received, bytes as u64 * caller.called);
        assert_eq!((answerer.requests, answerer.responses), (caller.called, caller.called));
        let mut first = pair.kinds();
        first.truncate(messages.len());
        // An ack goes out as soon as the first part of a request came.
        let (mut first, mut messages) = (first, messages.to_vec());
        first.sort_unstable();
        messages.sort_unstable();
        assert_eq!(first, messages, "{protocol}");
        let samples = pair.caller.speaks.sim.sink.samples.iter();
        let round_trips = samples.filter(|sample| matches!(sample, Sample::Rpc { .. })).count();
        assert_eq!(round_trips as u64, caller.answered);
    }
}

/// What is no call stays with the connection at which it came, and is counted there.
#[test]
fn streams_that_are_no_calls_are_not_lost_between_two_connections() {
    let room = Arc::new(DataRoom::new(7, 1, [true, false, false]).unwrap());
    let data = DataRole { room, sender: None, sends: None, expects: [true, false, false] };
    let start = Instant::now();
    let mut bob = Side::new(
        start,
        By::V0,
        RpcRole { tag: 2, method: "echo".into(), callee: None, calls: None },
    );
    let hears = PeerRole { calls_elsewhere: true, data: Some(data), ..PeerRole::subscriber(false) };
    bob.hears = Some(Link::offered(start, hears));
    let mut now = bob.now() + ms(500);
    bob.run_until(now);
    let mut say = |bob: &mut Side, value: Value| {
        let packet = DataPacket { value: Some(value), ..DataPacket::default() };
        bob.is_told("_reliable", &packet.encode_to_vec());
        now += ms(100);
        bob.run_until(now);
    };
    say(
        &mut bob,
        Value::RpcRequest(livekit_protocol::RpcRequest {
            id: "1".to_owned(),
            method: "echo".to_owned(),
            version: 1,
            ..Default::default()
        }),
    );
    let chunk = livekit_protocol::data_stream::Chunk {
        stream_id: "of a file".to_owned(),
        content: vec![1; 100],
        ..Default::default()
    };
    say(&mut bob, Value::StreamChunk(chunk));
    say(&mut bob, Value::User(livekit_protocol::UserPacket::default()));
    let hears = bob.hears.as_ref().unwrap().sim.peer.counters();
    let speaks = bob.speaks.sim.peer.counters();
    assert_eq!((speaks.rpc.requests, speaks.rpc.responses), (1, 1));
    assert_eq!((hears.data.other.foreign, hears.rpc), (2, RpcCounters::default()));
}

#[test]
fn what_does_not_come_back_is_a_timeout_by_what_is_missing() {
    let mut pair = Pair::new(calls(100), "echo");
    pair.meet(0);
    let [before, _] = pair.counted();
    assert_eq!(before.called, before.answered);
    // One call without an ack, then one without an answer.
    pair.run(Duration::from_millis(500), |value| !matches!(value, Value::RpcRequest(_)));
    pair.run(Duration::from_millis(500), |value| !matches!(value, Value::RpcResponse(_)));
    pair.run(Duration::from_secs(16), |_| true);
    let [caller, _] = pair.counted();
    assert_eq!((caller.ack_timeouts, caller.response_timeouts), (1, 1), "{caller:?}");
    assert!(caller.called - caller.answered <= 3, "{caller:?}");
    // Who is gone answers nothing any more, and nobody is called.
    pair.run(Duration::from_secs(1), |value| !matches!(value, Value::RpcRequest(_)));
    pair.caller.speaks.sim.peer.update(PeerUpdate::Parted { sids: vec!["PA_bob".to_owned()] });
    let [parted, _] = pair.counted();
    assert!((1..=3).contains(&parted.cut_off), "{parted:?}");
    pair.run(Duration::from_secs(20), |_| true);
    let [end, _] = pair.counted();
    assert_eq!(end, parted);
    assert_eq!(end.called, end.answered + end.failed() + end.cut_off);
}

#[test]
fn errors_are_counted_by_their_codes() {
    let mut pair = Pair::new(calls(20_000), "another");
    pair.meet(2);
    pair.run(Duration::from_secs(2), |_| true);
    let [caller, answerer] = pair.counted();
    assert!(caller.called >= 3 && caller.answered == 0, "{caller:?}");
    assert_eq!(caller.errors.unsupported_method, caller.called);
    assert_eq!((answerer.requests, answerer.responses), (caller.called, caller.called));
    assert_eq!(caller.failure_rate(), None, "the timeout of none is over");
    pair.run(TIMEOUT, |_| true);
    let [caller, _] = pair.counted();
    assert!(caller.decided >= 3 && caller.failure_rate() == Some(1.0), "{caller:?}");
    // More than a client of protocol 0 takes is not even sent.
    let mut pair = Pair::new(calls(20_000), "echo");
    pair.meet(0);
    pair.run(Duration::from_secs(2), |_| true);
    let [caller, answerer] = pair.counted();
    assert!(caller.called >= 3 && pair.seen.is_empty());
    assert_eq!((caller.errors.request_too_large, answerer.requests), (caller.called, 0));
    pair.run(TIMEOUT, |_| true);
    assert_eq!(pair.counted()[0].failure_rate(), Some(1.0));
}

#[test]
fn who_is_moved_to_another_room_calls_and_answers_there() {
    let mut pair = Pair::new(calls(100), "echo");
    pair.meet(2);
    pair.run(Duration::from_secs(2), |_| true);
    let [before, _] = pair.counted();
    assert!(before.answered >= 3, "{before:?}");
    let (sid, identity) = ("PA_bob_there".to_owned(), "bob".to_owned());
    let others = vec![Callee { sid, identity, client_protocol: 2 }];
    for update in [
        PeerUpdate::Parted { sids: vec!["PA_bob".to_owned()] },
        PeerUpdate::Moved,
        PeerUpdate::Met { others },
    ] {
        pair.caller.speaks.sim.peer.update(update);
    }
    pair.answerer.speaks.sim.peer.update(PeerUpdate::Moved);
    pair.run(Duration::from_secs(5), |_| true);
    let [caller, answerer] = pair.counted();
    assert!(caller.answered >= before.answered + 5, "{caller:?}");
    assert_eq!((caller.failed(), caller.not_called), (0, 0), "{caller:?}");
    assert_eq!(caller.called, caller.answered + caller.cut_off);
    assert_eq!(answerer.responses, answerer.requests);
}

#[test]
fn calls_of_who_meets_nobody_are_not_made_and_counted() {
    let mut pair = Pair::new(calls(100), "echo");
    pair.run(Duration::from_secs(5), |_| true);
    let [caller, answerer] = pair.counted();
    // Two calls a second, due 2 s after the connection is up.
    assert!((5..=7).contains(&caller.not_called), "{caller:?}");
    assert_eq!((caller.called, answerer.not_called), (0, 0));
}

#[test]
fn only_who_is_to_be_called_is_called() {
    let mut pair = Pair::calling(calls(100), "echo", Some("carol"));
    pair.meet(2);
    pair.run(Duration::from_secs(2), |_| true);
    let [caller, _] = pair.counted();
    assert!(caller.called == 0 && caller.not_called >= 4, "{caller:?}");
}

#[test]
fn nobody_is_called_while_nothing_comes_through() {
    let mut pair = Pair::new(calls(100), "echo");
    pair.meet(0);
    pair.run(Duration::from_secs(1), |_| true);
    pair.caller.speaks.sim.peer.begin_measuring(pair.caller.speaks.sim.now);
    let dark = Duration::from_secs(2);
    pair.caller.speaks.sim.peer.cut_off_until(pair.caller.speaks.sim.now + dark);
    pair.run(dark, |_| true);
    let [caller, _] = pair.counted();
    assert!(caller.called == 0 && (3..=5).contains(&caller.not_called), "{caller:?}");
    pair.run(Duration::from_secs(3), |_| true);
    pair.caller.speaks.sim.peer.update(PeerUpdate::Leaving);
    let [caller, _] = pair.counted();
    assert!(caller.called >= 5, "{caller:?}");
    assert_eq!(caller.called, caller.answered + caller.cut_off);
}

#[test]
fn hostile_messages_do_no_harm() {
    let mut pair = Pair::new(calls(100), "echo");
    pair.meet(2);
    let Some(Value::StreamHeader(header)) = pair.seen.last().cloned().or_else(|| {
        pair.run(Duration::from_secs(1), |_| true);
        pair.seen.iter().find(|value| matches!(value, Value::StreamHeader(_))).cloned()
    }) else {
        panic!("{:?}", pair.kinds());
    };
    let value = Some(Value::StreamHeader(header));
    let packet = DataPacket { value, ..DataPacket::default() };
    let message = packet.encode_to_vec();
    let mut rng = Rng::new(9);
    for number in 0..300 {
        let mut broken = message.clone();
        match number % 3 {
            0 => broken.truncate(1 + rng.below(broken.len() as u64 - 1) as usize),
            _ => {
                let at = rng.below(broken.len() as u64) as usize;
                broken[at] ^= 1 << rng.below(8);
            }
        }
        pair.answerer.is_told("_reliable", &broken);
        pair.answerer.speaks.sim.run(ms(10));
    }
    let [_, answerer] = pair.counted();
    assert!(answerer.requests > 50 && answerer.responses > 0, "{answerer:?}");
    assert!(answerer.responses <= answerer.requests);
    assert!(pair.answerer.speaks.sim.peer.is_connected());
}
