//! What is still to be done for those who join: it waits while there is media to forward, but not for
//! ever. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::endpoint::Endpoint;
use super::message::PeerKey;

/// Datagrams of those who join that wait at most.
const DATAGRAMS_MAX: usize = 8_192;
/// Of one of them. A join takes about as many in all, so more are what its client repeats.
const PEER_DATAGRAMS_MAX: usize = 8;

/// How long is worked on joins at a time: media that comes meanwhile is so much later.
const SLICE: Duration = Duration::from_millis(2);

/// So long joins wait where media never ends,
const WAIT_MAX: Duration = Duration::from_millis(100);
/// and so long is worked on them then.
const OVERDUE_SLICE: Duration = Duration::from_millis(25);

/// What waits of those who join, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    waiting: VecDeque<Turn>,
    /// Datagrams that `waiting` was made longer for.
    turns: usize,
    datagrams: FxHashMap<PeerKey, VecDeque<Received>>,
    dropped: u64,
    /// When it was first found that something waits that was not worked on.
    since: Option<Instant>,
}

/// Whose turn it is, and whether to be woken; else the first of its datagrams is given to it, if one is
/// left.
#[derive(Debug, Clone, Copy)]
struct Turn {
    index: usize,
    peer: PeerKey,
    wakes: bool,
}

/// Where a datagram came from, and what it was.
pub(crate) type Received = (Endpoint, Box<[u8]>);

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
    /// Lets a datagram wait. If too many do, or too many of this peer, it is dropped and counted: ICE
    /// and DTLS repeat theirs.
    pub(crate) fn receive(&mut self, index: usize, peer: PeerKey, from: Endpoint, datagram: &[u8]) {
        let of_peer = self.datagrams.get(&peer).map_or(0, VecDeque::len);
        if self.turns >= DATAGRAMS_MAX || of_peer >= PEER_DATAGRAMS_MAX {
            self.dropped += 1;
            return;
        }
        self.turns += 1;
        self.waiting.push_back(Turn { index, peer, wakes: false });
        self.datagrams.entry(peer).or_default().push_back((from, datagram.into()));
    }

    /// Lets a peer wait to be woken; to be asked for once until it was, so peers bound it.
    pub(crate) fn wake(&mut self, index: usize, peer: PeerKey) {
        self.waiting.push_back(Turn { index, peer, wakes: true });
    }

    /// Takes what has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Joining> {
        loop {
            let Turn { index, peer, wakes } = self.waiting.pop_front()?;
            if wakes {
                return Some(Joining { index, peer, work: Work::Wake });
            }
            self.turns -= 1;
            let Some(datagrams) = self.datagrams.get_mut(&peer) else { continue };
            let first = datagrams.pop_front();
            if datagrams.is_empty() {
                self.datagrams.remove(&peer);
            }
            if let Some((from, datagram)) = first {
                return Some(Joining { index, peer, work: Work::Receive(from, datagram) });
            }
        }
    }

    /// Takes the datagrams of a peer that has joined, oldest first: what it sends from now on does not
    /// wait, and is not to overtake them.
    pub(crate) fn take_datagrams(&mut self, peer: PeerKey) -> Option<VecDeque<Received>> {
        if self.turns == 0 { None } else { self.datagrams.remove(&peer) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Datagrams that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How long may be worked on joins now; `None` if they are to wait for media that is to be forwarded.
    /// Since when they wait counts from the first call after they were [`worked`](Self::worked) on.
    pub(crate) fn time(&mut self, now: Instant, media_waits: bool) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        match media_waits {
            false => Some(SLICE),
            true => (now.saturating_duration_since(since) >= WAIT_MAX).then_some(OVERDUE_SLICE),
        }
    }

    /// It was worked on joins, or there is nothing to work on.
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
        assert_eq!(joins.turns, 0);
        joins.receive(2, PeerKey(2), from(), &[]);
        assert_eq!(joins.pop(), Some(Joining { index: 7, peer: PeerKey(7), work: Work::Wake }));
        assert!(joins.pop().is_some_and(|joining| joining.index == 2));
        assert!(joins.pop().is_none() && joins.is_empty());
    }

    #[test]
    fn who_repeats_takes_no_more_room_than_a_join_needs() {
        let mut joins = Joins::default();
        for n in 0..=PEER_DATAGRAMS_MAX {
            joins.receive(1, PeerKey(1), from(), &[n as u8]);
        }
        joins.receive(2, PeerKey(2), from(), &[100]);
        assert_eq!(joins.dropped(), 1);
        let bytes = |joins: &mut Joins| match joins.pop()?.work {
            Work::Receive(_, bytes) => Some(bytes[0]),
            Work::Wake => None,
        };
        assert_eq!(bytes(&mut joins), Some(0), "the newest was dropped");
        joins.receive(1, PeerKey(1), from(), &[50]);
        assert_eq!(joins.dropped(), 1, "there is room again");
        // The first has joined.
        let rest = joins.take_datagrams(PeerKey(1)).into_iter().flatten();
        assert!(rest.map(|(_, bytes)| bytes[0]).eq((1..8).chain([50])));
        assert!(joins.take_datagrams(PeerKey(1)).is_none());
        assert_eq!(bytes(&mut joins), Some(100));
        assert_eq!(bytes(&mut joins), None);
        assert!(joins.is_empty() && joins.datagrams.is_empty() && joins.turns == 0);
    }
}
