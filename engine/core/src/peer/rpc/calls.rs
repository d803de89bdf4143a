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
/// Calls kept at most, which are those whose timeout is not over; then no more are made. It is more
/// than a peer makes in a minute ([`RPC_CALLS_PER_S_MAX`](crate::data::RPC_CALLS_PER_S_MAX)).
pub(in crate::peer) const CALLS_MAX: usize = 65_536;
/// Numbers of calls that there are for each millisecond: many more than calls.
const CALLS_PER_MS_MAX: u64 = 1_000;
/// Calls given up whose late answers are known as such.
pub(super) const GIVEN_UP_MAX: usize = 1_024;

/// Somebody who can be called.
#[derive(Debug, Clone)]
pub(super) struct Callee {
    sid: Box<str>,
    identity: Arc<str>,
    /// Which protocol between clients it speaks.
    pub(super) protocol: i32,
    from: Instant,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// That is not known yet.
    Open,
    Answered,
    Failed,
    CutOff,
}

/// A call that was made.
#[derive(Debug)]
struct Call {
    identity: Arc<str>,
    sent: Instant,
    acked: bool,
    fate: Fate,
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
    /// There was somebody once.
    anybody: bool,
    /// Who is called next.
    turn: usize,
    /// Those whose timeout is not over, by number, from `first` on, whatever became of them.
    calls: VecDeque<Call>,
    first: u64,
    /// Of which that is not known yet.
    open: usize,
    /// So many from the front on were looked at when their time for an acknowledgement was over.
    past_ack: usize,
    /// By number and who was called.
    given_up: VecDeque<(u64, Arc<str>)>,
    payload: Vec<u8>,
}

impl Calls {
    pub(super) fn new(tag: u64, timeout: Duration) -> Self {
        Self {
            tag,
            timeout,
            callees: Vec::new(),
            anybody: false,
            turn: 0,
            calls: VecDeque::new(),
            first: 0,
            open: 0,
            past_ack: 0,
            given_up: VecDeque::new(),
            payload: Vec::new(),
        }
    }

    pub(super) fn begin_measuring(&mut self) {
        self.calls.iter_mut().for_each(|call| call.counts = false);
        self.given_up.clear();
    }

    pub(super) fn met(&mut self, now: Instant, sid: &str, identity: &str, protocol: i32) {
        if self.callees.len() < RPC_CALLEES_MAX && !self.callees.iter().any(|one| *one.sid == *sid)
        {
            let (sid, identity, from) = (sid.into(), identity.into(), now + MET_GRACE);
            self.anybody = true;
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

    /// There was somebody to call once.
    pub(super) fn met_anybody(&self) -> bool {
        self.anybody
    }

    fn cut_where(&mut self, is_cut: impl Fn(&Call) -> bool) -> u64 {
        let mut cut = 0;
        for call in self.calls.iter_mut().filter(|call| is_cut(call)) {
            if call.fate == Fate::Open {
                self.open -= 1;
                cut += u64::from(call.counts);
            }
            // What was answered at once would be decided, and what was not would not.
            call.fate = Fate::CutOff;
        }
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
        if self.open >= OPEN_CALLS_MAX || self.calls.len() >= CALLS_MAX {
            return None;
        }
        let number = self.begin(now, &callee, Fate::Open, unix_ms);
        let id = format!("{:016x}-{number}", self.tag);
        self.open += 1;
        self.payload.resize(bytes, b'.');
        let timeout_ms = self.timeout.max(REQUEST_TIMEOUT_MIN).as_millis() as u64;
        let (to, payload) = (&*callee.identity, &self.payload);
        let messages = match callee.protocol {
            0 => vec![put_request(to, &id, method, payload, timeout_ms)],
            protocol => {
                put_stream((to, protocol), &id, Some((method, timeout_ms)), payload, unix_ms)
            }
        };
        Some(messages)
    }

    /// A call failed before anything was sent; `None` if too many are kept.
    pub(super) fn refused(&mut self, now: Instant, callee: &Callee, unix_ms: u64) -> Option<()> {
        if self.calls.len() >= CALLS_MAX {
            return None;
        }
        self.begin(now, callee, Fate::Failed, unix_ms);
        Some(())
    }

    /// The number of a new call. No answer of an earlier connection's calls, whose tag is the same,
    /// is to be taken for one of this one's: the first is that of its time.
    fn begin(&mut self, now: Instant, callee: &Callee, fate: Fate, unix_ms: u64) -> u64 {
        if self.first == 0 && self.calls.is_empty() {
            self.first = unix_ms.saturating_mul(CALLS_PER_MS_MAX);
        }
        let identity = Arc::clone(&callee.identity);
        self.calls.push_back(Call { identity, sent: now, acked: false, fate, counts: true });
        self.first + self.calls.len() as u64 - 1
    }

    /// The number of a call of ours.
    fn number(&self, id: &str) -> Option<u64> {
        let (tag, number) = id.split_once('-')?;
        (u64::from_str_radix(tag, 16) == Ok(self.tag)).then(|| number.parse().ok())?
    }

    fn open_call(&mut self, from: &str, number: u64) -> Option<&mut Call> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let call = self.calls.get_mut(place)?;
        (call.fate == Fate::Open && *call.identity == *from).then_some(call)
    }

    fn given_up(&self, from: &str, number: u64) -> Option<usize> {
        self.given_up.iter().position(|(given_up, who)| (*given_up, &**who) == (number, from))
    }

    /// An answer of theirs to a call means something: it waits for it, or was given up.
    pub(super) fn knows(&mut self, from: &str, id: &str) -> bool {
        self.number(id).is_some_and(|number| {
            self.open_call(from, number).is_some() || self.given_up(from, number).is_some()
        })
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
        let Some(number) = self.number(id) else {
            counted.unasked += 1;
            return None;
        };
        let Some(call) = self.open_call(from, number) else {
            match self.given_up(from, number) {
                Some(place) => {
                    self.given_up.remove(place);
                    counted.late += 1;
                }
                None => counted.unasked += 1,
            }
            return None;
        };
        call.fate = match outcome {
            Outcome::Answered(_) => Fate::Answered,
            Outcome::Failed(_) => Fate::Failed,
        };
        let (counts, took) = (call.counts, at.saturating_duration_since(call.sent));
        self.open -= 1;
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

    /// When there is something to be said of a call: it has to be given up, or its timeout is over.
    pub(super) fn expires(&self) -> Option<Instant> {
        let ack = self.calls.get(self.past_ack).map(|call| call.sent + self.ack_within());
        let answer = self.calls.front().map(|call| call.sent + self.timeout);
        ack.into_iter().chain(answer).min()
    }

    fn ack_within(&self) -> Duration {
        RPC_ACK_WITHIN.min(self.timeout)
    }

    /// Gives up what took too long, and counts what became of those whose timeout is over.
    pub(super) fn expire(&mut self, now: Instant, counted: &mut RpcCounters) {
        let age = |call: &Call| now.saturating_duration_since(call.sent);
        let (ack_within, timeout) = (self.ack_within(), self.timeout);
        // As a client's timers have it: whichever ends first.
        while timeout > ack_within
            && let Some(call) = self.calls.get(self.past_ack)
            && age(call) >= ack_within
        {
            if call.fate == Fate::Open && !call.acked {
                counted.ack_timeouts += u64::from(call.counts);
                self.give_up(self.past_ack);
            }
            self.past_ack += 1;
        }
        while self.calls.front().is_some_and(|call| age(call) >= timeout) {
            if self.calls.front().is_some_and(|call| call.fate == Fate::Open) {
                let counts = self.calls.front().is_some_and(|call| call.counts);
                counted.response_timeouts += u64::from(counts);
                self.give_up(0);
            }
            let Some(call) = self.calls.pop_front() else { break };
            (self.first, self.past_ack) = (self.first + 1, self.past_ack.saturating_sub(1));
            if call.counts && call.fate != Fate::CutOff {
                counted.decided += 1;
                counted.decided_failed += u64::from(call.fate == Fate::Failed);
            }
        }
    }

    /// A call has failed, for it took too long.
    fn give_up(&mut self, place: usize) {
        let Some(call) = self.calls.get_mut(place) else { return };
        call.fate = Fate::Failed;
        self.open -= 1;
        if !call.counts {
            return;
        }
        if self.given_up.len() == GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
        self.given_up.push_back((self.first + place as u64, Arc::clone(&call.identity)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);
    const UNIX_MS: u64 = 1_700_000_000_000;

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
            let callee = self.calls.callee(self.now).unwrap();
            assert!(self.calls.call(self.now, callee, "echo", 10, UNIX_MS).is_some());
            let number = self.calls.first + self.calls.calls.len() as u64 - 1;
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
        assert_eq!(rig.answered("eve", &acked), None, "nor was she asked this");
        assert_eq!(rig.counted.late, 0);
        assert_eq!(rig.answered("bob", &acked), None);
        assert_eq!(rig.answered("bob", &acked), None);
        rig.call();
        rig.counted.called = 6;
        rig.counted.cut_off += rig.calls.parted("PA_1");
        let RpcCounters { answered, cut_off, late, acked, unasked, .. } = rig.counted;
        assert_eq!((answered, cut_off, late, acked, unasked), (2, 1, 1, 4, 5));
        assert_eq!(rig.counted.errors.unsupported_method, 1);
        assert_eq!(rig.counted.failed() + answered + cut_off, rig.counted.called);
        assert_eq!(rig.counted.failure_rate(), Some(3.0 / 5.0));
        rig.later(TIMEOUT);
        let RpcCounters { decided, decided_failed, .. } = rig.counted;
        assert_eq!((decided, decided_failed), (5, 3), "what is cut off is not decided");
        assert_eq!(rig.calls.open, 0);
        assert!(rig.calls.calls.is_empty() && rig.calls.expires().is_none());
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

    #[test]
    fn short_runs_do_not_look_better_than_long_ones() {
        let mut rig = Rig::new(TIMEOUT);
        // Each second two calls, of which one is never answered, for 20 s.
        for _ in 0..20 {
            let (good, _) = (rig.call(), rig.call());
            assert!(rig.answered("bob", &good).is_some());
            rig.later(Duration::from_secs(1));
        }
        let RpcCounters { answered, ack_timeouts, decided, decided_failed, .. } = rig.counted;
        assert_eq!((answered, ack_timeouts), (20, 14));
        assert_eq!((decided, decided_failed), (12, 6));
        assert_eq!(rig.counted.failure_rate(), Some(0.5));
        // Nor do those who leave: what they were answered at once is no more decided than the rest.
        assert_eq!(rig.calls.parted("PA_1"), 6);
        rig.later(TIMEOUT);
        assert_eq!(rig.counted.failure_rate(), Some(0.5));
        assert_eq!(rig.counted.decided, 12);
    }

    #[test]
    fn one_call_without_an_answer_does_not_stop_a_fast_caller() {
        let mut rig = Rig::new(TIMEOUT);
        rig.call();
        for _ in 0..2 * OPEN_CALLS_MAX {
            let id = rig.call();
            assert!(rig.answered("bob", &id).is_some());
        }
        assert_eq!(rig.calls.open, 1);
        // Those that are open are bounded.
        for _ in 1..OPEN_CALLS_MAX {
            rig.call();
        }
        let callee = rig.calls.callee(rig.now).unwrap();
        assert!(rig.calls.call(rig.now, callee, "echo", 10, UNIX_MS).is_none());
        rig.later(RPC_ACK_WITHIN);
        assert_eq!((rig.counted.ack_timeouts, rig.calls.open), (OPEN_CALLS_MAX as u64, 0));
        rig.call();
    }

    #[test]
    fn another_connection_never_uses_a_number_again() {
        let mut before = Rig::new(TIMEOUT);
        let old = before.call();
        let mut after = Rig::new(TIMEOUT);
        let callee = after.calls.callee(after.now).unwrap();
        assert!(after.calls.call(after.now, callee, "echo", 10, UNIX_MS + 1).is_some());
        assert_eq!(after.answered("bob", &old), None);
        assert_eq!(after.counted, RpcCounters { unasked: 1, ..RpcCounters::default() });
        assert_eq!(after.calls.open, 1);
    }
}
