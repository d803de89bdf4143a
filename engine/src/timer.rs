//! A hashed timer wheel with one pending entry a peer.
//!
//! A peer's deadline moves with nearly every packet, mostly later. So the wheel is lazy: a peer
//! keeps its true deadline, the wheel keeps one entry no later than it, and an entry that fires
//! early is put back. Setting a later deadline costs a compare, nothing else.

use std::time::{Duration, Instant};

/// Slots; deadlines further away than this many ticks are parked in the last slot and looked at
/// again from there.
const SLOTS: u64 = 2_048;

/// State of one timer, kept by its owner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimerState {
    /// When the owner wants to be woken.
    pub(crate) deadline: Instant,
    /// Tick of its live entry; entries of other ticks are stale.
    armed_tick: u64,
}

impl TimerState {
    pub(crate) fn new(deadline: Instant) -> Self {
        Self { deadline, armed_tick: u64::MAX }
    }
}

/// The wheel. Keys are the owner's; a key whose owner is gone is skipped by the caller.
#[derive(Debug)]
pub(crate) struct TimerWheel {
    origin: Instant,
    /// Resolution.
    tick_ns: u64,
    /// Ticks below this have been fired.
    next_tick: u64,
    slots: Vec<Vec<u32>>,
    entries: usize,
}

impl TimerWheel {
    /// A timer fires at most one `tick` after its deadline, if its owner looks often enough.
    pub(crate) fn new(now: Instant, tick: Duration) -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        let tick_ns = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { origin: now, tick_ns, next_tick: 0, slots, entries: 0 }
    }

    /// The tick of this moment, and whether it began before.
    fn tick_of(&self, at: Instant) -> (u64, bool) {
        let since = at.saturating_duration_since(self.origin).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        (since / self.tick_ns, !since.is_multiple_of(self.tick_ns))
    }

    /// The first tick that begins at or after `at`: a timer never fires early.
    fn tick_at_or_after(&self, at: Instant) -> u64 {
        let (tick, has_begun) = self.tick_of(at);
        tick + u64::from(has_begun)
    }

    /// Moves a timer's deadline, making sure an entry exists no later than it.
    pub(crate) fn set(&mut self, key: u32, state: &mut TimerState, deadline: Instant) {
        state.deadline = deadline;
        let wanted = self.tick_at_or_after(deadline).max(self.next_tick);
        let tick = wanted.min(self.next_tick + SLOTS - 1);
        if tick < state.armed_tick {
            state.armed_tick = tick;
            self.slots[(tick % SLOTS) as usize].push(key);
            self.entries += 1;
        }
    }

    /// No timer is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Time until the next entry, at most `limit`.
    pub(crate) fn wait(&self, now: Instant, limit: Duration) -> Duration {
        if self.entries == 0 {
            return limit;
        }
        let limit_tick = self.tick_at_or_after(now + limit).min(self.next_tick + SLOTS - 1);
        for tick in self.next_tick..=limit_tick {
            if !self.slots[(tick % SLOTS) as usize].is_empty() {
                let since = Duration::from_nanos(tick.saturating_mul(self.tick_ns));
                return (self.origin + since).saturating_duration_since(now).min(limit);
            }
        }
        limit
    }

    /// Takes the keys of all entries due at `now` into `fired` together with their tick, which
    /// [`Self::take`] needs.
    pub(crate) fn advance(&mut self, now: Instant, fired: &mut Vec<(u32, u64)>) {
        let (now_tick, _) = self.tick_of(now);
        if now_tick < self.next_tick {
            return;
        }
        // After a long pause every slot is due once, not once a lap.
        let last = now_tick.min(self.next_tick + SLOTS - 1);
        for tick in self.next_tick..=last {
            let slot = &mut self.slots[(tick % SLOTS) as usize];
            self.entries -= slot.len();
            fired.extend(slot.drain(..).map(|key| (key, tick)));
        }
        self.next_tick = now_tick + 1;
    }

    /// Whether a fired entry is the timer's live one; if so it is spent and the caller must
    /// [`set`](Self::set) the timer again.
    pub(crate) fn take(state: &mut TimerState, tick: u64) -> bool {
        if state.armed_tick != tick {
            return false;
        }
        state.armed_tick = u64::MAX;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn fire(wheel: &mut TimerWheel, state: &mut TimerState, now: Instant) -> bool {
        let mut fired = Vec::new();
        wheel.advance(now, &mut fired);
        fired.iter().any(|&(_, tick)| TimerWheel::take(state, tick))
    }

    #[test]
    fn fires_at_its_deadline_and_never_before() {
        let start = Instant::now();
        let mut wheel = TimerWheel::new(start, ms(1));
        let mut state = TimerState::new(start);
        wheel.set(7, &mut state, start + ms(10));
        assert!(!fire(&mut wheel, &mut state, start + ms(9)));
        assert_eq!(wheel.wait(start + ms(9), ms(100)), ms(1));
        assert!(fire(&mut wheel, &mut state, start + ms(10)));
        assert_eq!(wheel.wait(start + ms(10), ms(100)), ms(100));
    }

    #[test]
    fn a_deadline_moved_later_keeps_its_entry_and_an_earlier_one_wins() {
        let start = Instant::now();
        let mut wheel = TimerWheel::new(start, ms(1));
        let mut state = TimerState::new(start);
        wheel.set(1, &mut state, start + ms(20));
        wheel.set(1, &mut state, start + ms(50));
        assert_eq!(wheel.entries, 1);
        assert!(fire(&mut wheel, &mut state, start + ms(20)), "the early entry is looked at");
        wheel.set(1, &mut state, start + ms(50));
        wheel.set(1, &mut state, start + ms(30));
        assert!(fire(&mut wheel, &mut state, start + ms(30)));
        assert!(!fire(&mut wheel, &mut state, start + ms(60)), "the later entry is stale");
    }

    #[test]
    fn far_deadlines_are_parked_and_seen_again() {
        let start = Instant::now();
        let mut wheel = TimerWheel::new(start, ms(1));
        let mut state = TimerState::new(start);
        let far = start + ms(10 * SLOTS);
        wheel.set(1, &mut state, far);
        let mut now = start;
        let mut looks = 0;
        while now < far {
            now += ms(1);
            if fire(&mut wheel, &mut state, now) {
                looks += 1;
                if state.deadline > now {
                    let deadline = state.deadline;
                    wheel.set(1, &mut state, deadline);
                } else {
                    break;
                }
            }
        }
        assert_eq!(now, far);
        assert!((10..=12).contains(&looks), "{looks}");
    }

    #[test]
    fn a_run_may_be_longer_than_49_days() {
        let start = Instant::now();
        let mut wheel = TimerWheel::new(start, ms(1));
        let now = start + Duration::from_secs(60 * 86_400);
        wheel.advance(now, &mut Vec::new());
        let mut state = TimerState::new(now);
        wheel.set(1, &mut state, now + ms(10));
        assert_eq!(wheel.wait(now, ms(100)), ms(10));
    }

    #[test]
    fn a_long_pause_fires_everything_once() {
        let start = Instant::now();
        let mut wheel = TimerWheel::new(start, ms(1));
        let mut states: Vec<_> = (0..100).map(|_| TimerState::new(start)).collect();
        for (key, state) in states.iter_mut().enumerate() {
            wheel.set(key as u32, state, start + ms(key as u64 * 13));
        }
        let mut fired = Vec::new();
        wheel.advance(start + ms(SLOTS * 5), &mut fired);
        fired.sort_unstable();
        assert_eq!(fired.len(), 100);
        for (key, tick) in fired {
            assert!(TimerWheel::take(&mut states[key as usize], tick));
        }
    }
}
