//! What is asked of a peer whose connection is broken, by whatever or on purpose: its last frame, the
//! next one, and that nothing leaves.

use std::time::{Duration, Instant};

use super::Peer;
use crate::Arrival;

impl Peer {
    /// Until then nothing leaves; it is counted ([`ImpairCounters::unsent`]). The later of two calls
    /// is in force. What comes in meanwhile is for the caller to keep from it.
    ///
    /// [`ImpairCounters::unsent`]: stampede_counters::ImpairCounters::unsent
    pub fn cut_off_until(&mut self, until: Instant) {
        self.outbox.cut_off_until = Some(until);
    }

    /// When the last frame came or left, in nanoseconds since the Unix epoch. Of who receives the
    /// kernel's stamp of the last playable one, of whatever stream, also of one that is gone; if
    /// none was playable, of the last packet with payload. Of who has received nothing the last one
    /// that it sent and that had a way: ICE was connected, and nothing cut it off. `None` if there
    /// was none. `here` is this moment on both clocks.
    pub fn last_frame_unix_ns(&self, here: Arrival) -> Option<u64> {
        let received = self.receiving.as_ref().and_then(|receiving| receiving.streams.last_frame());
        if let Some(at) = received {
            return Some(at.unix_ns);
        }
        let left = self.publishing.as_ref()?.last_frame()?;
        let ago = here.instant.saturating_duration_since(left);
        Some(here.unix_ns.saturating_sub(nanoseconds(ago)))
    }

    /// Tells the first playable frame that comes after this moment, or, of who sends and has received
    /// nothing, the first that is sent and has a way: once, as [`PeerEvent::NextFrame`](crate::PeerEvent). A
    /// second call takes the place of the first.
    pub fn await_frame(&mut self, here: Arrival) {
        match (&mut self.receiving, &mut self.publishing) {
            (Some(receiving), publishing)
                if publishing.is_none() || receiving.streams.last_frame().is_some() =>
            {
                receiving.streams.await_frame(here.instant);
            }
            (_, Some(publishing)) => publishing.await_frame(here),
            (_, None) => {}
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
