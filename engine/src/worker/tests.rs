//! A worker by itself, without its thread.

use std::net::UdpSocket;

use stampede_core::{CaptureLimits, DtlsIdentity, LocalId};
use stampede_counters::{Counters, RunCounters, Scope, Unit, Value};
use stampede_udp::{BackendChoice, BackendLimits};

use super::reports::snapshot_after;
use super::*;
use crate::mailbox::{EventSignal, NewPeer, WAITING_BEFORE_SNAPSHOTS_MAX};
use crate::{PeerCommand, PeerNotice, PeerRole};

fn worker(capture: Option<CaptureOptions>) -> (Worker, Receiver<EngineEvent>) {
    let limits = BackendLimits::default();
    let (backend, _) = stampede_udp::open(BackendChoice::Mmsg, limits).unwrap();
    let (sender, events) = crossbeam_channel::bounded(64);
    let (_, inbox) = crossbeam_channel::bounded(1);
    let setup = WorkerSetup {
        index: 0,
        core: None,
        inbox,
        events: EventSink::new(sender, EventSignal::new().unwrap()),
        peers: Arc::new(AtomicUsize::new(8)),
        disk: None,
        gather: Duration::ZERO,
        capture,
        impair: ImpairPlan { cohorts: [None].into(), seed: 1, start: Instant::now() },
        buffers: SocketBuffers { receive_bytes: 1 << 16, send_bytes: 1 << 16 },
        learned: LearnedIp::default(),
        clock_offset_ns: 0,
        tells_distributions: false,
        feedback_of_cohorts: Vec::new(),
        peer_options: PeerOptions::new(DtlsIdentity::generate().unwrap()),
        tls: None,
    };
    (Worker::new(setup, backend), events)
}

fn id(serial: u32) -> PeerId {
    PeerId { worker: 0, serial }
}

fn subscriber(serial: u32) -> NewPeer {
    NewPeer {
        id: id(serial),
        label: format!("sub-{serial}"),
        role: PeerRole::subscriber(false),
        cohort: 0,
        beside: None,
        socket: Some(UdpSocket::bind("127.0.0.1:0").unwrap()),
    }
}

#[test]
fn a_close_is_always_answered() {
    let (mut worker, events) = worker(None);
    let clock = worker.clocks.read();
    worker.command(clock, id(7), PeerCommand::Candidate(String::new()));
    worker.command(clock, id(7), PeerCommand::Close);
    worker.setup.events.flush();
    let events: Vec<_> = events.try_iter().collect();
    assert!(
        matches!(events[..], [EngineEvent::Peer { peer, notice: PeerNotice::Closed, .. }]
            if peer == id(7)),
        "{events:?}"
    );
}

/// A worker, and how many commands each of its turns left.
struct Turns {
    worker: Worker,
    left: Vec<usize>,
}

impl Sleeper for Turns {
    type Item = WorkerCommand;
    type Inbox = Receiver<WorkerCommand>;
    type Error = io::Error;

    fn inbox(&self) -> &Self::Inbox {
        self.worker.inbox()
    }

    fn handle(&mut self, command: WorkerCommand) -> ControlFlow<()> {
        self.worker.handle(command)
    }

    fn work(&mut self, may_sleep: bool) -> io::Result<()> {
        self.left.push(self.inbox().len());
        self.worker.work(may_sleep)
    }
}

#[test]
fn a_turn_carries_out_so_many_commands_and_leaves_the_rest() {
    let (mut worker, events) = worker(None);
    let (commands, inbox) = crossbeam_channel::bounded(2 * COMMANDS_PER_TURN_MAX);
    worker.setup.inbox = inbox;
    for serial in 0..COMMANDS_PER_TURN_MAX as u32 + 5 {
        commands.send(WorkerCommand::Command(id(serial), PeerCommand::Close)).unwrap();
    }
    drop(commands);
    let mut turns = Turns { worker, left: Vec::new() };
    stampede_mailbox::run(&mut turns, COMMANDS_PER_TURN_MAX).unwrap();
    assert_eq!(turns.left, [5]);
    turns.worker.setup.events.flush();
    assert_eq!(events.try_iter().count(), COMMANDS_PER_TURN_MAX + 5, "each is answered");
}

#[test]
fn the_flight_recorder_is_of_the_window_and_taps_whoever_is_there() {
    let limits = CaptureLimits { span: Duration::from_secs(1), bytes_max: 1 << 16, payload: false };
    let options = CaptureOptions { limits, tapped_per_worker_max: 1, worst: 5 };
    let (mut worker, _events) = worker(Some(options));
    let clock = worker.clocks.read();
    let is_tapped = |worker: &Worker, serial| {
        let key = worker.slot_of_peer[&id(serial)];
        worker.slots[key].peer.capture().is_some()
    };
    worker.add(clock, subscriber(1));
    worker.add(clock, subscriber(2));
    assert!(is_tapped(&worker, 1) && !is_tapped(&worker, 2));
    worker.command(clock, id(1), PeerCommand::Close);
    assert_eq!((worker.captures.len(), worker.rows.len()), (1, 1));
    worker.add(clock, subscriber(3));
    assert!(is_tapped(&worker, 3), "its place is free again");
    worker.begin_measuring(clock);
    assert_eq!((worker.captures.len(), worker.rows.len()), (0, 0));
}

/// In which every counter is 7.
fn counted<T: Counters>() -> T {
    let mut table = T::table().iter();
    let mut counted = T::default();
    counted.set(&mut || {
        Some(match table.next()?.unit {
            Unit::Seconds => Value::Time(Duration::from_secs(7)),
            _ => Value::Count(7),
        })
    });
    counted
}

#[test]
fn a_snapshot_and_the_report_tell_every_counter_alike() {
    let (mut worker, events) = worker(None);
    let clock = worker.clocks.read();
    let drain = |worker: &mut Worker| -> Vec<_> {
        let mut all = Vec::new();
        loop {
            worker.setup.events.flush();
            let before = all.len();
            all.extend(events.try_iter());
            if all.len() == before {
                return all;
            }
        }
    };
    for _ in 0..WAITING_BEFORE_SNAPSHOTS_MAX {
        let reason = String::new();
        worker.setup.events.push(EngineEvent::WorkerFailed { worker: 0, reason });
    }
    worker.snapshot(clock);
    drain(&mut worker);
    worker.retired = counted();
    worker.retired.transport.datagrams = counted();
    worker.health.orphans(3);
    worker.snapshot(clock);
    let snapshots = drain(&mut worker).into_iter().filter_map(|event| match event {
        EngineEvent::Snapshot(snapshot) => Some(*snapshot),
        _ => None,
    });
    let [snapshot] = &snapshots.collect::<Vec<_>>()[..] else { panic!() };
    let report = worker.finish(None);
    let own = snapshot.counted.generator.uncategorised.worker;
    assert_eq!((own.orphans, own.snapshots_dropped), (3, 1));
    let told = snapshot.counted.list().into_iter().zip(report.counted.list());
    for (counter, (so_far, in_all)) in RunCounters::table().iter().zip(told) {
        let by_peers = counter.scope != Scope::Worker;
        let seven = [Value::Count(7), Value::Time(Duration::from_secs(7))];
        assert!(!by_peers || seven.contains(&so_far), "{} is {so_far:?}", counter.key);
        // The backend goes on counting.
        let system = counter.key == "generator.syscalls";
        assert!(system || so_far == in_all, "{}: {so_far:?}, then {in_all:?}", counter.key);
    }
}

#[test]
fn a_stalled_worker_takes_one_snapshot_not_two() {
    let due = Instant::now();
    let ms = Duration::from_millis;
    assert_eq!(snapshot_after(due, due + ms(3)), due + ms(1_000), "on the grid");
    assert_eq!(snapshot_after(due, due + ms(999)), due + ms(1_000));
    assert_eq!(snapshot_after(due, due + ms(1_000)), due + ms(2_000));
    assert_eq!(snapshot_after(due, due + ms(5_200)), due + ms(6_200));
}

/// What the worker has told of this peer.
fn told(worker: &mut Worker, events: &Receiver<EngineEvent>, of: PeerId) -> Vec<PeerNotice> {
    worker.setup.events.flush();
    let notices = events.try_iter().filter_map(|event| match event {
        EngineEvent::Peer { peer, notice, .. } if peer == of => Some(notice),
        _ => None,
    });
    notices.collect()
}

#[test]
fn another_network_is_another_socket_and_what_the_first_dropped_stays_counted() {
    let (mut worker, events) = worker(None);
    let clock = worker.clocks.read();
    worker.add(clock, subscriber(1));
    let key = worker.slot_of_peer[&id(1)];
    let socket = |worker: &Worker| worker.slots[key].sockets.udp().collect::<Vec<_>>();
    let (first, local) = (socket(&worker), worker.slots[key].peer.local());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..1_000 {
        sender.send_to(&[0; 1_000], local).unwrap();
    }
    worker.command(clock, id(1), PeerCommand::ChangeNetwork);
    let (second, other) = (socket(&worker), worker.slots[key].peer.local());
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
    assert_eq!(local.ip(), other.ip());
    assert_ne!(local.port(), other.port());
    assert_eq!(worker.owners.get(first[0].0), None);
    assert_eq!(worker.owners.get(second[0].0), Some((key, LocalId::default())));
    UdpSocket::bind(local).expect("the first one is closed");
    assert!(worker.slots[key].drops_closed > 100, "{}", worker.slots[key].drops_closed);
    let told = told(&mut worker, &events, id(1));
    assert!(told.is_empty(), "its first description will have it: {told:?}");
    worker.command(clock, id(1), PeerCommand::Close);
    assert_eq!(worker.owners.get(second[0].0), None);
    assert!(worker.finish(None).peers[0].kernel_drops > 100);
}

#[test]
fn without_a_socket_there_is_no_other_network() {
    let (mut worker, events) = worker(None);
    let clock = worker.clocks.read();
    worker.add(clock, NewPeer { socket: None, ..subscriber(1) });
    worker.command(clock, id(1), PeerCommand::ChangeNetwork);
    assert!(told(&mut worker, &events, id(1)).is_empty());
    worker.add(clock, subscriber(2));
    // One that the kernel refuses to bind.
    let (key, [from, to]) = (worker.slot_of_peer[&id(2)], ["192.0.2.1:9", "192.0.2.1:10"]);
    let peer = &mut worker.slots[key].peer;
    peer.change_network(clock.now, from.parse().unwrap()).unwrap();
    peer.change_network(clock.now, to.parse().unwrap()).unwrap();
    worker.command(clock, id(2), PeerCommand::ChangeNetwork);
    let told = told(&mut worker, &events, id(2));
    let [PeerNotice::Disconnected { failure }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(failure.kind(), "local_resources");
    assert_eq!(worker.slots[key].sockets.iter().count(), 0);
}

#[test]
fn a_cut_off_peer_hears_nothing_and_that_is_on_purpose() {
    let (mut worker, events) = worker(None);
    let clock = worker.clocks.read();
    worker.add(clock, subscriber(1));
    let key = worker.slot_of_peer[&id(1)];
    let local = worker.slots[key].peer.local();
    let lasts = Duration::from_secs(3_600);
    worker.command(clock, id(1), PeerCommand::CutOff { lasts });
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in [&[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0, 1, 0, 0]] {
        sender.send_to(datagram, local).unwrap();
        let clock = worker.clocks.read();
        worker.turn(clock, true).unwrap();
    }
    let counters = worker.slots[key].counters();
    assert_eq!((counters.impairment.dropped, counters.impairment.other_dropped), (1, 1));
    assert_eq!(counters.transport.datagrams.received, 0);
    worker.command(clock, id(1), PeerCommand::LastFrame);
    let told = told(&mut worker, &events, id(1));
    assert!(matches!(told[..], [PeerNotice::LastFrame { at_unix_ns: None }]), "{told:?}");
    worker.command(clock, id(1), PeerCommand::CutOff { lasts: Duration::ZERO });
    sender.send_to(&[0, 1, 0, 0], local).unwrap();
    let clock = worker.clocks.read();
    worker.turn(clock, true).unwrap();
    assert_eq!(worker.slots[key].counters().transport.datagrams.received, 1, "it is over");
    let mut news = crate::CoverNews::new(0, clock.now, true);
    reports::take_covers(&mut worker.slots[key], &mut news);
    assert_eq!(news.cut_off.len(), 1);
}

#[test]
fn peers_that_come_and_go_leave_no_more_rows_than_the_maximum() {
    let (mut worker, events) = worker(None);
    let clock = worker.clocks.read();
    let beyond = 3;
    worker.add(clock, subscriber(0));
    for serial in 1..=crate::CLOSED_ROWS_MAX as u32 + beyond {
        worker.add(clock, NewPeer { socket: None, ..subscriber(serial) });
        worker.command(clock, id(serial), PeerCommand::Close);
        events.try_iter().for_each(drop);
        worker.setup.events.flush();
    }
    let report = worker.finish(None);
    // One stayed while the others came and went.
    let peers_max = 2;
    assert_eq!(report.peers.len(), crate::CLOSED_ROWS_MAX + peers_max);
    let closed = report.cohorts[0].peers;
    assert_eq!(report.left_out.rows, closed - report.peers.len() as u64);
    assert_eq!(closed, 1 + crate::CLOSED_ROWS_MAX as u64 + u64::from(beyond));
    assert_eq!(report.peers.last().map(|row| row.id), Some(id(0)), "the last one to close");
}
