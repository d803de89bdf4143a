//! When a participant makes its next update of itself.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::Sleep;

use crate::clock::now;
use crate::joins::ParticipantId;

/// 2^64 over the golden ratio: multiples of it lie far apart, so that not all make theirs at once.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// A schedule of updates, or none. Boxed, for few participants have one.
pub(super) struct Updates(Option<(Duration, Pin<Box<Sleep>>)>);

impl Updates {
    /// One each time that so much has passed; the first within as long.
    pub(super) fn new(every: Option<Duration>, id: ParticipantId) -> Self {
        Self(every.map(|every| {
            let place = (id.0 as u64).wrapping_mul(GOLDEN_RATIO) as f64 / u64::MAX as f64;
            (every, Box::pin(tokio::time::sleep(every.mul_f64(place))))
        }))
    }

    /// Waits for the next one. Those that were not waited for in time are left out. Cancel-safe.
    pub(super) async fn due(&mut self) {
        let Some((every, sleep)) = &mut self.0 else { return std::future::pending().await };
        sleep.as_mut().await;
        let due = sleep.deadline();
        let late = now().saturating_duration_since(due.into_std());
        let behind = late.as_nanos() / every.as_nanos().max(1);
        let passed = u32::try_from(behind).unwrap_or(u32::MAX).saturating_add(1);
        sleep.as_mut().reset(due + every.saturating_mul(passed));
    }
}
