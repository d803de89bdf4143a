//! Engine events to the tasks they are for.
//!
//! One task reads the engine's channel whenever its eventfd is readable. What only needs counting
//! (phases) goes to the join statistics at once; only what a participant must act on wakes its task.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use stampede_engine::{EngineEvent, PeerId, PeerNotice};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::context::Context;
use crate::joins::JoinPhase;
use crate::routes::Workers;

/// Events handled before other tasks get a turn.
const EVENTS_A_TURN: usize = 1_024;

/// Routes the events that `next` gives and `fd` announces until the engine is gone.
///
/// # Errors
/// Those of the eventfd.
pub(crate) async fn route(
    context: Rc<Context>,
    workers: Rc<RefCell<Workers>>,
    fd: OwnedFd,
    next: impl Fn() -> Option<EngineEvent>,
) -> io::Result<()> {
    // Deprecated because a type may give out another descriptor later; an `OwnedFd` never does,
    // and the successor is `unsafe`, which this crate forbids.
    #[allow(deprecated)]
    let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
    loop {
        let mut ready = fd.readable().await?;
        let mut count = [0; 8];
        match rustix::io::read(fd.get_ref(), &mut count) {
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::AGAIN => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        loop {
            // What is left then is for whoever stops the engine.
            if context.engine().is_none() {
                return Ok(());
            }
            if !take_turn(&next, |event| handle(&context, &workers, event)) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Handles what there is, up to [`EVENTS_A_TURN`]; whether there may be more.
fn take_turn<T>(next: impl Fn() -> Option<T>, handle: impl FnMut(T)) -> bool {
    std::iter::from_fn(next).take(EVENTS_A_TURN).map(handle).count() == EVENTS_A_TURN
}

/// Brings one event to whom it is for.
pub(crate) fn handle(context: &Context, workers: &RefCell<Workers>, event: EngineEvent) {
    match event {
        EngineEvent::Peer { peer, at_unix_ns, notice } => {
            peer_notice(context, peer, at_unix_ns, notice);
        }
        EngineEvent::Cover(news) => context.audience.borrow_mut().covers(*news),
        EngineEvent::Snapshot(snapshot) => workers.borrow_mut().keep(*snapshot),
        EngineEvent::Captured(peers) => workers.borrow_mut().captured.extend(peers),
        EngineEvent::Totals { tag, totals, .. } => {
            let mut workers = workers.borrow_mut();
            let (answers, sum) = workers.readings.entry(tag).or_default();
            *answers += 1;
            sum.merge(&totals);
            context.changed.notify_waiters();
        }
        EngineEvent::WorkerFailed { worker, reason } => {
            tracing::error!("worker {worker} ended: {reason}");
            workers.borrow_mut().failed.push(format!("worker {worker} ended: {reason}"));
            context.changed.notify_waiters();
        }
    }
}

fn peer_notice(context: &Context, peer: PeerId, at_unix_ns: u64, notice: PeerNotice) {
    let mut routes = context.routes.borrow_mut();
    let Some(route) = routes.of(peer) else { return };
    let reached = |phase| {
        let since = context.clock.since(route.scheduled, at_unix_ns);
        context.joins.borrow_mut().reached(route.participant, phase, since);
    };
    let all_reached = |phase| route.inbox.all_reached(route.target, phase);
    match &notice {
        PeerNotice::IceConnected if all_reached(JoinPhase::Ice) => reached(JoinPhase::Ice),
        PeerNotice::Path { path } => {
            return context.joins.borrow_mut().path(route.participant, *path);
        }
        PeerNotice::LastFrame { at_unix_ns } => {
            if let Some(at_unix_ns) = at_unix_ns {
                context.recoveries.borrow_mut().last_frame(route.participant, *at_unix_ns);
            }
            return;
        }
        PeerNotice::NextFrame => {
            return context.recoveries.borrow_mut().frame(route.participant, at_unix_ns);
        }
        PeerNotice::Speaks { loud } => {
            let at = context.clock.moment(at_unix_ns);
            return context.signalled.borrow_mut().speaks(route.participant, *loud, at);
        }
        PeerNotice::FirstPacket { .. } => {
            reached(JoinPhase::FirstPacket);
            return context.changed.notify_waiters();
        }
        PeerNotice::FirstKeyframe => {
            reached(JoinPhase::FirstKeyframe);
            return context.changed.notify_waiters();
        }
        PeerNotice::Connected if all_reached(JoinPhase::Dtls) => {
            reached(JoinPhase::Dtls);
            context.changed.notify_waiters();
        }
        PeerNotice::IceConnected
        | PeerNotice::Connected
        | PeerNotice::Answer { .. }
        | PeerNotice::Offer { .. }
        | PeerNotice::NegotiationFailed { .. }
        | PeerNotice::LocalCandidate { .. }
        | PeerNotice::BackupRefused { .. }
        | PeerNotice::Disconnected { .. } => {}
        PeerNotice::Closed => {
            routes.remove(peer);
            // Its last news came before.
            context.audience.borrow_mut().peer_closed(peer);
            return;
        }
    }
    route.inbox.tell((route.target, notice));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn so_many_events_are_handled_before_others_have_a_turn() {
        let left = Cell::new(EVENTS_A_TURN + 3);
        let next = || {
            let number = left.get();
            left.set(number.saturating_sub(1));
            (number > 0).then_some(number)
        };
        let mut handled = Vec::new();
        assert!(take_turn(next, |number| handled.push(number)));
        assert_eq!((handled.len(), left.get()), (EVENTS_A_TURN, 3));
        assert!(!take_turn(next, |number| handled.push(number)));
        assert_eq!(handled[EVENTS_A_TURN..], [3, 2, 1]);
    }
}
