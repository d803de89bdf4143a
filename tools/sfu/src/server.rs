//! Starting and stopping: threads, sockets, the signalling runtime.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stampede_http::Event as HttpEvent;
use stampede_impair::Cohorts;
use stampede_udp::{BackendLimits, BackendReport, OpenError, SocketBuffers};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};

use crate::auth::Auth;
use crate::faults::{Malformer, Refusals, Stalls};
use crate::http::{LIMITS, router};
use crate::hub::Hub;
use crate::hub::messages::Relaying;
use crate::media::connection::ConnectionConfig;
use crate::media::events::{EVENTS_MAX, EventQueue};
use crate::media::factory::PeerFactory;
use crate::media::handle::WorkerHandle;
use crate::media::message::{Command, Event};
use crate::media::siblings::Siblings;
use crate::media::socket::MediaSocket;
use crate::media::tcp::TcpClients;
use crate::media::worker::{Worker, WorkerParts};
use crate::report::{LedgerError, Reporter};
use crate::state::ServerState;
use crate::{Ledger, OptionsError, SfuOptions};

/// How often rooms are looked at for what is due.
const TICK: Duration = Duration::from_millis(500);

/// Events handled before the signalling thread looks at its sockets again.
const EVENTS_PER_ROUND_MAX: usize = 64;

/// Connections the kernel holds until they are accepted; further ones are retried by the client's
/// kernel after a second, which would show in the join times of a fast ramp.
const LISTEN_BACKLOG: u32 = 4_096;
/// Sends between two flushes of a worker. Their bytes, at most 384 kB, are to be in the core's own cache
/// still when the kernel copies them: with a frame to 2,000 subscribers, which are 18 MB, they would
/// be written to memory and read from there again.
const SEND_SLOTS_MAX: usize = 256;

/// How much the signalling thread gives way to media workers where it shares their cores: of a full core it
/// has a quarter, so that joins get slower and media does not. Not less: where it maps memory it holds what
/// all threads of the process wait for at their next page fault, and at niceness 10 among other busy
/// processes workers waited for it for 0.6 s.
const SIGNALLING_NICENESS: i32 = 5;

/// Kernel buffers asked for a worker's socket: a worker that was away for 50 ms has 20,000
/// packets to send, and reports of thousands of clients to read.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// Why an SFU could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict themselves.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The TCP port is taken or not allowed.
    #[error("can't listen on {address} (TCP): {source}; choose another --port or --bind")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A UDP port is taken or not allowed.
    #[error("can't use {address} (UDP): {source}; choose another --rtc-port")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No backend.
    #[error(transparent)]
    Backend(#[from] OpenError),
    /// No certificate for DTLS.
    #[error("the crypto library could not make a certificate; is its random source usable?")]
    Certificate,
    /// No thread or no runtime.
    #[error("can't start a thread: {0}")]
    Thread(#[source] io::Error),
    /// A worker ended before it was ready.
    #[error("media worker {0} ended while it started")]
    WorkerEnded(usize),
}

/// A running SFU. Dropping it stops it.
pub struct Sfu {
    address: SocketAddr,
    reporter: Reporter,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Sfu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sfu").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Sfu {
    /// Starts the workers and the signalling thread; returns when clients can connect.
    ///
    /// # Errors
    /// What could not be had: ports, threads, a backend. Nothing is left running then.
    pub fn start(options: SfuOptions) -> Result<Self, StartError> {
        options.validate()?;
        let start = Instant::now();
        let address = SocketAddr::new(options.bind_ip, options.port);
        let listen = |source| StartError::Listen { address, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let entered = runtime.enter();
        let listener = bind_listener(address).map_err(listen)?;
        drop(entered);
        let address = listener.local_addr().map_err(listen)?;
        let (events, events_in) = mpsc::channel(EVENTS_MAX);
        let (workers, mut threads, backend) = start_workers(&options, start, &events)?;
        drop(events);
        let rtc_address = workers.first().map_or(address, WorkerHandle::address);
        let refusals = Refusals::new(options.faults.refuse_joins);
        let seed = stampede_udp::unix_now_ns();
        let mut hub = Hub::new(workers.clone(), refusals, options.departure_time, seed, start);
        hub.relaying =
            Relaying { servers: options.ice_servers.clone(), force: options.force_relay };
        let hub = Arc::new(Mutex::new(hub));
        let reporter =
            Reporter { hub: hub.clone(), workers: workers.clone(), backend: backend.reason };
        let stalls = Stalls::new(start, options.faults.stalls.clone());
        let state = ServerState::new(hub, Auth::new(&options), reporter.clone(), stalls);
        let (stop, stopped) = watch::channel(false);
        let signalling =
            std::thread::Builder::new().name("sfu-signalling".to_owned()).spawn(move || {
                // Linux has it of each thread for itself.
                if let Err(error) = rustix::process::nice(SIGNALLING_NICENESS) {
                    tracing::debug!(%error, "signalling does not give way to media");
                }
                runtime.block_on(signal(listener, state, events_in, stopped));
            });
        match signalling {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                stop_workers(&workers, threads);
                return Err(StartError::Thread(error));
            }
        }
        tracing::info!(%address, %rtc_address, backend = reporter.backend, "SFU started");
        Ok(Self { address, reporter, stop, threads })
    }

    /// Where clients connect: `ws://ip:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// What was done so far. Waits a few milliseconds for the workers; not for async tasks.
    ///
    /// # Errors
    /// A worker did not answer. Its part is unknown then, so there is no ledger at all.
    pub fn ledger(&self) -> Result<Ledger, LedgerError> {
        self.reporter.ledger()
    }

    /// Says goodbye to everybody and ends the threads.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        // The signalling thread may have ended by itself.
        let _ = self.stop.send(true);
        stop_workers(&self.reporter.workers, std::mem::take(&mut self.threads));
    }
}

impl Drop for Sfu {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn stop_workers(workers: &[WorkerHandle], threads: Vec<JoinHandle<()>>) {
    for worker in workers {
        worker.command(Command::Stop);
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the SFU panicked");
        }
    }
}

fn bind_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

type StartedWorkers = (Vec<WorkerHandle>, Vec<JoinHandle<()>>, BackendReport);

fn start_workers(
    options: &SfuOptions,
    start: Instant,
    events: &mpsc::Sender<Event>,
) -> Result<StartedWorkers, StartError> {
    let config = ConnectionConfig::generate(stampede_core::crypto::provider())
        .ok_or(StartError::Certificate)?
        .with_congestion(options.congestion);
    let cohorts = Cohorts::new(options.impair.clone(), options.seed, start);
    let all = Arc::new(OnceLock::new());
    let mut handles = Vec::new();
    let mut threads = Vec::new();
    let mut backend = None;
    for index in 0..options.workers {
        let started = start_worker(index, options, &config, &cohorts, events, &all);
        match started {
            Ok((handle, thread, report)) => {
                handles.push(handle);
                threads.push(thread);
                backend = Some(report);
            }
            Err(error) => {
                stop_workers(&handles, threads);
                return Err(error);
            }
        }
    }
    let backend = backend.ok_or(OptionsError::NoWorkers)?;
    // Set once, here; workers that look before find nothing to send to.
    let _ = all.set(handles.clone());
    Ok((handles, threads, backend))
}

fn start_worker(
    index: usize,
    options: &SfuOptions,
    config: &ConnectionConfig,
    cohorts: &Cohorts,
    events: &mpsc::Sender<Event>,
    all: &Arc<OnceLock<Vec<WorkerHandle>>>,
) -> Result<(WorkerHandle, JoinHandle<()>, BackendReport), StartError> {
    let (ready, started) = crossbeam_channel::bounded(1);
    let (options, config, cohorts) = (options.clone(), config.clone(), cohorts.clone());
    let (events, all) = (events.clone(), all.clone());
    let thread = std::thread::Builder::new()
        .name(format!("sfu-media-{index}"))
        .spawn(move || {
            if !options.cores.is_empty() {
                let id = options.cores[index % options.cores.len()];
                if !core_affinity::set_for_current(core_affinity::CoreId { id }) {
                    tracing::warn!(worker = index, core = id, "could not be pinned");
                }
            }
            // The receiver waits for exactly this.
            match open_worker(index, &options, config, cohorts, events, all) {
                Ok((worker, handle, report)) => {
                    let _ = ready.send(Ok((handle, report)));
                    worker.run();
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })
        .map_err(StartError::Thread)?;
    match started.recv() {
        Ok(Ok((handle, report))) => Ok((handle, thread, report)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::WorkerEnded(index)),
    }
}

/// Opens a worker's socket and makes the worker.
fn open_worker(
    index: usize,
    options: &SfuOptions,
    config: ConnectionConfig,
    cohorts: Cohorts,
    events: mpsc::Sender<Event>,
    workers: Arc<OnceLock<Vec<WorkerHandle>>>,
) -> Result<(Worker, WorkerHandle, BackendReport), StartError> {
    let port = match options.rtc_port {
        0 => 0,
        first => first + index as u16,
    };
    let address = SocketAddr::new(options.bind_ip, port);
    let bind = |source| StartError::Bind { address, source };
    let limits = BackendLimits {
        sockets_max: 1,
        send_slots_max: SEND_SLOTS_MAX,
        ..BackendLimits::default()
    };
    let (mut backend, report) = stampede_udp::open(options.backend, limits)?;
    let buffers =
        SocketBuffers { receive_bytes: SOCKET_BUFFER_BYTES, send_bytes: SOCKET_BUFFER_BYTES };
    let socket = stampede_udp::bind(address, buffers).map_err(bind)?;
    let address = socket.local_addr().map_err(bind)?;
    // The same port, for ICE over TCP. A client that can use UDP never needs it, so another process
    // that has it is no reason not to start.
    let tcp = TcpClients::listen(address)
        .inspect_err(|error| tracing::warn!(%address, %error, "no media over TCP"));
    let socket = backend.add_socket(socket).map_err(bind)?;
    // A peer that is gone is noticed by its silence. Reports about it would hold up the others.
    backend.ignore_reports(socket).map_err(bind)?;
    let address = SocketAddr::new(options.node_ip.unwrap_or(address.ip()), address.port());
    let (handle, inbox) = WorkerHandle::new(backend.waker(), address);
    let faults = &options.faults;
    let malformer = Malformer::new(faults.malformed, options.seed ^ index as u64);
    let mut socket = MediaSocket::new(backend, socket, malformer);
    let mut factory =
        PeerFactory::new(config, cohorts, faults.drop_upstream, options.seed, address);
    if let Ok(tcp) = tcp {
        socket = socket.with_tcp(tcp).map_err(bind)?;
        factory = factory.with_tcp();
    }
    let parts = WorkerParts {
        index,
        socket,
        inbox,
        events: EventQueue::new(events),
        siblings: Siblings::new(workers),
        factory,
        drop_data: (faults.drop_data, options.seed.wrapping_add(index as u64)),
        withhold_keyframes: faults.withhold_keyframes,
    };
    let worker = Worker::new(parts, Instant::now);
    Ok((worker, handle, report))
}

/// The signalling thread: HTTP, the workers' events, and the clock.
async fn signal(
    listener: TcpListener,
    state: ServerState,
    mut events: mpsc::Receiver<Event>,
    mut stopped: watch::Receiver<bool>,
) {
    let count = |event| match event {
        HttpEvent::TimedOut => state.hub().count_connection_timeout(),
        HttpEvent::Displaced => state.hub().count_displaced_connection(),
        HttpEvent::Refused(error) => tracing::warn!(
            "the SFU can't let clients in: {error}; if it may have more files open (ulimit -n), it can \
             carry more. It goes on trying"
        ),
    };
    let limits = LIMITS.within_descriptors();
    let serve = stampede_http::serve(listener, router(state.clone()), limits, count);
    let pump = async {
        let mut batch = Vec::with_capacity(EVENTS_PER_ROUND_MAX);
        while events.recv_many(&mut batch, EVENTS_PER_ROUND_MAX).await > 0 {
            {
                let mut hub = state.hub();
                for event in batch.drain(..) {
                    hub.event(event);
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let clock = async {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            state.hub().tick();
        }
    };
    tokio::select! {
        never = serve => match never {},
        () = pump => {}
        () = clock => {}
        _ = stopped.changed() => {}
    }
    state.hub().shut_down();
    // Lets the goodbyes leave.
    tokio::time::sleep(Duration::from_millis(20)).await;
}
