//! One participant: token, websocket, session, peer; again if its join failed or its path broke;
//! until told to leave.

mod joined;
mod orders;
mod peers;
mod resolving;
mod updates;
mod words;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaFailure;
use stampede_engine::{PeerCommand, PeerId, PeerNotice};
use stampede_scenario::{ParticipantSpec, Signal, Visit};
use stampede_signaling::connection::{ConnectError, ConnectOptions, Connection};
use stampede_signaling::session::{EndReason, FIRST_OFFER_ID, FIRST_SLOTS, SignalVersion, WayBack};
use stampede_signaling::{ErrorKind, JoinGrant, TOKEN_TTL, Token, TokenError};
use tokio::sync::watch;

use crate::clock::now;
use crate::context::{Context, Leaving};
use crate::join_error::JoinError;
use crate::joins::{JoinPhase, ParticipantId, TRY_SUFFIX};
use crate::reconnect;
use crate::recoveries::Way;
use crate::routes::Notices;
use joined::Joined;
pub(crate) use orders::{Order, Orders, Place, What};
use peers::Peers;

/// How long a leaving participant waits for its `leave` to get out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Most things done to a participant on purpose that a break may be put down to; one more is put down
/// to none of them.
const BLAMES_MAX: usize = 16;
/// How long a peer may take to make its first offer: a worker that is so far behind measures nothing.
const OFFER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before what found the worker's mailbox full is tried again, and how often.
pub(crate) const MAILBOX_PAUSE: Duration = Duration::from_millis(10);
pub(crate) const MAILBOX_TRIES: usize = 200;

/// Who joins, and as what.
pub(crate) struct Participant {
    /// Its place in the join statistics.
    pub id: ParticipantId,
    /// Who it is; [`Life::identity`] is that of the try under way.
    pub spec: ParticipantSpec,
    /// When it was to start.
    pub scheduled: Instant,
    /// Tries to join so far, the one under way included.
    pub tries: Cell<u32>,
    /// Updates that it has made of itself.
    pub updates: Cell<u32>,
    /// What is done to this one alone.
    pub orders: Rc<Orders>,
}

/// When a participant is to leave: with its kind, alone before, or when its stay is over.
struct Departure {
    leaving: watch::Receiver<Leaving>,
    last: Leaving,
    own: Rc<Orders>,
    /// When its stay is over.
    stays_until: Option<Instant>,
}

impl Departure {
    /// It was told to leave, for good.
    fn is_told(&self) -> bool {
        self.own.leaves() || *self.leaving.borrow() >= self.last
    }

    fn is_due(&self) -> bool {
        self.is_told() || self.stays_until.is_some_and(|at| now() >= at)
    }

    /// Waits until it is told to leave for good.
    async fn told(&mut self) {
        tokio::select! {
            // The sender lives in the context as long as any participant.
            _ = self.leaving.wait_for(|leaving| *leaving >= self.last) => {}
            () = self.own.told_to_leave() => {}
        }
    }

    async fn due(&mut self) {
        match self.stays_until {
            None => self.told().await,
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                () = self.told() => {}
            },
        }
    }
}

/// What outlasts a single session.
struct Life {
    /// The identity on the server. Further tries to join have fresh ones: the server may still hold
    /// the first participant, would evict one for the other, and remembers failures by identity.
    /// Who has joined once keeps its own.
    identity: String,
    /// Its room: the server may move it to another.
    room: Rc<str>,
    /// The server's latest token.
    token: Option<Token>,
    /// It was connected.
    joined: bool,
    /// Tries to come back since it last stood.
    tried: u32,
    /// It is known whose fault it is that it does not stand.
    explained: Cell<bool>,
    /// What was done to it on purpose, the latest last, and until when a break is put down to it.
    blames: Vec<(Order, Instant)>,
    /// What was asked of the server that breaks its next way back as soon as that stands, and until
    /// when.
    trap: Option<(Order, Instant)>,
    /// Nothing comes through before.
    dark_until: Option<Instant>,
}

impl Life {
    fn new(participant: &Participant) -> Self {
        let own = &participant.spec.identity;
        let identity = match participant.tries.get() {
            0 | 1 => own.clone(),
            // A token names one.
            _ if participant.spec.token.is_some() => own.clone(),
            tries => format!("{own}{TRY_SUFFIX}{tries}"),
        };
        let room = Rc::clone(&participant.spec.room);
        Self {
            identity,
            room,
            token: None,
            joined: false,
            tried: 0,
            explained: Cell::new(false),
            blames: Vec::new(),
            trap: None,
            dark_until: None,
        }
    }

    /// Something is done to it on purpose: breaks are put down to it until then.
    fn blame(&mut self, order: Order, until: Instant) {
        let now = now();
        self.blames.retain(|(before, until)| now < *until && before.fault != order.fault);
        if self.blames.len() < BLAMES_MAX {
            self.blames.push((order, until));
        }
    }

    /// What breaks now was broken by the latest such thing.
    fn fault(&self, is_such: impl Fn(&Order) -> bool) -> Option<Order> {
        let now = now();
        let holds = |(order, until): &&(Order, Instant)| now < *until && is_such(order);
        self.blames.iter().rev().find(holds).map(|(order, _)| *order)
    }

    /// The pause before the next try to come back; `None` if there is none. Nobody waits where the
    /// server asked for it.
    fn pause(&mut self, context: &Context, asked_for: bool) -> Option<Duration> {
        let jitter = context.jitter.borrow_mut().f64();
        let pause = reconnect::pause(self.tried, context.reconnect_tries, jitter)?;
        self.tried += 1;
        let pause = if asked_for { Duration::ZERO } else { pause };
        // What is dialled while nothing comes through waits for that to end.
        let dark = self.dark_until.map_or(Duration::ZERO, |at| at.saturating_duration_since(now()));
        Some(pause.max(dark))
    }
}

/// How one session ended.
#[derive(Debug)]
enum SessionEnd {
    /// It was told to leave.
    Left,
    /// It was told to leave and to join again after so long.
    Rejoins(Duration),
    /// It broke.
    Broke(Broken),
}

/// How a session broke.
#[derive(Debug)]
struct Broken {
    /// For `join.errors`.
    why: JoinError,
    /// For the log.
    detail: String,
    /// Whether another try to join can help.
    retryable: bool,
    /// How it comes back if it was connected.
    back: WayBack,
    /// The server asked for it.
    asked_for: bool,
}

impl Broken {
    fn new(why: JoinError, detail: impl ToString) -> Self {
        let (retryable, back) = (true, WayBack::Reconnect);
        Self { why, detail: detail.to_string(), retryable, back, asked_for: false }
    }

    /// Notices of its peer were lost: its route was full.
    fn notices_lost() -> Self {
        Self::new(
            JoinError::SignallingOverloaded,
            "more notices of the media plane than its task could handle",
        )
    }
}

impl From<ConnectError> for Broken {
    fn from(error: ConnectError) -> Self {
        Self {
            retryable: error.is_retryable(),
            back: may_dial_again(&error),
            ..Self::new(error.kind().into(), error)
        }
    }
}

impl From<&EndReason> for Broken {
    fn from(reason: &EndReason) -> Self {
        Self {
            retryable: reason.is_retryable(),
            back: reason.way_back(),
            asked_for: reason.is_asked_for(),
            ..Self::new(reason.kind().into(), reason)
        }
    }
}

impl From<&MediaFailure> for Broken {
    fn from(failure: &MediaFailure) -> Self {
        Self::new(failure.into(), failure)
    }
}

/// Who is not allowed in gives up (client-sdk-js src/room/RTCEngine.ts, `NotAllowed`); everything
/// else may be better the next time.
fn may_dial_again(error: &ConnectError) -> WayBack {
    match error.kind() {
        ErrorKind::Http(Some(401 | 403)) => WayBack::None,
        _ => WayBack::Reconnect,
    }
}

/// How a stay in the room ended.
enum StayEnd {
    /// It was told to leave.
    Left,
    /// It comes again after so long.
    Rejoins(Duration),
    /// It gave up, or was sent away.
    Over { gave_up: bool },
}

/// Runs a participant to its end. `scheduled` has come, and the accounts know of it.
pub(crate) async fn run(context: Rc<Context>, mut participant: Participant) {
    let id = participant.id;
    let last = match participant.spec.receives() {
        true => Leaving::Subscribers,
        false => Leaving::Everybody,
    };
    let (leaving, own) = (context.leaving.subscribe(), Rc::clone(&participant.orders));
    let mut departure = Departure { leaving, last, own, stays_until: None };
    let mut number = 0;
    let gave_up = loop {
        let visit = visit(&context, &participant, number);
        departure.stays_until = visit.stays.map(|stays| participant.scheduled + stays);
        let end = stay(&context, &participant, &mut departure).await;
        // By plan, not by when it was ready to: so a server that is slow does not thin out what
        // was planned.
        let returns = match end {
            StayEnd::Over { gave_up } => break gave_up,
            StayEnd::Left if departure.is_told() => break false,
            StayEnd::Left => departure.stays_until.zip(visit.returns_after).map(|(at, a)| at + a),
            StayEnd::Rejoins(after) => Some(now() + after),
        };
        context.joins.borrow_mut().leaves(id, returns.is_some());
        let Some(at) = returns else { break false };
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            () = departure.told() => break false,
        }
        number += 1;
        participant.scheduled = at;
        participant.tries.set(0);
        context.joins.borrow_mut().rejoins(id, at);
        context.audience.borrow_mut().scheduled(id, at);
    };
    context.joins.borrow_mut().over(id, gave_up);
    context.changed.notify_waiters();
}

/// How long it stays this time, and when it comes back. Who only sends stays to the end.
fn visit(context: &Context, participant: &Participant, number: u32) -> Visit {
    let (plan, seed) = &context.visits;
    match participant.spec.receives() {
        true => plan.visit(*seed, &participant.spec.identity, number),
        false => Visit { stays: None, returns_after: None },
    }
}

/// From a join to its end, with all that breaks and comes back between.
async fn stay(context: &Context, participant: &Participant, departure: &mut Departure) -> StayEnd {
    let id = participant.id;
    participant.tries.set(participant.tries.get() + 1);
    let mut life = Life::new(participant);
    loop {
        let end = session(context, participant, &mut life, departure).await;
        let broken = match end {
            SessionEnd::Broke(broken) => broken,
            SessionEnd::Left => {
                left(context, participant, &life);
                return StayEnd::Left;
            }
            SessionEnd::Rejoins(after) => {
                left(context, participant, &life);
                return StayEnd::Rejoins(after);
            }
        };
        let Broken { why, detail, .. } = &broken;
        let kind = why.key();
        context.happened(&life.identity, || format!("ended: {kind}: {detail}"));
        tracing::debug!("{}: {kind}: {detail}", life.identity);
        context.joins.borrow_mut().said(why, detail);
        let next = match life.joined {
            true => return_after(context, participant, &mut life, &broken),
            false => retry_after(context, participant, &life, &broken),
        };
        context.changed.notify_waiters();
        let pause = match next {
            Next::After(pause) => pause,
            Next::Over { gave_up } => return StayEnd::Over { gave_up },
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = departure.due() => {
                left(context, participant, &life);
                // Of a join that failed nothing is made up for by the end of the run.
                return match life.joined || !departure.is_told() {
                    true => StayEnd::Left,
                    false => StayEnd::Over { gave_up: true },
                };
            }
        }
        if !life.joined {
            participant.tries.set(participant.tries.get() + 1);
            context.joins.borrow_mut().retried(id);
            life = Life::new(participant);
        }
    }
}

/// What follows after a session broke.
enum Next {
    /// Another one, after this pause.
    After(Duration),
    /// Nothing.
    Over { gave_up: bool },
}

/// Enters a join that failed.
fn retry_after(context: &Context, participant: &Participant, life: &Life, broken: &Broken) -> Next {
    gone(context, participant, life, now(), Some(&broken.why));
    context.joins.borrow_mut().broke(participant.id, &broken.why);
    match broken.retryable && participant.tries.get() <= context.retry {
        true => Next::After(context.retry_sleep),
        false => Next::Over { gave_up: true },
    }
}

/// Enters the end of a session of who was connected.
fn return_after(
    context: &Context,
    participant: &Participant,
    life: &mut Life,
    broken: &Broken,
) -> Next {
    let id = participant.id;
    let order = life.fault(|_| true);
    let left_by_server = matches!(broken.why, JoinError::Signalling(ErrorKind::ServerLeft(_)));
    if let Some(order) = order.filter(|order| left_by_server && order.what.sends_away()) {
        // Nothing is expected of who was sent away on purpose.
        context.recoveries.borrow_mut().sent_away(id, order.fault);
        left(context, participant, life);
        return Next::Over { gave_up: false };
    }
    let at = now();
    gone(context, participant, life, at, Some(&broken.why));
    let mut recoveries = context.recoveries.borrow_mut();
    recoveries.failed(id);
    let pause = match broken.back {
        WayBack::None => None,
        WayBack::Resume | WayBack::Reconnect => life.pause(context, broken.asked_for),
    };
    match pause {
        // A session that only a websocket was taken from is still the server's to take up again.
        Some(pause) => {
            let fault = recoveries.fault_of(id);
            let on_purpose = fault.is_some_and(|fault| !recoveries.is_signal_only(fault));
            context.joins.borrow_mut().fell_out(id, &broken.why, at, on_purpose);
            Next::After(pause)
        }
        // Nobody was asked to take it back, so that what was done on purpose ended its stay.
        None if context.reconnect_tries == 0 && recoveries.fault_of(id).is_some() => {
            recoveries.gave_up(id);
            drop(recoveries);
            left(context, participant, life);
            Next::Over { gave_up: false }
        }
        None => {
            recoveries.gave_up(id);
            context.joins.borrow_mut().broke(id, &broken.why);
            Next::Over { gave_up: true }
        }
    }
}

/// Enters that the path of who was connected is broken, and by what if on purpose; what counts is the
/// first. To be called before anything is changed of the peer: it is asked for its last frame.
fn path_broke(context: &Context, id: ParticipantId, peer: PeerId, at: Instant, by: Option<Order>) {
    let (at_unix_ns, fault) = (context.clock.unix_ns(at), by.map(|order| order.fault));
    context.recoveries.borrow_mut().broke(id, at, at_unix_ns, fault);
    // Without an answer the break itself stands for it.
    let _ = context.command(peer, PeerCommand::LastFrame);
}

/// It leaves as it was told to.
fn left(context: &Context, participant: &Participant, life: &Life) {
    gone(context, participant, life, now(), None);
    context.recoveries.borrow_mut().left(participant.id);
    let mut joins = context.joins.borrow_mut();
    joins.stands(participant.id);
    joins.disconnected(participant.id);
}

/// Tells the accounts that it is gone: told to leave, or for this reason.
fn gone(
    context: &Context,
    participant: &Participant,
    life: &Life,
    at: Instant,
    broke: Option<&JoinError>,
) {
    let id = participant.id;
    context.signalled.borrow_mut().absent(id);
    let mut audience = context.audience.borrow_mut();
    let reason = broke.map(JoinError::key);
    if participant.spec.publishes() {
        audience.publisher_gone(&life.room, &participant.spec.identity, at, reason.as_deref());
    }
    if participant.spec.receives() {
        match &reason {
            Some(reason) => audience.disconnected(id, at, reason),
            None => audience.left(id, at),
        }
    }
    if let (Some(why), Some(reason)) = (broke, reason)
        && why.class().tells()
        && !life.explained.replace(true)
    {
        audience.explained(id, (&life.room, &participant.spec.identity), at, &reason);
    }
}

/// One session, from its websocket to its end.
async fn session(
    context: &Context,
    participant: &Participant,
    life: &mut Life,
    departure: &mut Departure,
) -> SessionEnd {
    if departure.is_due() {
        return SessionEnd::Left;
    }
    if life.joined {
        context.recoveries.borrow_mut().tries(participant.id, Way::FullReconnect);
    }
    let mut version = context.signal_version.get().unwrap_or(context.signal.first());
    loop {
        let added = Box::pin(Peers::add(context, participant, life, version)).await;
        let (mut peers, mut notices) = match added {
            None => return SessionEnd::Left,
            Some(Ok(added)) => added,
            Some(Err(broken)) => return SessionEnd::Broke(broken),
        };
        // What is done once is boxed: a task is as large as the largest state it ever waits in, for
        // as long as its participant stays.
        let opened = tokio::select! {
            opened = Box::pin(open(context, participant, life, version, &mut peers, &mut notices)) => {
                opened
            }
            () = departure.due() => Err(NotOpen::Left),
        };
        let end = match opened {
            Ok(mut connection) => {
                let connection = &mut connection;
                return attend(
                    context,
                    participant,
                    life,
                    departure,
                    peers,
                    connection,
                    &mut notices,
                )
                .await;
            }
            Err(NotOpen::Left) => Some(SessionEnd::Left),
            Err(NotOpen::Broke(broken)) => Some(SessionEnd::Broke(broken)),
            Err(NotOpen::UnknownVersion) => {
                version = SignalVersion::V0;
                context.happened(&life.identity, || "the server knows no v1".to_owned());
                None
            }
        };
        Box::pin(peers.close(context)).await;
        if let Some(end) = end {
            return end;
        }
    }
}

/// Why there is no websocket.
enum NotOpen {
    /// It was told to leave meanwhile.
    Left,
    /// The server does not know the protocol, and another may be tried.
    UnknownVersion,
    /// It can't be had.
    Broke(Broken),
}

impl From<Broken> for NotOpen {
    fn from(broken: Broken) -> Self {
        Self::Broke(broken)
    }
}

/// Opens the websocket. Over a single connection the first offer of who receives goes along with it.
async fn open(
    context: &Context,
    participant: &Participant,
    life: &Life,
    version: SignalVersion,
    peers: &mut Peers,
    notices: &mut Notices,
) -> Result<Box<Connection>, NotOpen> {
    context.happened(&life.identity, || format!("join of room {}", life.room));
    let mut options = connect_options(context, participant, life, version)?;
    if version == SignalVersion::V1 && participant.spec.receives() {
        let offer = first_offer(context, peers.main(), notices).await?;
        context.happened(&life.identity, || format!("our offer with it, {} bytes", offer.len()));
        options.session.first_offer = Some(offer);
    }
    let connection = match Connection::connect(options).await {
        Ok(connection) => connection,
        Err(ConnectError::Http { status: 404, .. })
            if (context.signal, version) == (Signal::Auto, SignalVersion::V1)
                && context.signal_version.get() != Some(SignalVersion::V1) =>
        {
            return Err(NotOpen::UnknownVersion);
        }
        Err(error) => return Err(Broken::from(error).into()),
    };
    context.signal_version.set(Some(version));
    let at = connection.timings().websocket;
    context.reached_now(participant.id, JoinPhase::Websocket, participant.scheduled, at);
    context.happened(&life.identity, || format!("websocket open, peer {}", peers.main()));
    Ok(Box::new(connection))
}

/// What the peer offers to receive by.
async fn first_offer(
    context: &Context,
    peer: PeerId,
    notices: &mut Notices,
) -> Result<String, Broken> {
    let (id, added) = (FIRST_OFFER_ID, FIRST_SLOTS);
    tell(context, peer, PeerCommand::CreateOffer { id, added, publish: false }).await?;
    let answer = async {
        loop {
            match notices.recv().await {
                Some((_, PeerNotice::Offer { sdp, .. })) => return Ok(sdp),
                Some((_, PeerNotice::NegotiationFailed { reason })) => {
                    return Err(Broken::from(&EndReason::NegotiationFailed { reason }));
                }
                Some(_) => {}
                None => return Err(Broken::notices_lost()),
            }
        }
    };
    let late = || format!("the peer made no offer within {OFFER_TIMEOUT:?}");
    let answer = tokio::time::timeout(OFFER_TIMEOUT, answer).await;
    answer.unwrap_or_else(|_| Err(Broken::new(JoinError::WorkerOverloaded, late())))
}

/// Serves a session whose websocket is open, to its end.
async fn attend(
    context: &Context,
    participant: &Participant,
    life: &mut Life,
    departure: &mut Departure,
    peers: Peers,
    connection: &mut Connection,
    notices: &mut Notices,
) -> SessionEnd {
    let mut joined = Joined::new(context, participant, life, peers);
    let end = joined.hold(connection, notices, departure).await;
    let peers = joined.into_peers();
    life.token = connection.session().refreshed_token().cloned().or(life.token.take());
    for order in participant.orders.take_back() {
        // Of a move whoever asks the server knows.
        if order.what != What::Moving {
            context.recoveries.borrow_mut().missed(order.fault);
        }
    }
    if let SessionEnd::Broke(_) = &end
        && life.joined
    {
        path_broke(context, participant.id, peers.main(), now(), life.fault(|_| true));
    }
    // From here on nothing is expected of the server, or nothing can be had of it.
    match &end {
        SessionEnd::Left | SessionEnd::Rejoins(_) => gone(context, participant, life, now(), None),
        SessionEnd::Broke(broken) => gone(context, participant, life, now(), Some(&broken.why)),
    }
    peers.leave(context);
    context.joins.borrow_mut().session_ended(connection.session().counters());
    // The server stops sending before the peer closes, so that nothing it sent goes uncounted.
    Box::pin(connection.leave(LEAVE_TIMEOUT)).await;
    context.happened(&life.identity, || "leave sent".to_owned());
    peers.close(context).await;
    end
}

fn connect_options(
    context: &Context,
    participant: &Participant,
    life: &Life,
    version: SignalVersion,
) -> Result<ConnectOptions, Broken> {
    let grant = JoinGrant {
        room: &life.room,
        identity: &life.identity,
        can_publish: participant.spec.publishes() || participant.spec.sends_data(),
        can_publish_data: participant.spec.sends_data() || participant.spec.role.rpc,
        can_subscribe: participant.spec.receives(),
        hidden: participant.spec.hidden,
        ttl: TOKEN_TTL,
        profile: &participant.spec.profile,
    };
    let signed = || match &context.credentials {
        Some(credentials) => credentials.join_token(&grant),
        None => Err(TokenError::EmptySecret),
    };
    let token = match life.token.as_ref().or(participant.spec.token.as_ref()) {
        Some(token) => token.clone(),
        None => signed().map_err(|error| Broken {
            retryable: false,
            back: WayBack::None,
            ..Broken::new(JoinError::BadToken, error)
        })?,
    };
    let (url, role) = (context.url.clone(), participant.spec.role.clone());
    let mut options = ConnectOptions::new(url, token, role, context.network.tls.clone());
    options.session.version = version;
    options.session.watch_others = context.updates;
    options.session.meet_others = participant.spec.calls();
    options.message_bytes_max = context.message_bytes_max;
    options.proxy.clone_from(&context.network.proxy);
    options.dial.clone_from(&context.network.dial);
    options.addresses = Some(Arc::clone(&context.addresses));
    Ok(options)
}

/// Tells a peer something; an end if that can't be done. Waits a while for room in its worker's
/// mailbox.
async fn tell(context: &Context, peer: PeerId, command: PeerCommand) -> Result<(), Broken> {
    for _ in 0..MAILBOX_TRIES {
        if context.takes_commands(peer) {
            break;
        }
        tokio::time::sleep(MAILBOX_PAUSE).await;
    }
    let sent = context.command(peer, command);
    sent.map_err(|full| Broken::new(JoinError::WorkerOverloaded, full))
}

/// Closes a peer.
async fn close(context: &Context, peer: PeerId) {
    if tell(context, peer, PeerCommand::Close).await.is_err() {
        // It then lives until the engine stops.
        tracing::warn!("peer {peer} could not be closed: its worker takes no commands");
    }
}
