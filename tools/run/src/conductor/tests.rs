//! Whole runs in virtual time: every participant with its own websocket over a stream in memory, a
//! server that does what a test says, and a media plane without media.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message as Response;
use stampede_counters::{RecoveryCounters, RecoveryGroups};
use stampede_engine::{
    AddPeerError, EngineEvent, EngineReport, MailboxFull, PeerCommand, PeerId, PeerNotice, PeerSpec,
};
use stampede_impair::Rng;
use stampede_report::types::{FaultRow, JoinSection, SignallingSection};
use stampede_scenario::{AudienceDraft, Clips, Draft, Signal, Stage, Target};
use stampede_signaling::connection::{Dial, Dialling, Transport};
use stampede_signaling::session::SignalVersion;
use stampede_signaling::{Proxies, ServerUrl, TlsSetup};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request};
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::*;
use crate::audience::Pauses;
use crate::clock::RunClock;
use crate::context::Settings;
use crate::media_plane::MediaPlane;
use crate::network::Network;
use crate::router;

/// Bytes under way in each direction.
const BUFFER_BYTES: usize = 64 << 10;
/// From the answer of a peer to its DTLS.
const CONNECTED_AFTER: Duration = Duration::from_millis(80);

/// Between two frames.
const FRAME_INTERVAL: Duration = Duration::from_millis(33);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Streams in memory, whose other ends go to the server.
#[derive(Debug)]
struct Wire {
    server: mpsc::UnboundedSender<DuplexStream>,
    /// When streams were asked for.
    dialled: Mutex<Vec<Instant>>,
    /// Nobody listens.
    refuses: AtomicBool,
    /// Streams that are open at our end.
    open: Arc<Streams>,
}

/// Streams over which something was said; who only looks whether the server is there says nothing.
#[derive(Debug, Default)]
struct Streams {
    open: AtomicUsize,
    /// The most there ever were.
    most: AtomicUsize,
}

/// Our end of a stream.
struct Open {
    stream: DuplexStream,
    open: Arc<Streams>,
    used: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.open.fetch_sub(usize::from(self.used), Ordering::Relaxed);
    }
}

impl Transport for Open {}

impl AsyncRead for Open {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Open {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if !std::mem::replace(&mut self.used, true) {
            let open = self.open.open.fetch_add(1, Ordering::Relaxed) + 1;
            self.open.most.fetch_max(open, Ordering::Relaxed);
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Dial for Wire {
    fn dial<'a>(&'a self, _: &'a ServerUrl) -> Dialling<'a> {
        Box::pin(async {
            self.dialled.lock().unwrap().push(now());
            if self.refuses.load(Ordering::Relaxed) {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let (stream, theirs) = tokio::io::duplex(BUFFER_BYTES);
            self.server.send(theirs).unwrap();
            Ok(Box::new(Open { stream, open: Arc::clone(&self.open), used: false }) as _)
        })
    }
}

/// The server's end of a websocket.
struct Socket(WebSocketStream<DuplexStream>);

impl Socket {
    async fn send(&mut self, message: Response) {
        let bytes = proto::SignalResponse { message: Some(message) }.encode_to_vec();
        // Who is gone is told nothing.
        let _ = self.0.send(Message::Binary(bytes.into())).await;
    }

    /// Answers a join, and offers.
    async fn admit(&mut self) {
        let room = proto::Room { sid: "RM_1".to_owned(), ..Default::default() };
        let participant = proto::ParticipantInfo { sid: "PA_1".to_owned(), ..Default::default() };
        self.send(Response::Join(proto::JoinResponse {
            room: Some(room),
            participant: Some(participant),
            subscriber_primary: true,
            ..Default::default()
        }))
        .await;
        let (r#type, sdp) = ("offer".to_owned(), "v=0\r\n".to_owned());
        let offer = proto::SessionDescription { r#type, sdp, id: 1, ..Default::default() };
        self.send(Response::Offer(offer)).await;
    }

    /// Answers a join over a single connection, and the offer that came along.
    async fn admit_v1(&mut self) {
        let participant = proto::ParticipantInfo { sid: "PA_1".to_owned(), ..Default::default() };
        let participant = Some(participant);
        self.send(Response::Join(proto::JoinResponse { participant, ..Default::default() })).await;
        self.answer(1).await;
    }

    /// Answers the client's offer.
    async fn answer(&mut self, id: u32) {
        let (r#type, sdp) = ("answer".to_owned(), "v=0\r\n".to_owned());
        let answer = proto::SessionDescription { r#type, sdp, id, ..Default::default() };
        self.send(Response::Answer(answer)).await;
    }

    /// Takes a session up again, and restarts ICE.
    async fn take_up(&mut self, offer_id: u32) {
        self.send(Response::Reconnect(proto::ReconnectResponse::default())).await;
        let (r#type, sdp) = ("offer".to_owned(), "v=0\r\n".to_owned());
        let offer = proto::SessionDescription { r#type, sdp, id: offer_id, ..Default::default() };
        self.send(Response::Offer(offer)).await;
    }

    /// Asks for something else than this session.
    async fn leave(&mut self, action: proto::leave_request::Action) {
        let reason = proto::DisconnectReason::StateMismatch as i32;
        let action = action as i32;
        self.send(Response::Leave(proto::LeaveRequest { reason, action, ..Default::default() }))
            .await;
    }

    /// Ends it for good.
    async fn send_away(&mut self, reason: proto::DisconnectReason) {
        let action = proto::leave_request::Action::Disconnect as i32;
        let reason = reason as i32;
        self.send(Response::Leave(proto::LeaveRequest { reason, action, ..Default::default() }))
            .await;
    }

    /// Accepts the client's tracks, and answers its offers, until it has closed.
    async fn take_tracks(mut self) {
        use proto::signal_request::Message as Request;
        while let Some(Ok(message)) = self.0.next().await {
            let Message::Binary(bytes) = message else { continue };
            match proto::SignalRequest::decode(bytes).unwrap().message {
                Some(Request::AddTrack(track)) => {
                    let sid = format!("TR_{}", track.cid);
                    let track_info = proto::TrackInfo { sid, ..Default::default() };
                    let (cid, track) = (track.cid, Some(track_info));
                    let published = proto::TrackPublishedResponse { cid, track };
                    self.send(Response::TrackPublished(published)).await;
                }
                Some(Request::Offer(offer)) => self.answer(offer.id).await,
                _ => {}
            }
        }
    }

    /// Reads on until the client has closed.
    async fn attend(mut self) {
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

/// Numbers the websockets, and gives each to the script. Of v1 only the first so many are.
async fn serve(
    mut streams: mpsc::UnboundedReceiver<DuplexStream>,
    v1_max: usize,
    script: impl AsyncFn(usize, Socket) + 'static,
) {
    let (script, mut number) = (Rc::new(script), 0);
    while let Some(stream) = streams.recv().await {
        let script = Rc::clone(&script);
        spawn_local(async move {
            #[expect(clippy::result_large_err, reason = "tungstenite's")]
            let upgrade = |request: &Request, response| match request.uri().path() {
                "/rtc/v1" if number >= v1_max => {
                    let mut refusal = ErrorResponse::new(None);
                    *refusal.status_mut() = StatusCode::NOT_FOUND;
                    Err(refusal)
                }
                _ => Ok(response),
            };
            // Who only looks whether the server is there makes no websocket.
            if let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, upgrade).await {
                script(number, Socket(socket)).await;
            }
        });
        number += 1;
    }
}

/// The peers of a media plane without media.
#[derive(Debug, Default)]
struct Peers {
    /// Whose they were.
    made: Mutex<Vec<String>>,
    /// Those that are open: whose, and whether to receive by.
    open: Mutex<HashMap<PeerId, (String, bool)>>,
    /// The worker has no room for commands from so many on.
    full_from: Option<usize>,
    /// Commands that it has taken, or new peers.
    taken: AtomicUsize,
}

impl Peers {
    fn is_full(&self) -> bool {
        self.full_from.is_some_and(|from| self.taken.load(Ordering::Relaxed) >= from)
    }

    fn take(&self) -> Result<(), MailboxFull> {
        if self.is_full() {
            return Err(MailboxFull { worker: 0 });
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A media plane without media.
struct NoMedia {
    commands: mpsc::UnboundedSender<(PeerId, PeerCommand)>,
    peers: Arc<Peers>,
}

impl MediaPlane for NoMedia {
    fn workers(&self) -> usize {
        1
    }

    fn add_peer(&self, spec: PeerSpec) -> Result<PeerId, AddPeerError> {
        self.peers.take()?;
        let (mut made, mut open) =
            (self.peers.made.lock().unwrap(), self.peers.open.lock().unwrap());
        let peer = PeerId::new(0, made.len() as u32);
        let receives = spec.role.receives.is_some();
        // A second connection is beside the one by which the same participant receives.
        let first = spec.beside.map(|peer| open[&peer].clone());
        assert!(first.is_none_or(|first| first == (spec.label.clone(), true) && !receives));
        let is_same = |(label, other): &(String, bool)| *label == spec.label && *other == receives;
        assert!(!open.values().any(is_same), "{} has one", spec.label);
        made.push(spec.label.clone());
        open.insert(peer, (spec.label, receives));
        Ok(peer)
    }

    fn command(&self, peer: PeerId, command: PeerCommand) -> Result<(), MailboxFull> {
        self.peers.take()?;
        if matches!(command, PeerCommand::Close) {
            self.peers.open.lock().unwrap().remove(&peer);
        }
        self.commands.send((peer, command)).map_err(|_| MailboxFull { worker: 0 })
    }

    fn takes_commands(&self, _: PeerId) -> bool {
        !self.peers.is_full()
    }

    fn begin_measuring(&self) -> Result<(), MailboxFull> {
        Ok(())
    }

    /// Nobody will answer.
    fn read_totals(&self, _: u64) -> Result<(), MailboxFull> {
        Ok(())
    }

    fn capture(&self) -> Result<(), MailboxFull> {
        Ok(())
    }

    fn stop(self: Box<Self>) -> EngineReport {
        unreachable!("the run ends it, not the conductor")
    }
}

/// Answers every offer, connects after a while, if at all, and loses the connection to a goodbye of the
/// server's after another while, if at all.
async fn answer(
    mut commands: mpsc::UnboundedReceiver<(PeerId, PeerCommand)>,
    context: Rc<Context>,
    workers: Rc<RefCell<Workers>>,
    connected_after: Option<Duration>,
    closed_after: Option<Duration>,
) {
    let router = Rc::clone(&context);
    let tell = move |peer, notice| {
        let at_unix_ns = router.clock.unix_ns(now());
        router::handle(&router, &workers, EngineEvent::Peer { peer, at_unix_ns, notice });
    };
    while let Some((peer, command)) = commands.recv().await {
        match command {
            PeerCommand::CreateOffer { id, .. } | PeerCommand::RestartIce { id } => {
                tell(peer, PeerNotice::Offer { id, sdp: "v=0\r\n".to_owned() });
            }
            PeerCommand::Offer { .. } | PeerCommand::Answer { .. } => {
                if let PeerCommand::Offer { id, .. } = command {
                    tell(peer, PeerNotice::Answer { offer_id: id, sdp: "v=0\r\n".to_owned() });
                }
                if let Some(after) = connected_after {
                    let tell = tell.clone();
                    spawn_local(async move {
                        tokio::time::sleep(after).await;
                        tell(peer, PeerNotice::IceConnected);
                        tell(peer, PeerNotice::Connected);
                        if let Some(after) = closed_after {
                            tokio::time::sleep(after).await;
                            let failure = Box::new(stampede_core::MediaFailure::Closed);
                            tell(peer, PeerNotice::Disconnected { failure });
                        }
                    });
                }
            }
            PeerCommand::LastFrame => {
                let at_unix_ns = Some(context.clock.unix_ns(now()));
                tell(peer, PeerNotice::LastFrame { at_unix_ns });
            }
            PeerCommand::NextFrame => {
                let tell = tell.clone();
                spawn_local(async move {
                    tokio::time::sleep(FRAME_INTERVAL).await;
                    tell(peer, PeerNotice::NextFrame);
                });
            }
            PeerCommand::Close => tell(peer, PeerNotice::Closed),
            _ => {}
        }
    }
}

/// A server and the way to it.
struct Rig {
    wire: Arc<Wire>,
    streams: mpsc::UnboundedReceiver<DuplexStream>,
    connected_after: Option<Duration>,
    closed_after: Option<Duration>,
    /// Participants that have started and never end.
    stuck: usize,
    /// Media connections do as they like, by this.
    media: Option<Rng>,
    /// What participants speak; what most scripts do unless it is said.
    signal: Signal,
    v1_max: usize,
    /// See [`Peers::full_from`].
    full_from: Option<usize>,
    /// The ramp is paused from the one to the other.
    paused: Option<[Duration; 2]>,
}

/// What became of a run. Times are since its begin.
struct Played {
    ending: Ending,
    joins: JoinSection,
    recoveries: RecoveryGroups,
    faults: Vec<FaultRow>,
    signalling: SignallingSection,
    dialled: Vec<Duration>,
    /// Of the peers, in the order in which they were made.
    identities: Vec<String>,
    /// Everybody who had started has ended.
    over: bool,
    peers_open: usize,
    begin: Option<Duration>,
    end: Duration,
    /// From the first word to leave to the end.
    leaving: Duration,
}

impl Rig {
    fn new() -> Self {
        let (server, streams) = mpsc::unbounded_channel();
        let wire = Wire {
            server,
            dialled: Mutex::default(),
            refuses: AtomicBool::new(false),
            open: Arc::default(),
        };
        let connected_after = Some(CONNECTED_AFTER);
        let signal = Signal::Only(SignalVersion::V0);
        let wire = Arc::new(wire);
        Self {
            wire,
            streams,
            connected_after,
            closed_after: None,
            stuck: 0,
            media: None,
            signal,
            v1_max: usize::MAX,
            full_from: None,
            paused: None,
        }
    }

    /// Plays a draft against a server that does this with each websocket.
    async fn play(self, draft: Draft, script: impl AsyncFn(usize, Socket) + 'static) -> Played {
        LocalSet::new().run_until(self.play_here(draft, script)).await
    }

    async fn play_here(
        self,
        draft: Draft,
        script: impl AsyncFn(usize, Socket) + 'static,
    ) -> Played {
        let url = Some("ws://server.invalid".to_owned());
        let (api_key, api_secret) = (Some("key".to_owned()), "secret".parse().ok());
        let draft = Draft { url, api_key, api_secret, signal: self.signal, ..draft };
        let scenario = Scenario::new(draft).unwrap();
        let Target::Server(server) = scenario.target.clone() else { panic!("no server") };
        let participants = Participants::new(&scenario, &Clips::default(), "test", 1);
        let settings = Settings {
            watch_rules: scenario.watch_rules,
            pauses: Pauses::default(),
            timelines: false,
            clock: RunClock::start(),
            credentials: server.credentials,
            url: server.url,
            addresses: Arc::from([]),
            network: Network {
                tls: TlsSetup::new().unwrap(),
                proxies: Proxies::none(),
                proxy: None,
                dial: Some(Arc::clone(&self.wire) as _),
            },
            local_ip: std::net::Ipv4Addr::LOCALHOST.into(),
            retry: scenario.retry,
            retry_sleep: scenario.retry_sleep,
            reconnect_tries: scenario.reconnect.tries(),
            signal: scenario.signal,
            transport: scenario.transport,
            faults: scenario.faults.clone(),
            visits: scenario.audience,
            seed: 1,
            own: Arc::clone(&participants.own),
            stamps: Arc::clone(&participants.own),
            meeting: None,
            obey_dynacast: false,
            message_bytes_max: scenario.message_bytes_max(),
            updates: scenario.has_updates(),
        };
        let (commands, told) = mpsc::unbounded_channel();
        let peers = Arc::new(Peers { full_from: self.full_from, ..Peers::default() });
        let media = NoMedia { commands, peers: Arc::clone(&peers) };
        let context = Rc::new(Context::new(Box::new(media), settings));
        let workers = Rc::default();
        let (own, plane) = (Rc::clone(&context), Rc::clone(&workers));
        match self.media {
            None => spawn_local(answer(told, own, plane, self.connected_after, self.closed_after)),
            Some(rng) => spawn_local(chaos::connect_badly(told, own, plane, rng)),
        };
        spawn_local(serve(self.streams, self.v1_max, script));
        for _ in 0..self.stuck {
            let id = context.joins.borrow_mut().register(false);
            context.joins.borrow_mut().started(id, now());
        }
        let controls = Arc::new(Controls::default());
        if let Some([from, to]) = self.paused {
            let controls = Arc::clone(&controls);
            spawn_local(async move {
                tokio::time::sleep(from).await;
                controls.pause(true);
                tokio::time::sleep(to - from).await;
                controls.pause(false);
            });
        }
        let mut conductor = Conductor {
            context: Rc::clone(&context),
            workers,
            state: Rc::default(),
            scenario: &scenario,
            own_video: false,
            embedded: &mut None,
            interrupted: controls.interrupted(),
            controls,
            ledger_before: None,
            faults: None,
            fault_task: None,
        };
        let ending = conductor.play(participants).await;
        let (measured, ended) = (&ending.measured, now());
        let start = measured.start.unwrap().at;
        let since = |at: Instant| at - start;
        let dialled = self.wire.dialled.lock().unwrap().iter().copied().map(since).collect();
        Played {
            joins: context.joins.borrow().section(),
            recoveries: context.recoveries.borrow().counted(),
            faults: context.recoveries.borrow().faults(),
            signalling: context.signalled.borrow().section(),
            identities: std::mem::take(&mut *peers.made.lock().unwrap()),
            over: context.joins.borrow().started_over(),
            peers_open: peers.open.lock().unwrap().len(),
            dialled,
            begin: measured.begin.map(|mark| since(mark.at)),
            end: since(measured.end.unwrap().at),
            leaving: ended - measured.leaving.unwrap(),
            ending,
        }
    }
}

fn one_subscriber() -> Draft {
    Draft { subscribers: Some(1), duration: Some(ms(30_000)), ..Draft::default() }
}

#[tokio::test(start_paused = true)]
async fn everybody_joins_on_schedule_stays_and_leaves() {
    let draft = Draft {
        subscribers: Some(20),
        joins_per_second: 20.0,
        duration: Some(ms(10_000)),
        ..Draft::default()
    };
    let played = Rig::new()
        .play(draft, async |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    // 20 joins a second; all are connected at the second look after the last of them.
    let window = ms(950 + 100);
    let mut dialled: Vec<Duration> = (0..20).map(|number| ms(50 * number)).collect();
    // At the end the server is asked whether it is there.
    dialled.push(window + ms(10_000));
    assert_eq!(played.dialled, dialled);
    assert_eq!((played.begin, played.end), (Some(window), window + ms(10_000)));
    assert_eq!((played.joins.counted.joined, played.joins.counted.dropped), (20, 0));
    let phases = &played.joins.phases_ms;
    assert!(phases.signal.as_ref().unwrap().max < 1.0);
    let connected = phases.dtls.as_ref().unwrap();
    assert!((connected.min - 80.0).abs() < 0.1 && (connected.max - 80.0).abs() < 0.1);
    assert!(played.leaving < ms(200), "{:?}", played.leaving);
    let Ending { interrupted, ended_early, server_gone, .. } = played.ending;
    assert!(!interrupted && ended_early.is_none() && server_gone.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_of_who_is_waited_for_too() {
    let draft = Draft {
        subscribers: Some(4),
        joins_per_second: 1.0,
        duration: Some(ms(5_000)),
        ..Draft::default()
    };
    let rig = Rig { paused: Some([ms(1_250), ms(4_250)]), ..Rig::new() };
    let played = rig
        .play(draft, async |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    // The third was due within the pause: all from it on come so much later.
    assert_eq!(played.dialled[..4], [0, 1_000, 5_000, 6_000].map(ms), "{:?}", played.dialled);
}

/// Each moment lies its pause after the one before, with up to a second of jitter from the third
/// pause of the schedule on.
#[track_caller]
fn assert_paused(moments: &[Duration], pauses_ms: &[u64]) {
    assert_eq!(moments.len(), pauses_ms.len() + 1, "{moments:?}");
    for (number, (pair, pause_ms)) in moments.windows(2).zip(pauses_ms).enumerate() {
        let jitter = if *pause_ms < 1_200 { ms(0) } else { ms(1_000) };
        let (paused, pause) = (pair[1] - pair[0], ms(*pause_ms));
        assert!((pause..=pause + jitter).contains(&paused), "{number}: {paused:?} for {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_websocket_is_tried_again_as_livekit_client_does_and_then_given_up() {
    let rig = Rig::new();
    let wire = Arc::clone(&rig.wire);
    let draft = Draft { duration: Some(ms(100_000)), ..one_subscriber() };
    let played = rig
        .play(draft, async move |_, mut socket| {
            socket.admit().await;
            tokio::time::sleep(ms(2_000)).await;
            wire.refuses.store(true, Ordering::Relaxed);
        })
        .await;
    assert_eq!(played.dialled[0], Duration::ZERO);
    let (tries, at_the_end) = (&played.dialled[1..11], &played.dialled[11..]);
    assert_eq!((tries[0], at_the_end.len()), (ms(2_000), 1), "and whether the server is there");
    assert_paused(tries, &[300, 1_200, 2_700, 4_800, 7_000, 7_000, 7_000, 7_000, 7_000]);
    assert_eq!((played.joins.counted.joined, played.joins.counted.dropped), (1, 1));
    let RecoveryCounters { tries, recovered, failed, unfinished } = played.recoveries.resume;
    assert_eq!((tries, recovered, failed, unfinished), (10, 0, 10, 0));
    assert_eq!(played.ending.server_gone.unwrap().fault, Fault::Server);
    let early = played.ending.ended_early.unwrap();
    assert!(early.why.contains("everybody dropped out"), "{}", early.why);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_taken_up_again_is_no_drop() {
    let rig = Rig::new();
    let wire = Arc::clone(&rig.wire);
    let played = rig
        .play(one_subscriber(), async move |number, mut socket| {
            if number > 0 {
                socket.send(Response::Reconnect(proto::ReconnectResponse::default())).await;
                return socket.attend().await;
            }
            socket.admit().await;
            tokio::time::sleep(ms(2_000)).await;
            wire.refuses.store(true, Ordering::Relaxed);
            drop(socket);
            tokio::time::sleep(ms(1_000)).await;
            wire.refuses.store(false, Ordering::Relaxed);
        })
        .await;
    let end = ms(100 + 30_000);
    let [join, tries @ .., last] = &played.dialled[..] else { panic!("{:?}", played.dialled) };
    assert_eq!((*join, *last), (ms(0), end));
    assert_paused(&[&[ms(2_000)], tries].concat(), &[0, 300, 1_200]);
    assert_eq!(
        (played.joins.counted.resumed, played.joins.counted.drops, played.joins.counted.joined),
        (1, 0, 1)
    );
    let RecoveryCounters { tries, recovered, failed, unfinished } = played.recoveries.resume;
    assert_eq!((tries, recovered, failed, unfinished), (3, 1, 2, 0));
    assert_eq!(played.end, end);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_any_more_comes_back_anew_under_its_name() {
    let rig = Rig::new();
    let wire = Arc::clone(&rig.wire);
    let played = rig
        .play(one_subscriber(), async move |number, mut socket| {
            match number {
                // The server is killed, and is there again with nothing left.
                0 => {
                    socket.admit().await;
                    tokio::time::sleep(ms(2_000)).await;
                }
                1 => {
                    socket.leave(proto::leave_request::Action::Reconnect).await;
                    socket.attend().await;
                }
                _ => {
                    socket.admit().await;
                    socket.attend().await;
                }
            }
        })
        .await;
    let [join, resume, anew, _] = &played.dialled[..] else { panic!("{:?}", played.dialled) };
    assert_eq!((*join, *resume, *anew), (ms(0), ms(2_000), ms(2_300)), "refused, so the next try");
    assert_eq!(played.identities, ["stampede-test-sub-1-0", "stampede-test-sub-1-0"]);
    let counted = &played.joins.counted;
    assert_eq!((counted.joined, counted.dropped, counted.drops, counted.retries), (1, 0, 1, 0));
    assert_eq!((played.recoveries.resume.failed, played.recoveries.resume.recovered), (1, 0));
    let full = played.recoveries.full_reconnect;
    assert_eq!((full.tries, full.recovered), (1, 1));
    let _ = wire;
}

#[tokio::test(start_paused = true)]
async fn who_is_sent_away_does_not_come_back() {
    for (reason, kind) in [
        (proto::DisconnectReason::ParticipantRemoved, "server_left_participant_removed"),
        (proto::DisconnectReason::RoomDeleted, "server_left_room_deleted"),
        (proto::DisconnectReason::DuplicateIdentity, "server_left_duplicate_identity"),
    ] {
        let played = Rig::new()
            .play(one_subscriber(), async move |_, mut socket| {
                socket.admit().await;
                tokio::time::sleep(ms(2_000)).await;
                socket.send_away(reason).await;
                socket.attend().await;
            })
            .await;
        assert_eq!(played.dialled.len(), 2, "the join, and whether the server is there");
        assert_eq!(played.joins.errors.get(kind), Some(&1), "{:?}", played.joins.errors);
        assert_eq!((played.joins.counted.dropped, played.joins.counted.drops), (1, 1));
    }
}

/// A server that closes the media connection says why over the websocket, which may be later.
#[tokio::test(start_paused = true)]
async fn a_goodbye_of_the_media_waits_for_the_words_of_the_websocket() {
    let rig = Rig { closed_after: Some(ms(2_000)), ..Rig::new() };
    let played = rig
        .play(one_subscriber(), async move |_, mut socket| {
            socket.admit().await;
            tokio::time::sleep(CONNECTED_AFTER + ms(2_400)).await;
            socket.send_away(proto::DisconnectReason::ParticipantRemoved).await;
            socket.attend().await;
        })
        .await;
    assert_eq!(played.dialled.len(), 2, "the join, and whether the server is there");
    let errors = serde_json::json!({ "server_left_participant_removed": 1 });
    assert_eq!(serde_json::json!(played.joins.errors), errors);
}

/// Without a word the media connection is lost, a little later.
#[tokio::test(start_paused = true)]
async fn a_goodbye_without_words_is_a_lost_connection() {
    let rig = Rig { closed_after: Some(ms(2_000)), ..Rig::new() };
    let played = rig
        .play(one_subscriber(), async move |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    assert_eq!(played.joins.errors.get("media_lost"), Some(&1), "{:?}", played.joins.errors);
    let resumed = CONNECTED_AFTER + ms(2_000 + 500);
    let dialled = played.dialled[1];
    assert!((resumed..resumed + ms(100)).contains(&dialled), "{:?}", played.dialled);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_server_that_does_not_answer_a_leave() {
    let silent = async |_, mut socket: Socket| {
        socket.admit().await;
        std::future::pending::<()>().await;
    };
    let draft = Draft { subscribers: Some(3), ..one_subscriber() };
    let played = Rig::new().play(draft, silent).await;
    assert_eq!(played.joins.counted.joined, 3);
    // As long as a participant waits for the close of the server, and a look.
    assert!((ms(1_000)..ms(1_100)).contains(&played.leaving), "{:?}", played.leaving);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_does_not_end_holds_neither_the_window_nor_the_leave() {
    let rig = Rig { stuck: 1, ..Rig::new() };
    let played = rig
        .play(one_subscriber(), async |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    assert_eq!(played.begin, Some(JOINS_TIMEOUT));
    assert_eq!(played.leaving, LEAVE_TIMEOUT * 2, "subscribers, then everybody");
}

#[tokio::test(start_paused = true)]
async fn media_that_does_not_connect_is_given_up_in_time() {
    let rig = Rig { connected_after: None, ..Rig::new() };
    let draft = Draft { duration: Some(ms(60_000)), ..one_subscriber() };
    let played = rig
        .play(draft, async |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    assert_eq!(played.begin, Some(JOINS_TIMEOUT));
    assert_eq!(played.joins.errors.get("media_timeout"), Some(&1));
    // 30 s for ICE and DTLS, and one for the media plane to say why not.
    assert!((ms(31_000)..=ms(31_100)).contains(&played.end), "{:?}", played.end);
}

#[tokio::test(start_paused = true)]
async fn workers_that_do_not_say_what_they_counted_hold_no_stage_for_long() {
    let stage = |subscribers| Stage { duration: ms(1_000), subscribers };
    let draft = Draft { subscribers: None, stages: vec![stage(2), stage(1)], ..Draft::default() };
    let played = Rig::new()
        .play(draft, async |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    // A stage of a second, then 2 s for the workers, in which the second stage passes.
    assert_eq!((played.begin, played.end), (Some(ms(3_000)), ms(5_000)));
    let rows = played.ending.measured.stages.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.joined, row.left, row.loss_rate)).collect();
    assert_eq!(rows, [(2, 0, None), (0, 1, None)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_done_on_purpose_is_done_on_schedule_and_told() {
    let faults = ["signal_drop,at=5s,share=50%", "leave_rejoin,at=10s,for=2s,share=25%"];
    let draft = Draft {
        subscribers: Some(8),
        faults: faults.map(|text| text.parse().unwrap()).to_vec(),
        ..one_subscriber()
    };
    let played = Rig::new()
        .play(draft, async |number, mut socket| {
            match (8..12).contains(&number) {
                false => socket.admit().await,
                true => {
                    socket.send(Response::Reconnect(proto::ReconnectResponse::default())).await;
                }
            }
            socket.attend().await;
        })
        .await;
    let begin = played.begin.unwrap();
    let at = |moment: Duration| played.dialled.iter().filter(|at| **at == moment).count();
    assert_eq!(at(begin + ms(5_000)), 4, "{:?}", played.dialled);
    assert_eq!(at(begin + ms(12_000)), 2, "{:?}", played.dialled);
    let [dropped, left] = &played.faults[..] else { panic!("{:?}", played.faults) };
    assert_eq!((dropped.fired, dropped.hit, dropped.missed), (1, 4, 0));
    assert_eq!((dropped.recovered, dropped.failed, dropped.unfinished), (4, 0, 0));
    let times = dropped.ms.as_ref().unwrap();
    assert_eq!(times.count, 4);
    assert!((times.max - 33.0).abs() < 1.0, "from the break to the frame after it: {times:?}");
    assert_eq!((left.fired, left.hit, left.recovered), (1, 2, 0));
    let counted = &played.joins.counted;
    assert_eq!((counted.joined, counted.dropped, counted.drops), (8, 0, 0));
    assert_eq!((counted.leaves, counted.rejoins), (2, 2));
    assert!(played.joins.errors.is_empty(), "{:?}", played.joins.errors);
    assert!(played.over);
}

#[tokio::test(start_paused = true)]
async fn who_comes_and_goes_does_so_as_planned() {
    let audience = AudienceDraft {
        stay: Some(ms(5_000)),
        rejoin: Some(1.0),
        away: Some(ms(2_000)),
        ..AudienceDraft::default()
    };
    let draft = Draft {
        subscribers: Some(50),
        joins_per_second: 100.0,
        duration: Some(ms(60_000)),
        audience,
        ..Draft::default()
    };
    let played = Rig::new()
        .play(draft, async |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    let counted = &played.joins.counted;
    // 50 that come again each 7 s in the mean, over a minute.
    assert!((300..550).contains(&counted.leaves), "{counted:?}");
    assert!(counted.leaves - counted.rejoins <= 50, "{counted:?}");
    assert_eq!(played.dialled.len() as u64, 50 + counted.rejoins + 1);
    assert_eq!((counted.joined + counted.pending, counted.dropped), (50, 0));
    assert!(played.joins.errors.is_empty() && played.over, "{:?}", played.joins.errors);
}

mod chaos;
mod overload;
mod signalling;

/// Long after it joined: what was waited for then is not waited for any more.
#[tokio::test(start_paused = true)]
async fn who_changes_its_network_after_an_hour_restarts_its_ice() {
    let draft = Draft {
        subscribers: Some(4),
        duration: Some(ms(3_700_000)),
        faults: vec!["network_change,at=1h".parse().unwrap()],
        ..one_subscriber()
    };
    let played = Rig::new()
        .play(draft, async |number, mut socket| {
            match number < 4 {
                true => socket.admit().await,
                false => socket.take_up(2).await,
            }
            socket.attend().await;
        })
        .await;
    let restart = played.recoveries.ice_restart;
    assert_eq!((restart.tries, restart.recovered), (4, 4), "{:?}", played.recoveries);
    assert_eq!(played.recoveries.full_reconnect.tries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_no_v1_is_joined_by_v0() {
    // Many ask for v1 before the first has got in by v0.
    let draft = Draft {
        subscribers: Some(20),
        joins_per_second: 100_000.0,
        duration: Some(ms(5_000)),
        ..Draft::default()
    };
    let rig = Rig { signal: Signal::Auto, v1_max: 0, ..Rig::new() };
    let played = rig
        .play(draft, async |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    let counted = &played.joins.counted;
    assert_eq!((counted.joined, counted.tries_failed, counted.retries), (20, 0, 0));
    let signalling = &played.joins.signalling;
    assert_eq!((signalling.joined_v0, signalling.joined_v1), (20, 0));
    assert_eq!(played.peers_open, 0, "peers of the tries are closed");
    assert!(played.joins.errors.is_empty() && played.over, "{:?}", played.joins.errors);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_no_v1_is_an_error_where_nothing_else_is_to_be_spoken() {
    let signal = Signal::Only(SignalVersion::V1);
    let rig = Rig { signal, v1_max: 0, ..Rig::new() };
    let played = rig.play(one_subscriber(), async |_, socket| socket.attend().await).await;
    assert_eq!(played.joins.errors.get("http_404"), Some(&1), "{:?}", played.joins.errors);
    assert_eq!((played.joins.counted.joined, played.peers_open), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_single_connection_is_joined_by_its_offer_and_resumed_by_another() {
    let draft = Draft {
        subscribers: Some(4),
        faults: vec!["signal_drop,at=5s".parse().unwrap()],
        ..one_subscriber()
    };
    let rig = Rig { signal: Signal::Auto, ..Rig::new() };
    let played = rig
        .play(draft, async |number, mut socket| {
            match number < 4 {
                true => socket.admit_v1().await,
                false => {
                    socket.send(Response::Reconnect(proto::ReconnectResponse::default())).await;
                    socket.answer(2).await;
                }
            }
            socket.attend().await;
        })
        .await;
    let signalling = &played.joins.signalling;
    assert_eq!((signalling.joined_v0, signalling.joined_v1), (0, 4));
    assert_eq!((played.joins.counted.joined, played.joins.counted.dropped), (4, 0));
    let resume = played.recoveries.resume;
    assert_eq!((resume.tries, resume.recovered), (4, 4), "{:?}", played.recoveries);
    // One peer each: the offer of the join is its own.
    assert_eq!(played.identities.len(), 4);
}

/// Three participants of two connections each lose their websockets, and resume by both.
async fn three_come_back_over_both(rig: Rig, draft: Draft) {
    let played = rig
        .play(draft, async |number, mut socket| {
            match number < 3 {
                true => socket.admit().await,
                false => socket.take_up(2).await,
            }
            socket.take_tracks().await;
        })
        .await;
    let counted = &played.joins.counted;
    assert_eq!((counted.joined, counted.dropped, counted.tries_failed), (3, 0, 0));
    let resume = played.recoveries.resume;
    assert_eq!((resume.tries, resume.recovered), (3, 3), "{:?}", played.recoveries);
    assert_eq!((played.identities.len(), played.peers_open), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn by_v0_who_sends_and_receives_has_two_connections_and_comes_back_over_both() {
    let draft = Draft {
        subscribers: Some(0),
        participants: Some(3),
        faults: vec!["signal_drop,at=5s".parse().unwrap()],
        ..one_subscriber()
    };
    let signal = Signal::Only(SignalVersion::V0);
    let rig = Rig { signal, ..Rig::new() };
    three_come_back_over_both(rig, draft).await;
}

/// Who answers calls sends, and who receives them does both.
#[tokio::test(start_paused = true)]
async fn by_v0_who_is_called_has_two_connections_and_comes_back_over_both() {
    let rpc = stampede_scenario::RpcDraft { callers: Some(1), ..Default::default() };
    let faults = vec!["signal_drop,at=5s".parse().unwrap()];
    let draft = Draft { subscribers: Some(3), rpc, faults, ..one_subscriber() };
    three_come_back_over_both(Rig::new(), draft).await;
}

/// Who can't send has not joined, although it receives.
#[tokio::test(start_paused = true)]
async fn by_v0_both_connections_have_to_stand() {
    let draft = Draft { subscribers: Some(0), participants: Some(1), ..one_subscriber() };
    let signal = Signal::Only(SignalVersion::V0);
    let rig = Rig { signal, ..Rig::new() };
    let played = rig
        .play(draft, async |_, mut socket| {
            socket.admit().await;
            socket.attend().await;
        })
        .await;
    let counted = &played.joins.counted;
    assert_eq!((counted.joined, counted.failed, played.peers_open), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_404_of_a_server_that_speaks_v1_is_an_error_like_any_other() {
    let draft = Draft {
        subscribers: Some(4),
        faults: vec!["leave_rejoin,at=5s".parse().unwrap()],
        ..one_subscriber()
    };
    let rig = Rig { signal: Signal::Auto, v1_max: 4, ..Rig::new() };
    let played = rig
        .play(draft, async |_, mut socket| {
            socket.admit_v1().await;
            socket.attend().await;
        })
        .await;
    let signalling = &played.joins.signalling;
    assert_eq!((signalling.joined_v0, signalling.joined_v1), (0, 4));
    assert_eq!(played.joins.errors.get("http_404"), Some(&4), "{:?}", played.joins.errors);
}

/// However long the server takes to say so.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_not_taken_up_after_a_lost_websocket_is_a_drop() {
    for late_ms in [0, 3_000] {
        let draft =
            Draft { faults: vec!["signal_drop,at=5s".parse().unwrap()], ..one_subscriber() };
        let played = Rig::new()
            .play(draft, async move |number, mut socket| {
                match number {
                    1 => {
                        tokio::time::sleep(ms(late_ms)).await;
                        socket.leave(proto::leave_request::Action::Reconnect).await;
                    }
                    _ => socket.admit().await,
                }
                socket.attend().await;
            })
            .await;
        assert_eq!(played.faults[0].recovered, 1, "{late_ms}: {:?}", played.faults);
        let counted = &played.joins.counted;
        assert_eq!((counted.joined, counted.dropped, counted.drops), (1, 0, 1), "{late_ms}");
    }
}
