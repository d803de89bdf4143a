//! Who is let in, and who makes room. Pure: [`now`](Instant) is always an argument.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use tokio::task::{AbortHandle, Id};
use tokio::time::Instant;

use crate::{GRACE, Limits};

/// The connections that are spoken HTTP on.
pub(crate) struct Gate {
    limits: Limits,
    /// Of each source that has any, the oldest first.
    by_source: HashMap<IpAddr, VecDeque<Visitor>>,
    sources: HashMap<Id, IpAddr>,
}

struct Visitor {
    since: Instant,
    task: AbortHandle,
}

/// Whether there is room for a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is.
    Free,
    /// There is once this one is displaced, which may be.
    Of(Id),
    /// Somebody may be displaced then.
    At(Instant),
}

/// What is counted as one source: an IPv4 address, or the /64 of an IPv6 address, which is what one host has.
#[must_use]
pub fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let network = ip.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, by_source: HashMap::new(), sources: HashMap::new() }
    }

    /// Whether there is room for somebody from there.
    pub(crate) fn room(&self, ip: IpAddr, now: Instant) -> Room {
        let own = self.by_source.get(&source(ip));
        let own_count = own.map_or(0, VecDeque::len);
        let oldest = if own_count >= self.limits.source_connections_max {
            own.and_then(VecDeque::front)
        } else if self.sources.len() >= self.limits.connections_max {
            self.oldest_of_most()
        } else {
            return Room::Free;
        };
        // Both limits are at least one, so there is one where they are reached.
        let Some(oldest) = oldest else { return Room::Free };
        match oldest.since + GRACE {
            until if until <= now => Room::Of(oldest.task.id()),
            until => Room::At(until),
        }
    }

    /// Who may be displaced to get a descriptor back.
    pub(crate) fn displaceable(&self, now: Instant) -> Option<Id> {
        let oldest = self.oldest_of_most()?;
        (oldest.since + GRACE <= now).then(|| oldest.task.id())
    }

    /// The oldest of the source that has most; of several sources, of all of theirs.
    fn oldest_of_most(&self) -> Option<&Visitor> {
        let fronts = self.by_source.values().filter_map(|all| Some((all.len(), all.front()?)));
        fronts.max_by_key(|(count, front)| (*count, Reverse(front.since))).map(|(_, front)| front)
    }

    /// One more, served by this task.
    pub(crate) fn enter(&mut self, ip: IpAddr, now: Instant, task: AbortHandle) {
        let source = source(ip);
        self.sources.insert(task.id(), source);
        self.by_source.entry(source).or_default().push_back(Visitor { since: now, task });
    }

    /// It has ended or was upgraded.
    pub(crate) fn leave(&mut self, task: Id) {
        self.take(task);
    }

    /// Ends it.
    pub(crate) fn displace(&mut self, task: Id) {
        if let Some(visitor) = self.take(task) {
            visitor.task.abort();
        }
    }

    fn take(&mut self, task: Id) -> Option<Visitor> {
        let source = self.sources.remove(&task)?;
        let all = self.by_source.get_mut(&source)?;
        let at = all.iter().position(|visitor| visitor.task.id() == task)?;
        let visitor = all.remove(at);
        if all.is_empty() {
            self.by_source.remove(&source);
        }
        visitor
    }
}
