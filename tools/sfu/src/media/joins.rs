//! What is still to be done for those who join: it waits while there is media to forward, but not for
//! ever. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::message::PeerKey;

/// Datagrams of those who join that wait at most. A join takes about eight of them.
const DATAGRAMS_MAX: usize = 8_192;

/// How long is worked on joins at a time: media that comes meanwhile is so much later.
const SLICE: Duration = Duration::from_millis(2);

/// So long joins wait where media never ends,
const WAIT_MAX: Duration = Duration::from_millis(100);
/// and so long is worked on them then.
const OVERDUE_SLICE: Duration = Duration::from_millis(25);

/// What waits of those who join, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    waiting: VecDeque<Joining>,
    /// Datagrams among it.
    datagrams: usize,
    dropped: u64,
    /// Since when something waits that was not worked on.
    since: Option<Instant>,
}

/// Something that is to be done for a peer, if the one at this index is still this one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joining {
    pub(crate) index: usize,
    pub(crate) peer: PeerKey,
    pub(crate) work: Work,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// It is to be given this datagram.
    Receive(Endpoint, Box<[u8]>),
    /// It is to see the time, and to negotiate what is due.
    Wake,
}

impl Joins {
    /// Lets a datagram wait. If too many do it is dropped and counted: ICE and DTLS repeat theirs.
    pub(crate) fn receive(&mut self, index: usize, peer: PeerKey, from: Endpoint, datagram: &[u8]) {
        if self.datagrams >= DATAGRAMS_MAX {
            self.dropped += 1;
            return;
        }
        self.datagrams += 1;
        self.waiting.push_back(Joining { index, peer, work: Work::Receive(from, datagram.into()) });
    }

    /// Lets a peer wait to be woken; to be asked for once until it was, so peers bound it.
    pub(crate) fn wake(&mut self, index: usize, peer: PeerKey) {
        self.waiting.push_back(Joining { index, peer, work: Work::Wake });
    }

    /// Takes what has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Joining> {
        let joining = self.waiting.pop_front()?;
        self.datagrams -= usize::from(matches!(joining.work, Work::Receive(..)));
        Some(joining)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Datagrams that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How long may be worked on joins now, of which something waits; `None` if it is to wait for
    /// media that is to be forwarded.
    pub(crate) fn time(&mut self, now: Instant, media_waits: bool) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        match media_waits {
            false => Some(SLICE),
            true => (now.saturating_duration_since(since) >= WAIT_MAX).then_some(OVERDUE_SLICE),
        }
    }

    /// It was worked on joins.
    pub(crate) fn worked(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> Endpoint {
        Endpoint::udp(([127, 0, 0, 1], 1).into())
    }

    #[test]
    fn joins_wait_for_media_but_not_for_ever() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut joins = Joins::default();
        assert_eq!(joins.time(at(0), false), Some(SLICE));
        joins.worked();
        assert_eq!(joins.time(at(1_000), true), None, "it has only just come");
        assert_eq!(joins.time(at(1_099), true), None);
        assert_eq!(joins.time(at(1_100), true), Some(OVERDUE_SLICE));
        joins.worked();
        assert_eq!(joins.time(at(1_125), true), None);
        assert_eq!(joins.time(at(1_130), false), Some(SLICE), "media is through");
        joins.worked();
        // Of media without end they have a fifth of the time.
        let mut worked = Duration::ZERO;
        let mut now = start;
        while now < at(10_000) {
            match joins.time(now, true) {
                Some(time) => {
                    worked += time;
                    now += time;
                    joins.worked();
                }
                None => now += Duration::from_millis(1),
            }
        }
        assert_eq!(worked, Duration::from_secs(2));
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_the_rest_comes_in_order() {
        let mut joins = Joins::default();
        for n in 0..DATAGRAMS_MAX {
            joins.receive(n, PeerKey(n as u64), from(), &[n as u8]);
        }
        assert_eq!(joins.dropped(), 0);
        joins.receive(1, PeerKey(1), from(), &[1]);
        assert_eq!(joins.dropped(), 1);
        joins.wake(7, PeerKey(7));
        for n in 0..DATAGRAMS_MAX {
            let Some(Joining { index, work: Work::Receive(_, bytes), .. }) = joins.pop() else {
                panic!("{n} is missing");
            };
            assert_eq!((index, &bytes[..]), (n, &[n as u8][..]));
        }
        joins.receive(2, PeerKey(2), from(), &[]);
        assert_eq!(joins.pop(), Some(Joining { index: 7, peer: PeerKey(7), work: Work::Wake }));
        assert!(joins.pop().is_some_and(|joining| joining.index == 2));
        assert!(joins.pop().is_none() && joins.is_empty());
    }
}
