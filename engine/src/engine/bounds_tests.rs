//! What an engine does when a worker takes no more.

use stampede_core::PeerRole;
use stampede_udp::BackendChoice;

use super::*;

/// An engine with a worker that has so much room and does nothing, and what it is told.
fn engine(commands_max: usize, peers_per_worker_max: usize) -> (Engine, Receiver<WorkerCommand>) {
    let options = EngineOptions { commands_max, peers_per_worker_max, ..EngineOptions::default() };
    let limits = BackendLimits::default();
    let (udp, backend) = stampede_udp::open(BackendChoice::Mmsg, limits).unwrap();
    let (commands, inbox) = crossbeam_channel::bounded(commands_max);
    let worker = WorkerHandle {
        mailbox: Mailbox::new(commands, udp.waker()),
        peers: Arc::default(),
        next_serial: AtomicU32::new(0),
        thread: std::thread::spawn(|| None),
    };
    let (_, receiver) = crossbeam_channel::bounded(1);
    let events = EventSource { receiver, signal: EventSignal::new().unwrap() };
    let (workers, learned) = (vec![worker], LearnedIp::default());
    (Engine { options, backend, workers, events, disk: None, learned }, inbox)
}

fn spec() -> PeerSpec {
    let role = PeerRole::subscriber(false);
    PeerSpec { label: "sub".to_owned(), role, local_ip: None, cohort: 0, beside: None }
}

#[test]
fn a_full_mailbox_refuses_and_nothing_is_counted_as_there() {
    let (engine, inbox) = engine(2, 9);
    let first = engine.add_peer(spec()).unwrap();
    engine.command(first, PeerCommand::Close).unwrap();
    assert!(!engine.takes_commands(first));
    let refused = engine.command(first, PeerCommand::Close).unwrap_err();
    assert_eq!(refused.worker, 0);
    assert!(matches!(
        engine.add_peer(spec()),
        Err(AddPeerError::Mailbox(MailboxFull { worker: 0 }))
    ));
    assert_eq!(engine.workers[0].peers.load(Ordering::Relaxed), 1, "the first one alone");
    // In order, and what is read makes room.
    assert!(matches!(inbox.recv().unwrap(), WorkerCommand::Add(peer) if peer.id == first));
    assert!(engine.takes_commands(first));
    engine.command(first, PeerCommand::Close).unwrap();
}

#[test]
fn a_worker_with_all_the_peers_that_it_may_have_gets_no_more() {
    let (engine, inbox) = engine(9, 2);
    for _ in 0..2 {
        engine.add_peer(spec()).unwrap();
    }
    assert!(matches!(engine.add_peer(spec()), Err(AddPeerError::TooManyPeers { max: 2 })));
    assert_eq!(inbox.len(), 2);
}
