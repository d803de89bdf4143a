//! The handle the signalling plane holds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use stampede_core::{DtlsIdentity, PathKind, PeerOptions};
use stampede_mailbox::Mailbox;
use stampede_media::disk::{DiskHandle, DiskOptions, DiskThread};
use stampede_udp::{BackendLimits, BackendReport, SocketBuffers, Waker};
use thiserror::Error;

use crate::impair::ImpairPlan;
use crate::mailbox::{EventSignal, EventSink, EventSource, NewPeer, WorkerCommand};
use crate::worker::{LearnedIp, Worker, WorkerSetup};
use crate::{
    EngineEvent, EngineOptions, EngineReport, PeerCommand, PeerId, PeerSpec, WorkerReport,
};

/// Most sockets of a worker: what a [`stampede_udp::Backend`] can have.
const SOCKETS_MAX: usize = 65_536;

/// Why an engine could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No certificate could be made.
    #[error("could not make the DTLS certificate: {0}")]
    Identity(String),
    /// The operating system refused a thread or an eventfd.
    #[error("could not start a worker: {0}")]
    Spawn(#[from] io::Error),
    /// The UDP backend could not be opened.
    #[error("worker {worker}: {reason}")]
    Backend {
        /// Which worker.
        worker: usize,
        /// What the backend said.
        reason: String,
    },
    /// The recording folder can't be used.
    #[error("{0}")]
    Recording(String),
}

/// Why a peer was not added.
#[derive(Debug, Error)]
pub enum AddPeerError {
    /// No socket could be bound.
    #[error("could not bind a UDP socket on {ip}: {source}")]
    Bind {
        /// The wanted local address.
        ip: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Every worker is full.
    #[error("all workers hold {max} peers already (peers_per_worker_max)")]
    TooManyPeers {
        /// `EngineOptions::peers_per_worker_max`.
        max: usize,
    },
    /// The worker's mailbox is full.
    #[error(transparent)]
    Mailbox(#[from] MailboxFull),
}

/// A worker has more than `commands_max` commands waiting, or has ended.
#[derive(Debug, Error)]
#[error("worker {worker} takes no commands (more than commands_max wait, or it has ended)")]
pub struct MailboxFull {
    /// Which worker.
    pub worker: usize,
}

/// A worker as its engine sees it.
struct WorkerHandle {
    mailbox: Mailbox<Sender<WorkerCommand>, Waker>,
    /// Peers it holds; the worker counts down when one is gone.
    peers: Arc<AtomicUsize>,
    next_serial: AtomicU32,
    thread: JoinHandle<Option<WorkerReport>>,
}

/// A running media plane. Dropping it without [`stop`](Engine::stop) leaves the workers to end
/// when their mailboxes close.
pub struct Engine {
    options: EngineOptions,
    backend: BackendReport,
    workers: Vec<WorkerHandle>,
    events: EventSource,
    disk: Option<DiskThread>,
    learned: LearnedIp,
}

impl Engine {
    /// Starts and pins the workers.
    ///
    /// # Errors
    /// When a thread, the UDP backend, the certificate or the recording folder can't be had.
    pub fn start(mut options: EngineOptions) -> Result<Self, StartError> {
        if options.workers == 0 {
            options.workers = options.cores.len().max(1);
        }
        let identity =
            DtlsIdentity::generate().map_err(|error| StartError::Identity(error.to_string()))?;
        let disk = match &options.recording_dir {
            Some(dir) => Some(
                DiskThread::start(DiskOptions::new(dir))
                    .map_err(|error| StartError::Recording(error.to_string()))?,
            ),
            None => None,
        };
        let (event_sender, receiver) = crossbeam_channel::bounded(options.events_max);
        let signal = EventSignal::new()?;
        if options.cohorts.is_empty() {
            options.cohorts.push(None);
        }
        let impair = ImpairPlan {
            cohorts: options.cohorts.clone().into(),
            seed: options.seed,
            start: Instant::now(),
        };
        let learned = LearnedIp::default();
        let mut workers = Vec::with_capacity(options.workers);
        let mut backend = None;
        for index in 0..options.workers {
            let events = EventSink::new(event_sender.clone(), signal.clone());
            let disk = disk.as_ref().map(DiskThread::handle);
            let shared = Shared { identity: identity.clone(), learned: learned.clone() };
            let (worker, report) = spawn(&options, index, shared, impair.clone(), events, disk)?;
            match &mut backend {
                None => backend = Some(report),
                Some(first) => first.note_other(index, &report),
            }
            workers.push(worker);
        }
        let backend = backend.ok_or_else(|| StartError::Backend {
            worker: 0,
            reason: "no worker was asked for".to_owned(),
        })?;
        let events = EventSource { receiver, signal };
        Ok(Self { options, backend, workers, events, disk, learned })
    }

    /// Which UDP backend the workers use, and why.
    pub fn backend_report(&self) -> &BackendReport {
        &self.backend
    }

    /// Workers running.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Binds its first UDP socket, if it may have one, and gives the new peer to the worker with the
    /// fewest, or to that of the peer that it is beside.
    ///
    /// # Errors
    /// When the socket can't be bound, or no worker takes the peer.
    pub fn add_peer(&self, spec: PeerSpec) -> Result<PeerId, AddPeerError> {
        let max = self.options.peers_per_worker_max;
        let (index, worker) = self
            .workers
            .iter()
            .enumerate()
            .filter(|(index, _)| spec.beside.is_none_or(|peer| usize::from(peer.worker) == *index))
            .min_by_key(|(_, worker)| worker.peers.load(Ordering::Relaxed))
            .filter(|(_, worker)| worker.peers.load(Ordering::Relaxed) < max)
            .ok_or(AddPeerError::TooManyPeers { max })?;
        let by_udp = self.options.transport.tries(PathKind::Udp);
        let local_ip = self.learned.get().or(spec.local_ip).filter(|_| by_udp);
        let bind = |ip| {
            let bound = stampede_udp::bind(SocketAddr::new(ip, 0), buffers(&self.options));
            bound.map_err(|source| AddPeerError::Bind { ip, source })
        };
        let socket = local_ip.map(bind).transpose()?;
        let serial = worker.next_serial.fetch_add(1, Ordering::Relaxed);
        let id = PeerId { worker: index as u16, serial };
        worker.peers.fetch_add(1, Ordering::Relaxed);
        let known = usize::from(spec.cohort) < self.options.cohorts.len();
        let cohort = if known { spec.cohort } else { 0 };
        let PeerSpec { label, role, beside, .. } = spec;
        let peer = NewPeer { id, label, role, cohort, socket, beside };
        self.post(index, WorkerCommand::Add(Box::new(peer))).inspect_err(|_| {
            worker.peers.fetch_sub(1, Ordering::Relaxed);
        })?;
        Ok(id)
    }

    /// Tells a peer something. Commands for a peer that is gone are ignored, but
    /// [`PeerCommand::Close`] is answered.
    ///
    /// # Errors
    /// When the worker's mailbox is full; try again later.
    pub fn command(&self, peer: PeerId, command: PeerCommand) -> Result<(), MailboxFull> {
        self.post(usize::from(peer.worker), WorkerCommand::Command(peer, command))
    }

    /// True if the worker of this peer has room for a command.
    pub fn takes_commands(&self, peer: PeerId) -> bool {
        !self.workers[usize::from(peer.worker)].mailbox.queue().is_full()
    }

    /// Starts the measured window on all workers: every account begins anew.
    ///
    /// # Errors
    /// When a worker's mailbox is full.
    pub fn begin_measuring(&self) -> Result<(), MailboxFull> {
        (0..self.workers.len())
            .try_for_each(|worker| self.post(worker, WorkerCommand::BeginMeasuring))
    }

    /// Asks every worker for the packets of its worst peers; each answers with
    /// [`EngineEvent::Captured`] if [`EngineOptions::capture`] is set.
    ///
    /// # Errors
    /// When a worker's mailbox is full.
    pub fn capture(&self) -> Result<(), MailboxFull> {
        (0..self.workers.len()).try_for_each(|worker| self.post(worker, WorkerCommand::Capture))
    }

    /// Asks every worker for its sums at this moment; they come as [`EngineEvent::Totals`] with
    /// this tag, one from each worker.
    ///
    /// # Errors
    /// When a worker's mailbox is full.
    pub fn read_totals(&self, tag: u64) -> Result<(), MailboxFull> {
        (0..self.workers.len())
            .try_for_each(|worker| self.post(worker, WorkerCommand::ReadTotals(tag)))
    }

    fn post(&self, index: usize, command: WorkerCommand) -> Result<(), MailboxFull> {
        self.workers[index].mailbox.post(command).map_err(|_| MailboxFull { worker: index })
    }

    /// Where events come out.
    pub fn events(&self) -> &Receiver<EngineEvent> {
        &self.events.receiver
    }

    /// Readable while events wait; reading its 8 bytes clears it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.signal.as_fd()
    }

    /// Closes every peer and its accounts, ends the recordings and the workers.
    pub fn stop(self) -> EngineReport {
        let Self { workers, events, disk, .. } = self;
        for worker in &workers {
            let mut command = WorkerCommand::Stop;
            // The worker empties its mailbox every turn, so room comes at once.
            while let Err(TrySendError::Full(back)) = worker.mailbox.post(command) {
                command = back;
                std::thread::yield_now();
            }
        }
        let mut reports = Vec::with_capacity(workers.len());
        let mut workers_panicked = Vec::new();
        for (index, worker) in workers.into_iter().enumerate() {
            match worker.thread.join() {
                Ok(Some(report)) => reports.push(report),
                Ok(None) | Err(_) => workers_panicked.push(index),
            }
        }
        let (mut snapshots_unread, mut covers_unread) = (Vec::new(), Vec::new());
        for event in events.receiver.try_iter() {
            match event {
                EngineEvent::Snapshot(snapshot) => snapshots_unread.push(*snapshot),
                EngineEvent::Cover(news) => covers_unread.push(*news),
                _ => {}
            }
        }
        drop(events);
        let recordings = disk.map(DiskThread::finish);
        EngineReport {
            workers: reports,
            workers_panicked,
            recordings,
            snapshots_unread,
            covers_unread,
        }
    }
}

fn buffers(options: &EngineOptions) -> SocketBuffers {
    SocketBuffers {
        receive_bytes: options.receive_buffer_bytes,
        send_bytes: options.send_buffer_bytes,
    }
}

/// What all workers have of one.
struct Shared {
    identity: DtlsIdentity,
    learned: LearnedIp,
}

/// Starts one worker thread and waits until its backend is open.
fn spawn(
    options: &EngineOptions,
    index: usize,
    shared: Shared,
    impair: ImpairPlan,
    events: EventSink,
    disk: Option<DiskHandle>,
) -> Result<(WorkerHandle, BackendReport), StartError> {
    let (commands, inbox) = crossbeam_channel::bounded(options.commands_max);
    let peers = Arc::new(AtomicUsize::new(0));
    let core = (!options.cores.is_empty()).then(|| options.cores[index % options.cores.len()]);
    let setup = WorkerSetup {
        index,
        core,
        inbox,
        events,
        peers: Arc::clone(&peers),
        disk,
        gather: options.gather,
        capture: options.capture,
        impair,
        buffers: buffers(options),
        learned: shared.learned,
        feedback_of_cohorts: options.feedback_of_cohorts.clone(),
        peer_options: PeerOptions {
            playout_deadline: options.playout_deadline,
            retransmit_cache_packets_max: options.retransmit_cache_packets_max,
            feedback: options.feedback,
            adapt: options.adapt,
            transport: options.transport,
            route: Some(|remote| stampede_udp::local_ip_towards(remote).ok()),
            ..PeerOptions::new(shared.identity)
        },
        tls: options.tls.clone(),
        clock_offset_ns: options.clock_offset_ns,
        tells_distributions: options.tells_distributions,
    };
    let choice = options.backend;
    let limits = BackendLimits {
        // A peer has two for a while where the first guess was wrong.
        sockets_max: (options.peers_per_worker_max * 2).min(SOCKETS_MAX),
        packet_ring_bytes_max: options.packet_ring_bytes_max,
        ..BackendLimits::default()
    };
    let (ready, opened) = crossbeam_channel::bounded(1);
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // Pinned first, so that the ring and the peers' memory belong to this core.
        if let Some(core) = setup.core {
            core_affinity::set_for_current(core_affinity::CoreId { id: core });
        }
        match stampede_udp::open(choice, limits) {
            Ok((backend, report)) => {
                let _ = ready.send(Ok((backend.waker(), report)));
                let events = setup.events.sibling();
                Some(reporting_panics(index, events, || Worker::new(setup, backend).run()))
            }
            Err(error) => {
                let _ = ready.send(Err(error.to_string()));
                None
            }
        }
    })?;
    let failed = |reason| StartError::Backend { worker: index, reason };
    let (waker, report) = opened
        .recv()
        .map_err(|_| failed("the worker thread ended before its backend was open".to_owned()))?
        .map_err(failed)?;
    let next_serial = AtomicU32::new(0);
    let mailbox = Mailbox::new(commands, waker);
    Ok((WorkerHandle { mailbox, peers, next_serial, thread }, report))
}

/// How long a worker that panicked waits for room to say so.
const LAST_WORDS_MAX: Duration = Duration::from_secs(10);

/// Runs a worker. If it panics, that is a bug, and its figures are lost: the run is told at once,
/// not at its end, and the panic goes on.
fn reporting_panics<T>(worker: usize, events: EventSink, run: impl FnOnce() -> T) -> T {
    // Nothing of the worker is looked at after a panic.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = format!("it panicked, a bug: {}", text.unwrap_or("without a text"));
        events.last_words(EngineEvent::WorkerFailed { worker, reason }, LAST_WORDS_MAX);
        resume_unwind(panic)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_at_once_and_goes_on() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let events = EventSink::new(sender, EventSignal::new().unwrap());
        let worker = || reporting_panics(3, events, || -> () { panic!("index {} of 2", 7) });
        assert!(catch_unwind(AssertUnwindSafe(worker)).is_err());
        let Ok(EngineEvent::WorkerFailed { worker, reason }) = receiver.try_recv() else {
            panic!("nothing was said");
        };
        assert_eq!((worker, reason.as_str()), (3, "it panicked, a bug: index 7 of 2"));
    }
}

#[cfg(test)]
mod bounds_tests;
