//! How fast a participant is read. Pure: [`now`](Instant) is always an argument.

use std::time::Duration;

use stampede_http::TokenBucket;
use tokio::time::Instant;

use crate::hub::Caused;

/// What a participant may ask for a second, in tokens. A request costs one, and more the longer it is and
/// the more is sent to others for it. Over it the participant is read later, and nothing is lost. A client
/// that joins a room of 2,000 publishers and settles what it wants of each track asks 4,000 times in a few
/// seconds, and hardly ever again.
pub(super) const REQUESTS_PER_S: u32 = 1_000;
/// What it may ask for at once.
pub(super) const REQUESTS_BURST: u32 = 10_000;
/// Bytes of a frame that cost one more token: they are looked through, and decoded. Where publishers come to
/// a room one by one, a client of the single connection offers all m-lines anew for each of them.
const READ_BYTES_A_TOKEN: u64 = 4 << 10;
/// Bytes sent to others that cost one more: they are queued and written.
const TOLD_BYTES_A_TOKEN: u64 = 16 << 10;
/// Things asked of media workers that cost one more, such as a track to be sent to somebody.
const COMMANDS_A_TOKEN: u64 = 4;
/// Most tokens that one frame costs: whatever it asks for, its sender is heard again before it would be
/// taken for dead.
const COST_MAX: u64 = 10_000;
/// How long a participant is not read whose offers wait for a media worker, if none of them is answered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// What a frame of so many bytes costs that caused this.
pub(super) fn cost(read_bytes: usize, caused: Caused) -> u32 {
    let read = read_bytes as u64 / READ_BYTES_A_TOKEN;
    let told = caused.told_bytes / TOLD_BYTES_A_TOKEN;
    let cost = 1 + read + told + caused.commands / COMMANDS_A_TOKEN;
    cost.min(COST_MAX) as u32
}

/// The pace of one participant.
#[derive(Debug)]
pub(super) struct Pace {
    bucket: TokenBucket,
    /// Since when as many of its offers wait as may.
    offers_wait_since: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        let bucket = TokenBucket::new(REQUESTS_PER_S, REQUESTS_BURST);
        Self { bucket, offers_wait_since: None }
    }

    /// Until when it is not read, if that is still to come; `offers_wait` says whether as many of its offers
    /// wait for a media worker as may.
    pub(super) fn waits_until(&mut self, offers_wait: bool, now: Instant) -> Option<Instant> {
        if !offers_wait {
            self.offers_wait_since = None;
        }
        let offers = offers_wait.then(|| *self.offers_wait_since.get_or_insert(now));
        let offers = offers.map(|since| since + ANSWERED_WITHIN).filter(|until| *until > now);
        offers.max(self.bucket.waits_until(now))
    }

    /// A frame was read that cost so much.
    pub(super) fn read(&mut self, cost: u32, now: Instant) {
        self.bucket.take(cost, now);
        self.offers_wait_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_offers_is_read_again_when_it_is_answered_or_after_a_while() {
        let start = Instant::now();
        let mut pace = Pace::new();
        pace.read(1, start);
        assert_eq!(pace.waits_until(false, start), None);
        let until = Some(start + ANSWERED_WITHIN);
        assert_eq!(pace.waits_until(true, start), until);
        assert_eq!(pace.waits_until(true, start + ANSWERED_WITHIN / 2), until);
        assert_eq!(pace.waits_until(false, start + ANSWERED_WITHIN / 2), None);
        let again = start + ANSWERED_WITHIN;
        assert_eq!(pace.waits_until(true, again), Some(again + ANSWERED_WITHIN));
        let late = again + ANSWERED_WITHIN;
        assert_eq!(pace.waits_until(true, late), None);
        pace.read(1, late);
        assert_eq!(pace.waits_until(true, late), Some(late + ANSWERED_WITHIN), "one more");
        // What it owes counts, too.
        pace.read(2 * REQUESTS_BURST, late);
        assert_eq!(pace.waits_until(true, late), Some(late + Duration::from_millis(10_001)));
    }

    #[test]
    fn what_is_long_or_told_to_many_costs_more() {
        let caused = |told_bytes, commands| Caused { told_bytes, commands };
        assert_eq!((cost(0, caused(0, 0)), cost(4_095, caused(16_383, 3))), (1, 1));
        assert_eq!(cost(4_096, caused(16_384, 4)), 4);
        assert_eq!(cost(2 << 20, caused(u64::MAX / 2, u64::MAX / 2)), COST_MAX as u32);
    }
}
