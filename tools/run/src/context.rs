//! What every task of a run shares. All of it lives on the signalling thread.

use std::cell::{Cell, Ref, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::watch::Rules;
use stampede_engine::{AddPeerError, MailboxFull, PeerCommand, PeerId, PeerSpec, Transport};
use stampede_impair::{Rng, seeded};
use stampede_scenario::{Audience as AudiencePlan, FaultSpec, OwnIdentities, Signal};
use stampede_signaling::session::SignalVersion;
use stampede_signaling::{ApiCredentials, ServerUrl};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::audience::{Audience, Pauses};
use crate::capture::Timelines;
use crate::clock::RunClock;
use crate::joins::{JoinPhase, Joins, ParticipantId};
use crate::media_plane::MediaPlane;
use crate::network::Network;
use crate::recoveries::Recoveries;
use crate::routes::Routes;
use crate::signalled::Signalled;
use crate::target::Target;
use crate::together::Meeting;
use crate::turn_servers::TurnServers;

/// Waits for the first signal.
pub(crate) async fn signalled(interrupted: &mut watch::Receiver<bool>) {
    if interrupted.wait_for(|signalled| *signalled).await.is_err() {
        // No handler could be installed: there will be none.
        std::future::pending::<()>().await;
    }
}

/// All tasks of participants, kept to the end of the run.
pub(crate) type Tasks = Vec<JoinHandle<()>>;

/// Who is told to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaving {
    /// Join and stay.
    Nobody,
    /// Subscribers leave.
    Subscribers,
    /// Everybody leaves.
    Everybody,
}

/// Shared by all tasks of a run.
pub(crate) struct Context {
    engine: RefCell<Option<Box<dyn MediaPlane>>>,
    /// Who joined and why not.
    pub joins: RefCell<Joins>,
    /// Who should see what, and who did.
    pub audience: RefCell<Audience>,
    /// Woken whenever a participant connects or gives up.
    pub changed: Notify,
    /// Which task an engine event is for.
    pub routes: RefCell<Routes>,
    /// What the participants' signalling went through, for the flight recorder.
    pub timelines: RefCell<Timelines>,
    /// Captures that were asked for during the run and could not be written.
    pub capture_errors: RefCell<Vec<String>>,
    /// Both clocks.
    pub clock: RunClock,
    /// Key to the server.
    pub credentials: Option<ApiCredentials>,
    /// The server.
    pub url: ServerUrl,
    /// Its addresses, or those of the proxy on the way to it, resolved once.
    pub addresses: Arc<[SocketAddr]>,
    /// How it is reached.
    pub network: Network,
    /// The addresses of the TURN servers that it names.
    pub turn_servers: TurnServers,
    /// Where the peers' first sockets are bound.
    pub local_ip: IpAddr,
    /// Tells the participants to leave.
    pub leaving: watch::Sender<Leaving>,
    /// Further tries to join.
    pub retry: u32,
    /// Pause before each.
    pub retry_sleep: Duration,
    /// Tries to come back of who was connected.
    pub reconnect_tries: u32,
    /// Which signalling protocol participants speak.
    pub signal: Signal,
    /// The one that the server has spoken to anybody.
    pub signal_version: Cell<Option<SignalVersion>>,
    /// Who comes back, and how.
    pub recoveries: RefCell<Recoveries>,
    /// Whoever was started, for what is done on purpose.
    pub targets: RefCell<Vec<Target>>,
    /// Of the pauses before tries to come back.
    pub jitter: RefCell<Rng>,
    /// How subscribers come and go, and the seed of it.
    pub visits: (AudiencePlan, u64),
    /// The identities of this run's participants.
    pub own: Arc<OwnIdentities>,
    /// Those of them whose stamps can be set against this host's clock.
    pub stamps: Arc<OwnIdentities>,
    /// Where the hosts of a run wait for each other, if there are several.
    pub meeting: Option<Meeting>,
    /// Publishers stop sending layers that nobody wants.
    pub obey_dynacast: bool,
    /// Longest signalling message taken of the server.
    pub message_bytes_max: usize,
    /// What participants told and heard of each other.
    pub signalled: RefCell<Signalled>,
    /// Somebody makes updates of itself, of which the others are to hear.
    pub updates: bool,
}

impl Context {
    /// Makes one around a running engine.
    pub(crate) fn new(engine: Box<dyn MediaPlane>, settings: Settings) -> Self {
        Self {
            engine: RefCell::new(Some(engine)),
            joins: RefCell::default(),
            audience: RefCell::new(Audience::new(
                settings.watch_rules,
                settings.pauses,
                settings.clock.started,
            )),
            changed: Notify::new(),
            routes: RefCell::default(),
            timelines: RefCell::new(Timelines::new(settings.timelines)),
            capture_errors: RefCell::default(),
            clock: settings.clock,
            credentials: settings.credentials,
            url: settings.url,
            addresses: settings.addresses,
            turn_servers: TurnServers::new(settings.transport, settings.network.dial.is_none()),
            network: settings.network,
            local_ip: settings.local_ip,
            leaving: watch::Sender::new(Leaving::Nobody),
            retry: settings.retry,
            retry_sleep: settings.retry_sleep,
            reconnect_tries: settings.reconnect_tries,
            signal: settings.signal,
            signal_version: Cell::new(None),
            recoveries: RefCell::new(Recoveries::new(&settings.faults)),
            targets: RefCell::default(),
            jitter: RefCell::new(seeded(settings.seed, "reconnect jitter")),
            visits: (settings.visits, settings.seed),
            own: settings.own,
            stamps: settings.stamps,
            meeting: settings.meeting,
            obey_dynacast: settings.obey_dynacast,
            message_bytes_max: settings.message_bytes_max,
            signalled: RefCell::default(),
            updates: settings.updates,
        }
    }

    /// The engine while it runs.
    pub(crate) fn engine(&self) -> Option<Ref<'_, dyn MediaPlane>> {
        Ref::filter_map(self.engine.borrow(), Option::as_deref).ok()
    }

    /// Takes the engine out; tasks that still run can't reach it any more.
    pub(crate) fn take_engine(&self) -> Option<Box<dyn MediaPlane>> {
        self.engine.borrow_mut().take()
    }

    /// Media workers, while the engine runs.
    pub(crate) fn workers(&self) -> usize {
        self.engine().map_or(0, |engine| engine.workers())
    }

    /// Adds a peer, if the engine runs.
    pub(crate) fn add_peer(&self, spec: PeerSpec) -> Option<Result<PeerId, AddPeerError>> {
        self.engine().map(|engine| engine.add_peer(spec))
    }

    /// Tells a peer something; nothing happens once the engine is gone.
    pub(crate) fn command(&self, peer: PeerId, command: PeerCommand) -> Result<(), MailboxFull> {
        self.engine().map_or(Ok(()), |engine| engine.command(peer, command))
    }

    /// True if a command would find room.
    pub(crate) fn takes_commands(&self, peer: PeerId) -> bool {
        self.engine().is_none_or(|engine| engine.takes_commands(peer))
    }

    /// Enters into the flight recorder's timeline what happened to a participant just now.
    pub(crate) fn happened(&self, identity: &str, text: impl FnOnce() -> String) {
        self.timelines.borrow_mut().add(identity, self.clock.since_start(), text);
    }

    /// Enters a phase of a join at this moment.
    pub(crate) fn reached_now(
        &self,
        id: ParticipantId,
        phase: JoinPhase,
        scheduled: Instant,
        at: Instant,
    ) {
        let since = at.saturating_duration_since(scheduled);
        self.joins.borrow_mut().reached(id, phase, since);
    }
}

/// What a [`Context`] is made of besides the engine.
pub(crate) struct Settings {
    /// Somebody makes updates of itself, of which the others are to hear.
    pub updates: bool,
    /// The bounds of watch accounts.
    pub watch_rules: Rules,
    /// The longest pauses of what is published.
    pub pauses: Pauses,
    /// Keep timelines for the flight recorder.
    pub timelines: bool,
    /// Both clocks.
    pub clock: RunClock,
    /// Key to the server.
    pub credentials: Option<ApiCredentials>,
    /// The server.
    pub url: ServerUrl,
    /// Its addresses, resolved once.
    pub addresses: Arc<[SocketAddr]>,
    /// How it is reached.
    pub network: Network,
    /// Where the peers' first sockets are bound.
    pub local_ip: IpAddr,
    /// By what media goes.
    pub transport: Transport,
    /// Further tries to join.
    pub retry: u32,
    /// Pause before each.
    pub retry_sleep: Duration,
    /// Tries to come back of who was connected.
    pub reconnect_tries: u32,
    /// Which signalling protocol participants speak.
    pub signal: Signal,
    /// What is done on purpose.
    pub faults: Vec<FaultSpec>,
    /// How subscribers come and go.
    pub visits: AudiencePlan,
    /// Seed of what is random.
    pub seed: u64,
    /// The identities of this run's participants.
    pub own: Arc<OwnIdentities>,
    /// Those of them whose stamps can be set against this host's clock.
    pub stamps: Arc<OwnIdentities>,
    /// Where the hosts of a run wait for each other, if there are several.
    pub meeting: Option<Meeting>,
    /// Publishers stop sending layers that nobody wants.
    pub obey_dynacast: bool,
    /// Longest signalling message taken of the server.
    pub message_bytes_max: usize,
}
