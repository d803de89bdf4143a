//! Whole runs in virtual time: every participant with its own websocket over a stream in memory, a
//! server that does what a test says, and a media plane without media.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message as Response;
use stampede_engine::{
    AddPeerError, EngineEvent, EngineReport, MailboxFull, PeerCommand, PeerId, PeerNotice, PeerSpec,
};
use stampede_report::types::JoinSection;
use stampede_scenario::{Clips, Draft, Stage, Target};
use stampede_signaling::connection::{Dial, Dialling};
use stampede_signaling::{Proxies, ServerUrl, TlsSetup};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::clock::RunClock;
use crate::context::Settings;
use crate::media_plane::MediaPlane;
use crate::network::Network;
use crate::router;

/// Bytes under way in each direction.
const BUFFER_BYTES: usize = 64 << 10;
/// From the answer of a peer to its DTLS.
const CONNECTED_AFTER: Duration = Duration::from_millis(80);

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
}

impl Dial for Wire {
    fn dial<'a>(&'a self, _: &'a ServerUrl) -> Dialling<'a> {
        Box::pin(async {
            self.dialled.lock().unwrap().push(now());
            if self.refuses.load(Ordering::Relaxed) {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
            self.server.send(theirs).unwrap();
            Ok(Box::new(ours) as _)
        })
    }
}

/// The server's end of a websocket.
struct Socket(WebSocketStream<DuplexStream>);

impl Socket {
    async fn send(&mut self, message: Response) {
        let bytes = proto::SignalResponse { message: Some(message) }.encode_to_vec();
        self.0.send(Message::Binary(bytes.into())).await.unwrap();
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

    /// Reads on until the client has closed.
    async fn attend(mut self) {
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

/// Numbers the websockets, and gives each to the script.
async fn serve(
    mut streams: mpsc::UnboundedReceiver<DuplexStream>,
    script: impl AsyncFn(usize, Socket) + 'static,
) {
    let (script, mut number) = (Rc::new(script), 0);
    while let Some(stream) = streams.recv().await {
        let script = Rc::clone(&script);
        spawn_local(async move {
            // Who only looks whether the server is there makes no websocket.
            if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                script(number, Socket(socket)).await;
            }
        });
        number += 1;
    }
}

/// A media plane without media.
struct NoMedia {
    commands: mpsc::UnboundedSender<(PeerId, PeerCommand)>,
    peers: AtomicU32,
}

impl MediaPlane for NoMedia {
    fn workers(&self) -> usize {
        1
    }

    fn add_peer(&self, _: PeerSpec) -> Result<PeerId, AddPeerError> {
        Ok(PeerId::new(0, self.peers.fetch_add(1, Ordering::Relaxed)))
    }

    fn command(&self, peer: PeerId, command: PeerCommand) -> Result<(), MailboxFull> {
        self.commands.send((peer, command)).map_err(|_| MailboxFull { worker: 0 })
    }

    fn takes_commands(&self, _: PeerId) -> bool {
        true
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

/// Answers every offer, and connects after a while, if at all.
async fn answer(
    mut commands: mpsc::UnboundedReceiver<(PeerId, PeerCommand)>,
    context: Rc<Context>,
    workers: Rc<RefCell<Workers>>,
    connected_after: Option<Duration>,
) {
    let tell = move |peer, notice| {
        let at_unix_ns = context.clock.unix_ns(now());
        router::handle(&context, &workers, EngineEvent::Peer { peer, at_unix_ns, notice });
    };
    while let Some((peer, command)) = commands.recv().await {
        match command {
            PeerCommand::Offer { id, .. } => {
                tell(peer, PeerNotice::Answer { offer_id: id, sdp: "v=0\r\n".to_owned() });
                if let Some(after) = connected_after {
                    let tell = tell.clone();
                    spawn_local(async move {
                        tokio::time::sleep(after).await;
                        tell(peer, PeerNotice::IceConnected);
                        tell(peer, PeerNotice::Connected);
                    });
                }
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
    /// Participants that have started and never end.
    stuck: usize,
}

/// What became of a run. Times are since its begin.
struct Played {
    ending: Ending,
    joins: JoinSection,
    dialled: Vec<Duration>,
    begin: Option<Duration>,
    end: Duration,
    /// From the first word to leave to the end.
    leaving: Duration,
}

impl Rig {
    fn new() -> Self {
        let (server, streams) = mpsc::unbounded_channel();
        let wire = Wire { server, dialled: Mutex::default(), refuses: AtomicBool::new(false) };
        let connected_after = Some(CONNECTED_AFTER);
        Self { wire: Arc::new(wire), streams, connected_after, stuck: 0 }
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
        let scenario = Scenario::new(Draft { url, api_key, api_secret, ..draft }).unwrap();
        let Target::Server(server) = scenario.target.clone() else { panic!("no server") };
        let participants = Participants::new(&scenario, &Clips::default(), "test", 1);
        let settings = Settings {
            watch_rules: scenario.watch_rules,
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
            own_publishers: participants.own_publishers.clone(),
            obey_dynacast: false,
        };
        let (commands, told) = mpsc::unbounded_channel();
        let media = NoMedia { commands, peers: AtomicU32::new(0) };
        let context = Rc::new(Context::new(Box::new(media), settings));
        let workers = Rc::default();
        spawn_local(answer(told, Rc::clone(&context), Rc::clone(&workers), self.connected_after));
        spawn_local(serve(self.streams, script));
        for _ in 0..self.stuck {
            let id = context.joins.borrow_mut().register(false);
            context.joins.borrow_mut().started(id, now());
        }
        let controls = Arc::new(Controls::default());
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
        };
        let ending = conductor.play(participants).await;
        let (measured, ended) = (&ending.measured, now());
        let start = measured.start.unwrap().at;
        let since = |at: Instant| at - start;
        let dialled = self.wire.dialled.lock().unwrap().iter().copied().map(since).collect();
        Played {
            joins: context.joins.borrow().section(),
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
async fn a_lost_websocket_is_tried_again_after_growing_pauses_and_then_given_up() {
    let rig = Rig::new();
    let wire = Arc::clone(&rig.wire);
    let played = rig
        .play(one_subscriber(), async move |_, mut socket| {
            socket.admit().await;
            tokio::time::sleep(ms(2_000)).await;
            wire.refuses.store(true, Ordering::Relaxed);
        })
        .await;
    let pauses = [0, 300, 1_200, 2_700, 4_800].map(ms);
    let tries = pauses.iter().scan(ms(2_000), |at, pause| {
        *at += *pause;
        Some(*at)
    });
    let dialled: Vec<Duration> = [Duration::ZERO].into_iter().chain(tries).collect();
    assert_eq!(played.dialled[..6], dialled);
    assert_eq!(played.dialled.len(), 7, "and whether the server is there");
    assert_eq!((played.joins.counted.joined, played.joins.counted.dropped), (1, 1));
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
    assert_eq!(played.dialled, [ms(0), ms(2_000), ms(2_300), ms(3_500), end]);
    assert_eq!(
        (played.joins.counted.resumed, played.joins.counted.drops, played.joins.counted.joined),
        (1, 0, 1)
    );
    assert_eq!(played.end, end);
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
