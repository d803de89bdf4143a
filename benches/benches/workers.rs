//! How much more do two workers carry than one? The real engine with real sockets, and a sender
//! that costs nothing while the time is taken.
//!
//! ```sh
//! cargo bench --package stampede-benches --bench workers -- [--runs N] [--peers N] [--frames N]
//! ```
//!
//! The engine runs in a process of its own. Its subscribers are connected for real, the process is
//! stopped (SIGSTOP), every socket is filled, and the time counts from SIGCONT until each peer's
//! last packet has been accounted: with one worker on core 0, with two on cores 0 and 1, and, to
//! tell what the workers share from what the machine does, with two processes of a worker each.
//! Peers and packets are the same. Nothing else runs then but each process's own main thread, which
//! looks once a millisecond whether it is done. Packets wait in long runs, so the figures are not
//! those of a live stream; their ratio is what this is for.
//!
//! Needs two cores that do nothing else; how long a worker waited for its core says whether they
//! did. `by CPU` is what two workers would carry that always had theirs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it found")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod receiving;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use receiving::{RUN, Sender, payload_type, payloads};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::{Value, json};
use stampede_engine::core::MediaKind as Kind;
use stampede_engine::{
    BackendChoice, Engine, EngineEvent, EngineOptions, PeerCommand, PeerId, PeerNotice, PeerRole,
    PeerSpec,
};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Input, Output, Rtc};

/// Argument that makes this program the engine's process; the parent's, not a user's.
const ENGINE: &str = "--engine";
const BACKENDS: [&str; 3] = ["io_uring", "mmsg", "packet_ring"];
/// Of each worker: for all that is sent while it stands still.
const PACKET_RING_BYTES: usize = 1 << 30;
/// Peers that connect at a time.
const CONNECTING_MAX: usize = 50;
/// Frames before the counted ones, received while they come.
const FRAMES_SETTLING: u64 = 5;
const FRAME_TIME: Duration = Duration::from_millis(37);
const AUDIO_BYTES: usize = 60;
const PATIENCE: Duration = Duration::from_secs(20);

// The engine's process: a command a line comes in, a JSON value a line goes out.

fn engine_process(backend: &str, first_core: usize, workers: usize) {
    let backend = match backend {
        "mmsg" => BackendChoice::Mmsg,
        "packet_ring" => BackendChoice::PacketRing,
        _ => BackendChoice::IoUring,
    };
    let cores = (first_core..first_core + workers).collect();
    let packet_ring_bytes_max = PACKET_RING_BYTES;
    let options =
        EngineOptions { workers, cores, backend, packet_ring_bytes_max, ..Default::default() };
    let engine = Engine::start(options).unwrap();
    let mut peers = 0;
    let mut cpu_before = cpu_ns(workers);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match command {
            "add" => {
                peers += 1;
                add(&engine, peers, serde_json::from_str(argument).unwrap())
            }
            "begin" => {
                engine.begin_measuring().unwrap();
                std::thread::sleep(Duration::from_millis(50));
                for _ in engine.events().try_iter() {}
                cpu_before = cpu_ns(workers);
                json!(null)
            }
            "wait" => {
                // Told first: the parent stops us in here.
                say(&json!(null));
                let complete = wait_for_last_packets(&engine, peers);
                let cpu = cpu_ns(workers).into_iter().zip(&cpu_before);
                let since = cpu.map(|(now, before)| [now[0] - before[0], now[1] - before[1]]);
                json!({"complete": complete, "cpu_ns": since.collect::<Vec<_>>()})
            }
            _ => break,
        };
        say(&answer);
    }
    let report = engine.stop();
    let sum = |figure: fn(&stampede_engine::WorkerReport) -> u64| -> u64 {
        report.workers.iter().map(figure).sum()
    };
    say(&json!({
        "video": sum(|worker| worker.counted.video.packets.received),
        "audio": sum(|worker| worker.counted.audio.packets.received),
        "complete": sum(|worker| worker.counted.video.frames.complete),
        "rejected": sum(|worker| worker.counted.generator.uncategorised.peers.rejected),
        "dropped": sum(|worker| worker.counted.generator.udp.kernel_drops),
        "peers": report.workers.iter().map(|worker| worker.peers.len()).collect::<Vec<_>>(),
    }));
}

fn say(value: &Value) {
    println!("{value}");
}

/// Adds a subscriber with the server's offer; its answer.
fn add(engine: &Engine, number: usize, sdp: String) -> Value {
    let spec = PeerSpec {
        label: format!("sub-{number}"),
        cohort: 0,
        role: PeerRole::subscriber(false),
        local_ip: Some(Ipv4Addr::LOCALHOST.into()),
        beside: None,
    };
    let peer: PeerId = engine.add_peer(spec).unwrap();
    engine.command(peer, PeerCommand::Offer { id: 1, sdp, mid_to_track_id: vec![] }).unwrap();
    loop {
        let event = engine.events().recv_timeout(PATIENCE).unwrap();
        match event {
            EngineEvent::Peer { notice: PeerNotice::Answer { sdp, .. }, .. } => return json!(sdp),
            EngineEvent::Peer { notice: PeerNotice::NegotiationFailed { reason }, .. } => {
                panic!("{reason}")
            }
            _ => {}
        }
    }
}

/// A peer's last packet is its first one of audio. How many peers have had it in the end.
fn wait_for_last_packets(engine: &Engine, peers: usize) -> usize {
    let mut complete = 0;
    let mut heard = Instant::now();
    while complete < peers {
        std::thread::sleep(Duration::from_millis(1));
        for event in engine.events().try_iter() {
            heard = Instant::now();
            if let EngineEvent::Peer { notice, .. } = event
                && matches!(notice, PeerNotice::FirstPacket { kind: Kind::Audio })
            {
                complete += 1;
            }
        }
        if heard.elapsed() > PATIENCE {
            break;
        }
    }
    complete
}

/// CPU time of each worker's thread so far, the kernel's work for it included, and how long it
/// waited for its core.
fn cpu_ns(workers: usize) -> Vec<[u64; 2]> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut cpu = vec![[0; 2]; workers];
    for task in tasks {
        let task = task.unwrap().path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let worker = name.trim().strip_prefix("worker-").and_then(|n| n.parse::<usize>().ok());
        if let Some(cpu) = worker.and_then(|worker| cpu.get_mut(worker)) {
            let text = std::fs::read_to_string(task.join("schedstat")).unwrap();
            let mut figures = text.split_whitespace().map(|figure| figure.parse().unwrap());
            *cpu = std::array::from_fn(|_| figures.next().unwrap());
        }
    }
    cpu
}

// The parent: one sender with a socket for each peer.

struct EngineProcess {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl EngineProcess {
    fn start(backend: &str, first_core: usize, workers: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([ENGINE, backend, &first_core.to_string(), &workers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, to, from: BufReader::new(from) }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.to, "{command}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("the engine's process answers")
    }

    fn ask(&mut self, command: &str) -> Value {
        self.tell(command);
        self.hear()
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(id, signal).unwrap();
    }
}

/// If a run fails the engine's process may stand still: it must not stay.
impl Drop for EngineProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends what waits, and gives the destination of the last.
fn flush(rtc: &mut Rtc, socket: &UdpSocket) -> Option<SocketAddr> {
    let mut to = None;
    loop {
        match rtc.poll_output().unwrap() {
            Output::Timeout(_) => return to,
            Output::Transmit(transmit) => {
                to = Some(transmit.destination);
                socket.send_to(&transmit.contents, transmit.destination).unwrap();
            }
            Output::Event(_) => {}
        }
    }
}

struct Remote {
    sender: Sender,
    socket: UdpSocket,
    address: SocketAddr,
    peer: Option<SocketAddr>,
    audio: Mid,
}

impl Remote {
    fn connect(engine: &mut EngineProcess) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let mut rtc = Rtc::builder()
            .set_crypto_provider(Arc::new(stampede_engine::core::crypto::provider()))
            .set_rtp_mode(true)
            .build(Instant::now());
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap()).unwrap();
        let mut changes = rtc.sdp_api();
        let mut add = |kind| changes.add_media(kind, Direction::SendOnly, None, None, None);
        let (video, audio) = (add(MediaKind::Video), add(MediaKind::Audio));
        let (offer, pending): (_, SdpPendingOffer) = changes.apply().unwrap();
        let answer = engine.ask(&format!("add {}", json!(offer.to_sdp_string())));
        let answer = SdpAnswer::from_sdp_string(answer.as_str().unwrap()).unwrap();
        rtc.sdp_api().accept_answer(pending, answer).unwrap();
        Self { sender: Sender::new(rtc, video), socket, address, peer: None, audio }
    }

    fn pump(&mut self) {
        let rtc = &mut self.sender.rtc;
        let mut buffer = [0; 2_000];
        while let Ok((len, source)) = self.socket.recv_from(&mut buffer) {
            let receive =
                Receive::new(Protocol::Udp, source, self.address, &buffer[..len]).unwrap();
            rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
            self.peer = flush(rtc, &self.socket).or(self.peer);
        }
        rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        self.peer = flush(rtc, &self.socket).or(self.peer);
    }

    fn send_frame(&mut self, now: Instant, frame: u64) {
        for datagram in self.sender.seal(now, frame, &payloads(frame)) {
            self.socket.send_to(&datagram, self.peer.unwrap()).unwrap();
        }
    }

    fn send_audio(&mut self, now: Instant) {
        let rtc = &mut self.sender.rtc;
        let payload_type = payload_type(rtc, Codec::Opus);
        let mut direct = rtc.direct_api();
        let stream = direct.stream_tx_by_mid(self.audio, None).unwrap();
        stream.write_rtp(RtpWrite::new(payload_type, 1.into(), 0, now, vec![7; AUDIO_BYTES]));
        rtc.handle_input(Input::Timeout(now)).unwrap();
        flush(rtc, &self.socket);
    }
}

fn connect(engine: &mut EngineProcess, peers: usize) -> Vec<Remote> {
    let mut remotes: Vec<Remote> = Vec::with_capacity(peers);
    while remotes.len() < peers {
        let first = remotes.len();
        let count = (peers - first).min(CONNECTING_MAX);
        remotes.extend((0..count).map(|_| Remote::connect(engine)));
        let begun = Instant::now();
        while !remotes[first..].iter().all(|remote| remote.sender.rtc.is_connected()) {
            assert!(begun.elapsed() < PATIENCE, "not connected");
            remotes[first..].iter_mut().for_each(Remote::pump);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    remotes
}

struct Arguments {
    runs: usize,
    peers: usize,
    frames: u64,
}

/// What one run took.
struct Taken {
    wall: Duration,
    /// Of each worker: on its core, and waiting for it.
    cpu: Vec<[Duration; 2]>,
}

impl Taken {
    fn cpu(&self) -> Duration {
        self.cpu.iter().map(|[on_core, _]| on_core).sum()
    }

    /// The longest that a worker waited for its core.
    fn waited(&self) -> Duration {
        self.cpu.iter().map(|[_, waited]| *waited).max().unwrap_or_default()
    }
}

/// Engines and the workers of each.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    processes: usize,
    workers: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "1 worker", processes: 1, workers: 1 },
    Shape { name: "2 workers", processes: 1, workers: 2 },
    Shape { name: "2 processes", processes: 2, workers: 1 },
];

fn run(backend: &str, shape: Shape, arguments: &Arguments) -> Taken {
    let Shape { processes, workers, .. } = shape;
    let mut engines: Vec<EngineProcess> = (0..processes)
        .map(|process| EngineProcess::start(backend, process * workers, workers))
        .collect();
    let peers = arguments.peers / processes;
    let mut remotes: Vec<Remote> =
        engines.iter_mut().flat_map(|engine| connect(engine, peers)).collect();
    for frame in 1..=FRAMES_SETTLING {
        remotes.iter_mut().for_each(|remote| {
            remote.pump();
            remote.send_frame(Instant::now(), frame);
        });
        std::thread::sleep(FRAME_TIME);
    }
    // What has come by now is not counted; a while for the last of it.
    std::thread::sleep(FRAME_TIME * 5);
    for engine in &mut engines {
        engine.ask("begin");
        engine.ask("wait");
        engine.signal(Signal::STOP);
    }
    std::thread::sleep(FRAME_TIME);
    let now = Instant::now();
    for frame in 1..=arguments.frames {
        let at = now + FRAME_TIME * frame as u32;
        remotes.iter_mut().for_each(|remote| remote.send_frame(at, FRAMES_SETTLING + frame));
    }
    let end = now + FRAME_TIME * (arguments.frames as u32 + 1);
    remotes.iter_mut().for_each(|remote| remote.send_audio(end));

    let begun = Instant::now();
    engines.iter().for_each(|engine| engine.signal(Signal::CONT));
    let done: Vec<Value> = engines.iter_mut().map(EngineProcess::hear).collect();
    let wall = begun.elapsed();

    let frames = peers as u64 * arguments.frames;
    let mut cpu = Vec::new();
    for (engine, done) in engines.iter_mut().zip(done) {
        let counted = engine.ask("end");
        let expected = json!({
            "video": frames * RUN as u64,
            "audio": peers,
            "complete": frames,
            "rejected": 0,
            "dropped": 0,
            "peers": counted["peers"],
        });
        assert_eq!(counted, expected, "not everything was accounted");
        assert_eq!(done["complete"], peers);
        let of_workers: Vec<[u64; 2]> = serde_json::from_value(done["cpu_ns"].clone()).unwrap();
        assert_eq!(of_workers.len(), workers);
        cpu.extend(of_workers.into_iter().map(|cpu| cpu.map(Duration::from_nanos)));
    }
    Taken { wall, cpu }
}

/// Median, least and most; the median alone too.
fn figure(mut values: Vec<f64>) -> (String, f64) {
    values.sort_by(f64::total_cmp);
    match (values.get(values.len() / 2), values.first(), values.last()) {
        (Some(median), Some(least), Some(most)) => {
            (format!("{median:.0} [{least:.0}, {most:.0}]"), *median)
        }
        _ => ("?".to_owned(), f64::NAN),
    }
}

fn arguments() -> Arguments {
    let mut arguments = Arguments { runs: 5, peers: 1_000, frames: 30 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).expect("a number after it");
        match arg.as_str() {
            "--runs" => arguments.runs = number(),
            // As many for each of two processes.
            "--peers" => arguments.peers = number().next_multiple_of(2),
            "--frames" => arguments.frames = number() as u64,
            // Cargo's own.
            "--bench" => {}
            other => panic!("{other}? --runs N, --peers N, --frames N"),
        }
    }
    arguments
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, backend, first_core, workers] = &args[..]
        && flag == ENGINE
    {
        engine_process(backend, first_core.parse().unwrap(), workers.parse().unwrap());
        return;
    }
    // Two sockets a peer, one here and one there.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let arguments = arguments();
    let packets = arguments.peers as u64 * (arguments.frames * RUN as u64 + 1);
    println!("| backend | shape | ms | packets/s | CPU ns/packet | waited for a core, ms |");
    println!("|---|---|---|---|---|---|");
    for backend in BACKENDS {
        // In turn, so that whatever else the machine does meets all.
        let mut runs = SHAPES.map(|_| Vec::new());
        for _ in 0..arguments.runs.max(1) {
            for (shape, runs) in SHAPES.into_iter().zip(&mut runs) {
                runs.push(run(backend, shape, &arguments));
            }
        }
        let mut one = None;
        for (Shape { name, .. }, runs) in SHAPES.into_iter().zip(&runs) {
            let of = |value: &dyn Fn(&Taken) -> f64| figure(runs.iter().map(value).collect());
            let (ms, wall_ms) = of(&|run| run.wall.as_secs_f64() * 1e3);
            let (rate, _) = of(&|run| packets as f64 / run.wall.as_secs_f64());
            let (cpu, cpu_ns) = of(&|run| run.cpu().as_nanos() as f64 / packets as f64);
            let (waited, _) = of(&|run| run.waited().as_secs_f64() * 1e3);
            println!("| {backend} | {name} | {ms} | {rate} | {cpu} | {waited} |");
            let (wall_of_one, cpu_of_one) = *one.get_or_insert((wall_ms, cpu_ns));
            if runs.iter().all(|run| run.cpu.len() > 1) {
                let (by_time, by_cpu) = (wall_of_one / wall_ms, 2.0 * cpu_of_one / cpu_ns);
                println!("| {backend} | {name} to 1 | {by_time:.2} | | by CPU {by_cpu:.2} | |");
            }
        }
    }
}
