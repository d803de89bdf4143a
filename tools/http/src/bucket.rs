//! How much of something somebody may do. Pure: [`now`](Instant) is always an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket. What is done costs tokens, which come back at a rate; as many as the bucket holds can be
/// spent at once. The last that is done may cost more than there is: the next then waits for longer.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    /// How long it takes until there is one more.
    token: Duration,
    /// How long it takes until the bucket is full.
    fill: Duration,
    /// When it is full.
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// A full one.
    #[must_use]
    pub fn new(tokens_per_s: u32, tokens_max: u32) -> Self {
        let token = Duration::from_secs(1) / tokens_per_s.max(1);
        Self { token, fill: token * tokens_max, full_at: None }
    }

    /// Takes so many tokens.
    pub fn take(&mut self, tokens: u32, now: Instant) {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        self.full_at = Some(full_at + self.token * tokens);
    }

    /// Until when nothing may be done, if that is still to come.
    #[must_use]
    pub fn waits_until(&self, now: Instant) -> Option<Instant> {
        let full_at = self.full_at?;
        let missing = full_at.saturating_duration_since(now);
        let wait = missing.checked_sub(self.fill).filter(|wait| !wait.is_zero())?;
        Some(now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_is_spent_at_once_and_the_rest_as_it_comes_back() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut bucket = TokenBucket::new(100, 20);
        for _ in 0..20 {
            assert_eq!(bucket.waits_until(start), None);
            bucket.take(1, start);
        }
        bucket.take(1, start);
        assert_eq!(bucket.waits_until(start), Some(at(10)));
        assert_eq!((bucket.waits_until(at(9)), bucket.waits_until(at(10))), (Some(at(10)), None));
        // More than it holds.
        bucket.take(50, at(10));
        assert_eq!(bucket.waits_until(at(10)), Some(at(510)));
        // It never holds more than it does.
        bucket.take(20, at(60_000));
        assert_eq!(bucket.waits_until(at(60_000)), None);
        bucket.take(1, at(60_000));
        assert_eq!(bucket.waits_until(at(60_000)), Some(at(60_010)));
    }
}
