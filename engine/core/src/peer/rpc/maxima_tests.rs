//! What calls do at their maxima: what is not made, not answered or not known any more is counted.

use super::calls::{CALLS_MAX, GIVEN_UP_MAX};
use super::*;
use crate::data::{RPC_ACK_WITHIN, RPC_CALLEES_MAX, RpcCalls, put_request};
use crate::{DtlsIdentity, Peer, PeerOptions};

const MS: Duration = Duration::from_millis(1);
const UNIX_MS: u64 = 1_700_000_000_000;

/// Somebody who calls "bob" each millisecond, over a channel that takes nothing.
struct Rig {
    rpc: Rpc,
    peer: Peer,
    /// When the first call is due.
    due: Instant,
}

impl Rig {
    fn new(bytes: usize) -> Self {
        let now = Instant::now();
        let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
        let local: std::net::SocketAddr = "127.0.0.1:40001".parse().unwrap();
        let mut peer = Peer::subscriber(now, local, &options, false).unwrap();
        let id = peer.rtc.sdp_api().add_channel("_reliable".to_owned());
        let timeout = Duration::from_secs(60);
        let calls = RpcCalls { every: MS, bytes, timeout, offset: Duration::ZERO };
        let method = "echo".into();
        let mut rpc = Rpc::new(RpcRole { tag: 7, method, callee: None, calls: Some(calls) });
        rpc.opened(id, DataKind::Reliable.label());
        let (sid, identity) = ("PA_1".to_owned(), "bob".to_owned());
        rpc.met(now, &Callee { sid, identity, client_protocol: 0 });
        rpc.advance(now, None, true, &mut peer.rtc);
        Self { rpc, peer, due: now + OPENS_WITHIN }
    }

    /// The calls up to then, made in their time; what was counted.
    fn run(&mut self, calls: u32) -> RpcCounters {
        for call in 0..calls {
            self.advance(MS * call);
        }
        self.rpc.counters()
    }

    fn advance(&mut self, since: Duration) {
        self.rpc.advance(self.due + since, None, true, &mut self.peer.rtc);
    }

    fn is_called(&mut self, id: &str) -> RpcCounters {
        let request = put_request("me", id, "echo", b"", 1_000);
        assert!(self.rpc.heard(self.due, None, &request, &mut Outbox::default()));
        self.rpc.counters()
    }
}

#[test]
fn calls_and_answers_that_find_no_room_are_counted() {
    let mut rig = Rig::new(10);
    let counted = rig.run(OUTGOING_MAX as u32 + 5);
    assert_eq!((counted.called, counted.not_called), (OUTGOING_MAX as u64, 5));
    let counted = rig.is_called("1");
    assert_eq!((counted.requests, counted.responses, counted.unanswered), (1, 0, 1));
    assert_eq!(rig.rpc.outgoing.len(), OUTGOING_MAX);
}

#[test]
fn bytes_that_wait_are_bounded_too() {
    let bytes = RPC_V1_BYTES_MAX;
    let mut rig = Rig::new(bytes);
    let room = (OUTGOING_BYTES_MAX / bytes) as u64;
    let beside = put_request("bob", &"x".repeat(40), "echo", b"", 60_000).len();
    let counted = rig.run(100);
    assert_eq!(counted.called + counted.not_called, 100);
    // What a message has beside its payload takes room too.
    assert!((room - 1..=room).contains(&counted.called), "{counted:?}");
    assert!(rig.rpc.outgoing_bytes <= OUTGOING_BYTES_MAX + beside, "{}", rig.rpc.outgoing_bytes);
}

#[test]
fn who_is_far_behind_makes_up_for_so_many_and_counts_the_rest() {
    let mut rig = Rig::new(10);
    rig.advance(MS * 199);
    let counted = rig.rpc.counters();
    assert_eq!(
        (counted.called, counted.not_called),
        (BURST_MAX.into(), 200 - u64::from(BURST_MAX))
    );
}

#[test]
fn requests_with_ids_that_are_too_long_are_dropped_and_counted() {
    let mut rig = Rig::new(10);
    let counted = rig.is_called(&"x".repeat(ID_BYTES_MAX));
    assert_eq!((counted.requests, counted.responses, counted.dropped), (1, 1, 0));
    let counted = rig.is_called(&"x".repeat(ID_BYTES_MAX + 1));
    assert_eq!((counted.requests, counted.responses, counted.dropped), (1, 1, 1));
}

/// Calls of whoever calls so many, named by their numbers.
fn calls(callees: usize) -> (Calls, Instant) {
    let (mut calls, now) = (Calls::new(7, Duration::from_secs(60)), Instant::now());
    for number in 0..callees {
        calls.met(now, &format!("PA_{number}"), &number.to_string(), 2);
    }
    (calls, now + Duration::from_secs(5))
}

#[test]
fn so_many_are_called_and_no_more() {
    let (mut calls, now) = calls(RPC_CALLEES_MAX + 1);
    for _ in 0..=RPC_CALLEES_MAX {
        let callee = calls.callee(now).unwrap();
        assert!(calls.call(now, callee, "echo", 1, UNIX_MS).is_some());
    }
    assert_eq!((calls.parted("PA_0"), calls.parted("PA_1")), (2, 1), "they are called in turn");
    assert_eq!(calls.parted(&format!("PA_{}", RPC_CALLEES_MAX - 1)), 1);
    assert_eq!(calls.parted(&format!("PA_{RPC_CALLEES_MAX}")), 0);
}

#[test]
fn calls_whose_timeout_is_not_over_are_kept_so_many() {
    let (mut calls, now) = calls(1);
    let callee = calls.callee(now).unwrap();
    for _ in 0..CALLS_MAX {
        assert!(calls.refused(now, &callee, UNIX_MS).is_some());
    }
    assert!(calls.refused(now, &callee, UNIX_MS).is_none());
    assert!(calls.call(now, callee.clone(), "echo", 1, UNIX_MS).is_none());
    let mut counted = RpcCounters::default();
    calls.expire(now + Duration::from_secs(60), &mut counted);
    assert_eq!(counted.decided, CALLS_MAX as u64);
    assert!(calls.call(now, callee, "echo", 1, UNIX_MS).is_some());
}

#[test]
fn late_answers_are_told_from_unasked_ones_of_so_many_calls() {
    let (mut calls, now) = calls(1);
    for _ in 0..=GIVEN_UP_MAX {
        let callee = calls.callee(now).unwrap();
        assert!(calls.call(now, callee, "echo", 1, UNIX_MS).is_some());
    }
    let (mut counted, now) = (RpcCounters::default(), now + RPC_ACK_WITHIN);
    calls.expire(now, &mut counted);
    assert_eq!(counted.ack_timeouts, GIVEN_UP_MAX as u64 + 1);
    for number in [0, 1] {
        let id = format!("{:016x}-{}", 7, UNIX_MS * 1_000 + number);
        assert_eq!(calls.answered(now, "0", &id, Outcome::Answered(1), &mut counted), None);
    }
    assert_eq!((counted.unasked, counted.late), (1, 1), "the oldest is forgotten");
}
