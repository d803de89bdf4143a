//! What one participant is told from outside, besides its server.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use stampede_signaling::session::Simulation;
use tokio::sync::Notify;

use crate::recoveries::FaultId;

/// Most orders that wait for a participant; one more is refused, as if it were not there.
const ORDERS_MAX: usize = 16;
/// How long after a fault it is put down to that fault that a path breaks: what we break ourselves
/// is broken at once,
const AT_ONCE: Duration = Duration::from_secs(2);
/// a server does what it is asked to within this time,
const SERVER_ACTS_WITHIN: Duration = Duration::from_secs(10);
/// a websocket that is silent for less than this is not given up,
const PINGS_MISSED_WITHIN: Duration = Duration::from_secs(15);
/// and a silence is noticed by pings after 15 s, by ICE after 25 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// Something done on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// Which `--fault` it belongs to.
    pub fault: FaultId,
    /// What.
    pub what: What,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The websocket's TCP connection is reset.
    SignalDrop,
    /// Nothing is read from or written to the websocket for so long.
    SignalStall(Duration),
    /// It goes on from a new UDP port, and its websocket is lost.
    NetworkChange,
    /// Nothing goes out or comes in for so long.
    Outage(Duration),
    /// It leaves, and joins again after so long.
    LeaveRejoin(Duration),
    /// The server is asked to do this to it.
    Simulate(Simulation),
    /// The server was asked to move it to another room.
    Moving,
}

impl What {
    /// The server is asked to send it away for good.
    pub(crate) fn sends_away(self) -> bool {
        self == Self::Simulate(Simulation::ServerLeave)
    }

    /// It breaks the way back itself, of a path that something else broke.
    pub(crate) fn acts_on_return(self) -> bool {
        matches!(
            self,
            Self::Simulate(
                Simulation::DisconnectSignalOnResume
                    | Simulation::DisconnectSignalOnResumeNoMessages
            )
        )
    }

    /// What breaks within this time after it was over is put down to it, until the path stands
    /// again.
    pub(crate) fn blamed_for(self) -> Duration {
        match self {
            // They break nothing.
            Self::Simulate(
                Simulation::SpeakerUpdate { .. } | Simulation::SubscriberBandwidth { .. },
            ) => Duration::ZERO,
            // Broken by ourselves, there and then.
            Self::SignalDrop | Self::NetworkChange | Self::LeaveRejoin(_) => AT_ONCE,
            // A candidate that there is not: ICE finds that out.
            Self::Simulate(Simulation::SwitchCandidateProtocol(_)) => NOTICED_WITHIN,
            Self::Simulate(_) | Self::Moving if !self.acts_on_return() => SERVER_ACTS_WITHIN,
            // Lost pings and checks are noticed only then.
            _ => NOTICED_WITHIN,
        }
    }

    /// A pong after it shows that it broke nothing: it was too short for the pings to miss it.
    pub(crate) fn is_over_by_pong(self) -> bool {
        let span = self.lasts();
        !span.is_zero() && span < PINGS_MISSED_WITHIN
    }

    /// How long it lasts.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Self::SignalStall(span) | Self::Outage(span) => span,
            _ => Duration::ZERO,
        }
    }
}

/// Where the server has a participant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// As whom.
    pub identity: String,
    /// In which room.
    pub room: Rc<str>,
}

/// The way to one participant.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Where it stood last.
    place: RefCell<Place>,
    leaves: Cell<bool>,
    /// It stands, so that something can be done to it.
    stands: Cell<bool>,
    waiting: RefCell<VecDeque<Order>>,
    wake: Notify,
    leave: Notify,
}

impl Orders {
    /// It is to leave now, before the others.
    pub(crate) fn leave(&self) {
        self.leaves.set(true);
        self.leave.notify_one();
    }

    /// True if it was told to leave.
    pub(crate) fn leaves(&self) -> bool {
        self.leaves.get()
    }

    /// Waits until it is told to leave.
    pub(crate) async fn told_to_leave(&self) {
        while !self.leaves.get() {
            self.leave.notified().await;
        }
    }

    /// It stands there now.
    pub(crate) fn is_known_as(&self, identity: &str, room: &Rc<str>) {
        let mut place = self.place.borrow_mut();
        identity.clone_into(&mut place.identity);
        place.room.clone_from(room);
    }

    /// Where it stood last; nowhere if it never did.
    pub(crate) fn place(&self) -> Place {
        self.place.borrow().clone()
    }

    /// Whether something can be done to it: it is connected and not on its way back.
    pub(crate) fn stands(&self, stands: bool) {
        self.stands.set(stands);
    }

    /// True if something can be done to it now.
    pub(crate) fn can_be_hit(&self) -> bool {
        self.stands.get() && !self.leaves.get()
    }

    /// Gives an order; false if it can't be carried out now.
    pub(crate) fn give(&self, order: Order) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if !self.can_be_hit() || waiting.len() >= ORDERS_MAX {
            return false;
        }
        waiting.push_back(order);
        self.wake.notify_one();
        true
    }

    /// The next order. Cancel-safe.
    pub(crate) async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.waiting.borrow_mut().pop_front() {
                return order;
            }
            self.wake.notified().await;
        }
    }

    /// Takes back what was not carried out: it does not stand any more.
    pub(crate) fn take_back(&self) -> VecDeque<Order> {
        self.stands.set(false);
        std::mem::take(&mut self.waiting.borrow_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_for_who_stands_and_bounded() {
        let orders = Orders::default();
        let order = Order { fault: FaultId(0), what: What::SignalDrop };
        assert!(!orders.give(order), "it is not connected");
        orders.stands(true);
        let given = (0..ORDERS_MAX + 1).filter(|_| orders.give(order)).count();
        assert_eq!(given, ORDERS_MAX);
        assert_eq!(orders.take_back().len(), ORDERS_MAX);
        assert!(!orders.can_be_hit() && !orders.give(order));
        orders.stands(true);
        orders.leave();
        assert!(orders.leaves() && !orders.give(order));
    }
}
