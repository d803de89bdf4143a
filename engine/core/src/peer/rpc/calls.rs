//! Who can be called, and the calls that wait for their answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_counters::RpcCounters;

use crate::data::{
    REQUEST_TIMEOUT_MIN, RPC_ACK_WITHIN, RPC_CALLEES_MAX, RpcErrorCode, put_request, put_stream,
};

/// Somebody is called from so long after it was connected on: its channel may open a moment later.
const MET_GRACE: Duration = Duration::from_secs(2);
/// Calls that wait for their answers at most; then no more are made.
pub(in crate::peer) const OPEN_CALLS_MAX: usize = 4_096;
/// Calls given up whose late answers are known as such.
const GIVEN_UP_MAX: usize = 1_024;

/// Somebody who can be called.
#[derive(Debug, Clone)]
pub(super) struct Callee {
    sid: Box<str>,
    identity: Arc<str>,
    /// Which protocol between clients it speaks.
    pub(super) protocol: i32,
    from: Instant,
}

/// A call that was made.
#[derive(Debug)]
struct Call {
    identity: Arc<str>,
    sent: Instant,
    acked: bool,
    /// What becomes of it is known.
    done: bool,
    /// It was made since measuring began.
    counts: bool,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many bytes.
    Answered(usize),
    /// This error.
    Failed(u64),
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Calls {
    tag: u64,
    timeout: Duration,
    callees: Vec<Callee>,
    /// Who is called next.
    turn: usize,
    /// By number, from `first` on; the first one is not done.
    open: VecDeque<Call>,
    first: u64,
    given_up: VecDeque<u64>,
    payload: Vec<u8>,
}

impl Calls {
    pub(super) fn new(tag: u64, timeout: Duration) -> Self {
        Self {
            tag,
            timeout,
            callees: Vec::new(),
            turn: 0,
            open: VecDeque::new(),
            first: 0,
            given_up: VecDeque::new(),
            payload: Vec::new(),
        }
    }

    pub(super) fn begin_measuring(&mut self) {
        self.open.iter_mut().for_each(|call| call.counts = false);
        self.given_up.clear();
    }

    pub(super) fn met(&mut self, now: Instant, sid: &str, identity: &str, protocol: i32) {
        if self.callees.len() < RPC_CALLEES_MAX && !self.callees.iter().any(|one| *one.sid == *sid)
        {
            let (sid, identity, from) = (sid.into(), identity.into(), now + MET_GRACE);
            self.callees.push(Callee { sid, identity, protocol, from });
        }
    }

    /// Somebody is gone: so many calls were cut off by that.
    pub(super) fn parted(&mut self, sid: &str) -> u64 {
        let Some(place) = self.callees.iter().position(|one| *one.sid == *sid) else { return 0 };
        let gone = self.callees.remove(place);
        // Whoever is behind it is still the next.
        self.turn -= usize::from(self.turn > place);
        self.cut_where(|call| *call.identity == *gone.identity)
    }

    /// Nothing is waited for any more: so many calls were cut off.
    pub(super) fn cut(&mut self) -> u64 {
        self.cut_where(|_| true)
    }

    fn cut_where(&mut self, is_cut: impl Fn(&Call) -> bool) -> u64 {
        let mut cut = 0;
        for call in self.open.iter_mut().filter(|call| !call.done && is_cut(call)) {
            call.done = true;
            cut += u64::from(call.counts);
        }
        self.tidy();
        cut
    }

    /// Which protocol somebody speaks who can be called; else one that takes any stream apart.
    pub(super) fn protocol_of(&self, identity: &str) -> i32 {
        let known = self.callees.iter().find(|one| *one.identity == *identity);
        known.map_or(1, |one| one.protocol)
    }

    /// Who is to be called next.
    pub(super) fn callee(&mut self, now: Instant) -> Option<Callee> {
        for _ in 0..self.callees.len() {
            let callee = &self.callees[self.turn % self.callees.len()];
            self.turn = (self.turn + 1) % self.callees.len();
            if callee.from <= now {
                return Some(callee.clone());
            }
        }
        None
    }

    /// The messages of a call; `None` if too many are open.
    pub(super) fn call(
        &mut self,
        now: Instant,
        callee: Callee,
        method: &str,
        bytes: usize,
        unix_ms: u64,
    ) -> Option<Vec<Vec<u8>>> {
        if self.open.len() >= OPEN_CALLS_MAX {
            return None;
        }
        let id = format!("{:016x}-{}", self.tag, self.first + self.open.len() as u64);
        self.payload.resize(bytes, b'.');
        let timeout_ms = self.timeout.max(REQUEST_TIMEOUT_MIN).as_millis() as u64;
        let (to, payload) = (&*callee.identity, &self.payload);
        let messages = match callee.protocol {
            0 => vec![put_request(to, &id, method, payload, timeout_ms)],
            protocol => {
                put_stream((to, protocol), &id, Some((method, timeout_ms)), payload, unix_ms)
            }
        };
        let identity = callee.identity;
        self.open.push_back(Call { identity, sent: now, acked: false, done: false, counts: true });
        Some(messages)
    }

    /// The number of a call of ours.
    fn number(&self, id: &str) -> Option<u64> {
        let (tag, number) = id.split_once('-')?;
        (u64::from_str_radix(tag, 16) == Ok(self.tag)).then(|| number.parse().ok())?
    }

    fn open_call(&mut self, from: &str, number: u64) -> Option<&mut Call> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let call = self.open.get_mut(place)?;
        (!call.done && *call.identity == *from).then_some(call)
    }

    /// A call was acknowledged: 1 if that counts.
    pub(super) fn acked(&mut self, from: &str, id: &str) -> u64 {
        let call = self.number(id).and_then(|number| self.open_call(from, number));
        let first =
            call.is_some_and(|call| !std::mem::replace(&mut call.acked, true) && call.counts);
        u64::from(first)
    }

    /// An answer came: how long the call took, if it counts as answered.
    pub(super) fn answered(
        &mut self,
        at: Instant,
        from: &str,
        id: &str,
        outcome: Outcome,
        counted: &mut RpcCounters,
    ) -> Option<Duration> {
        let number = self.number(id)?;
        let Some(call) = self.open_call(from, number) else {
            if let Some(place) = self.given_up.iter().position(|given_up| *given_up == number) {
                self.given_up.remove(place);
                counted.late += 1;
            }
            return None;
        };
        call.done = true;
        let (counts, took) = (call.counts, at.saturating_duration_since(call.sent));
        self.tidy();
        if !counts {
            return None;
        }
        match outcome {
            Outcome::Answered(bytes) => {
                counted.answered += 1;
                counted.bytes_received += bytes as u64;
                Some(took)
            }
            Outcome::Failed(code) => {
                RpcErrorCode::count(code, &mut counted.errors);
                None
            }
        }
    }

    /// When the next call may have to be given up.
    pub(super) fn expires(&self) -> Option<Instant> {
        let open = self.open.iter().filter(|call| !call.done);
        // In the order of their calls; with the ack both wait equally long.
        let ack = open.clone().find(|call| !call.acked).map(|call| call.sent + self.ack_within());
        let answer = open.clone().next().map(|call| call.sent + self.timeout);
        ack.into_iter().chain(answer).min()
    }

    fn ack_within(&self) -> Duration {
        RPC_ACK_WITHIN.min(self.timeout)
    }

    /// Gives up what took too long.
    pub(super) fn expire(&mut self, now: Instant, counted: &mut RpcCounters) {
        let (ack_within, timeout) = (self.ack_within(), self.timeout);
        let (first, mut any) = (self.first, false);
        for (number, call) in (first..).zip(&mut self.open) {
            let age = now.saturating_duration_since(call.sent);
            if age < ack_within {
                break;
            }
            let acked_in_time = call.acked || age < RPC_ACK_WITHIN;
            if call.done || (age < timeout && acked_in_time) {
                continue;
            }
            (call.done, any) = (true, true);
            if !call.counts {
                continue;
            }
            // As a client's timers have it: whichever ends first.
            match !call.acked && timeout > RPC_ACK_WITHIN {
                true => counted.ack_timeouts += 1,
                false => counted.response_timeouts += 1,
            }
            if self.given_up.len() == GIVEN_UP_MAX {
                self.given_up.pop_front();
            }
            self.given_up.push_back(number);
        }
        if any {
            self.tidy();
        }
    }

    /// Forgets what is done at the front.
    fn tidy(&mut self) {
        while self.open.front().is_some_and(|call| call.done) {
            self.open.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);

    struct Rig {
        calls: Calls,
        now: Instant,
        counted: RpcCounters,
    }

    impl Rig {
        fn new(timeout: Duration) -> Self {
            let (mut calls, now) = (Calls::new(0xabc, timeout), Instant::now());
            calls.met(now, "PA_1", "bob", 2);
            let (counted, now) = (RpcCounters::default(), now + MET_GRACE);
            Self { calls, now, counted }
        }

        /// Id of a call that is made now.
        fn call(&mut self) -> String {
            let number = self.calls.first + self.calls.open.len() as u64;
            let callee = self.calls.callee(self.now).unwrap();
            assert!(self.calls.call(self.now, callee, "echo", 10, 0).is_some());
            format!("{:016x}-{number}", 0xabc)
        }

        fn later(&mut self, by: Duration) {
            self.now += by;
            self.calls.expire(self.now, &mut self.counted);
        }

        fn answered(&mut self, from: &str, id: &str) -> Option<Duration> {
            let outcome = Outcome::Answered(10);
            self.calls.answered(self.now, from, id, outcome, &mut self.counted)
        }
    }

    #[test]
    fn each_call_ends_in_one_way() {
        let mut rig = Rig::new(TIMEOUT);
        let [answered, failed, silent, acked, left] = [(); 5].map(|()| rig.call());
        rig.later(Duration::from_millis(40));
        for id in [&answered, &failed, &acked, &left, &left] {
            rig.counted.acked += rig.calls.acked("bob", id);
        }
        assert_eq!(rig.answered("bob", &answered), Some(Duration::from_millis(40)));
        assert_eq!(rig.answered("bob", &answered), None, "it was answered already");
        assert_eq!(rig.answered("eve", &silent), None, "she was not asked");
        assert_eq!(rig.answered("bob", "0000000000000abd-2"), None, "somebody else's");
        let none =
            rig.calls.answered(rig.now, "bob", &failed, Outcome::Failed(1400), &mut rig.counted);
        assert_eq!(none, None);
        rig.later(RPC_ACK_WITHIN);
        rig.later(TIMEOUT - RPC_ACK_WITHIN - Duration::from_secs(1));
        assert_eq!((rig.counted.ack_timeouts, rig.counted.response_timeouts), (1, 0));
        assert_eq!(
            rig.answered("bob", &left),
            Some(Duration::from_secs(14) + Duration::from_millis(40))
        );
        rig.later(Duration::from_secs(1));
        assert_eq!((rig.counted.ack_timeouts, rig.counted.response_timeouts), (1, 1));
        assert_eq!(rig.answered("bob", &acked), None);
        assert_eq!(rig.answered("bob", &acked), None);
        rig.call();
        rig.counted.called = 6;
        rig.counted.cut_off += rig.calls.parted("PA_1");
        let RpcCounters { answered, cut_off, late, acked, .. } = rig.counted;
        assert_eq!((answered, cut_off, late, acked), (2, 1, 1, 4));
        assert_eq!(rig.counted.errors.unsupported_method, 1);
        assert_eq!(rig.counted.failed() + answered + cut_off, rig.counted.called);
        assert_eq!(rig.counted.failure_rate(), Some(3.0 / 5.0));
        assert!(rig.calls.open.is_empty() && rig.calls.expires().is_none());
    }

    #[test]
    fn a_timeout_shorter_than_the_ack_ends_first() {
        let mut rig = Rig::new(Duration::from_secs(3));
        let id = rig.call();
        assert_eq!(rig.calls.expires(), Some(rig.now + Duration::from_secs(3)));
        rig.later(Duration::from_secs(3));
        assert_eq!((rig.counted.ack_timeouts, rig.counted.response_timeouts), (0, 1));
        assert_eq!(rig.answered("bob", &id), None);
        assert_eq!(rig.counted.late, 1);
    }

    #[test]
    fn everybody_is_called_in_turn_a_moment_after_they_are_there() {
        let mut rig = Rig::new(TIMEOUT);
        rig.calls.met(rig.now, "PA_2", "carol", 0);
        rig.calls.met(rig.now, "PA_2", "carol", 0);
        let next = |rig: &mut Rig| rig.calls.callee(rig.now).map(|one| one.identity.to_string());
        assert_eq!(next(&mut rig).as_deref(), Some("bob"));
        assert_eq!(next(&mut rig).as_deref(), Some("bob"), "she has just come");
        rig.now += MET_GRACE;
        let both = [next(&mut rig).unwrap(), next(&mut rig).unwrap()];
        assert!(both.contains(&"bob".to_owned()) && both.contains(&"carol".to_owned()), "{both:?}");
        assert_eq!(rig.calls.parted("PA_1"), 0);
        assert_eq!(next(&mut rig).as_deref(), Some("carol"));
        rig.calls.parted("PA_2");
        assert_eq!(next(&mut rig), None);
    }

    #[test]
    fn what_was_called_before_measuring_is_in_no_count() {
        let mut rig = Rig::new(TIMEOUT);
        let (one, _) = (rig.call(), rig.call());
        rig.calls.begin_measuring();
        assert_eq!(rig.calls.acked("bob", &one), 0);
        assert_eq!(rig.answered("bob", &one), None);
        rig.later(TIMEOUT);
        assert_eq!(rig.counted, RpcCounters::default());
    }
}
