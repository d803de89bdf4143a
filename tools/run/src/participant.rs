//! One participant: token, websocket, session, peer; again if asked; until told to leave.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaFailure;
use stampede_core::PeerUpdate;
use stampede_engine::{PeerCommand, PeerId, PeerNotice, PeerRole, PeerSpec};
use stampede_scenario::{Media, ParticipantSpec};
use stampede_signaling::connection::{ConnectOptions, Connection, Update};
use stampede_signaling::session::{
    EndReason, MediaCommand, MediaInput, RemoteTrack, Role, SessionEvent, Target,
};
use stampede_signaling::{JoinGrant, TOKEN_TTL};
use tokio::sync::{Notify, mpsc, watch};

use crate::clock::now;
use crate::context::{Context, Leaving};
use crate::join_error::JoinError;
use crate::joins::{JoinPhase, ParticipantId, TRY_SUFFIX};
use crate::peer_updates::PeerUpdates;
use crate::routes::{NOTICES_MAX, Route};

/// How long a join may take from the open websocket to DTLS; livekit-server itself gives up on a
/// participant that is not active after 60 s (rtc/room.go).
const MEDIA_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the media plane has to say why it did not connect.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(1);
/// Where a server sends a participant away later than this, and there is no media, the media plane
/// knows better why: servers give up on participants whose ICE found nothing.
const DIAGNOSED_AFTER: Duration = Duration::from_secs(5);
/// How long a leaving participant waits for its `leave` to get out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before what found the worker's mailbox full is tried again, and how often.
const MAILBOX_PAUSE: Duration = Duration::from_millis(10);
const MAILBOX_TRIES: usize = 200;
/// Pauses before the tries to take a session up again, as livekit-client's
/// `DefaultReconnectPolicy` begins; its later ones outlast what a server keeps of a participant.
const RESUME_PAUSES_MS: [u64; 5] = [0, 300, 1_200, 2_700, 4_800];

/// Who joins, and as what.
pub(crate) struct Participant {
    /// Its place in the join statistics.
    pub id: ParticipantId,
    /// Who it is; [`Participant::identity`] is that of the try under way.
    pub spec: ParticipantSpec,
    /// When it was to start.
    pub scheduled: Instant,
    /// Tries so far, the one under way included.
    pub tries: Cell<u32>,
    /// Tells this one alone to leave.
    pub leave: Rc<Leave>,
}

/// Tells one participant to leave before the others.
#[derive(Debug, Default)]
pub(crate) struct Leave {
    asked: Cell<bool>,
    wake: Notify,
}

impl Leave {
    /// It is to leave now.
    pub(crate) fn tell(&self) {
        self.asked.set(true);
        self.wake.notify_one();
    }

    async fn wait(&self) {
        while !self.asked.get() {
            self.wake.notified().await;
        }
    }
}

/// When a participant is to leave: with its kind, or alone before.
struct Departure {
    leaving: watch::Receiver<Leaving>,
    last: Leaving,
    own: Rc<Leave>,
}

impl Departure {
    fn is_due(&self) -> bool {
        self.own.asked.get() || *self.leaving.borrow() >= self.last
    }

    async fn due(&mut self) {
        tokio::select! {
            // The sender lives in the context as long as any participant.
            _ = self.leaving.wait_for(|leaving| *leaving >= self.last) => {}
            () = self.own.wait() => {}
        }
    }
}

impl Participant {
    /// Identity of this try. A second try has a fresh one: the server may still hold the first
    /// participant, would evict one for the other, and remembers failures by identity.
    fn identity(&self) -> String {
        match self.tries.get() {
            0 | 1 => self.spec.identity.clone(),
            tries => format!("{}{TRY_SUFFIX}{tries}", self.spec.identity),
        }
    }
}

fn peer_role(media: &Media) -> PeerRole {
    match media {
        Media::Subscriber { record } => PeerRole::Subscriber { record: *record },
        Media::Publisher { tracks } => PeerRole::Publisher { tracks: tracks.clone() },
    }
}

/// How one try ended.
#[derive(Debug)]
enum TryEnd {
    /// It was told to leave.
    Left,
    /// It broke.
    Broke {
        /// For `join.errors`.
        why: JoinError,
        /// For the log.
        detail: String,
        /// Whether another try can help.
        retryable: bool,
    },
}

impl TryEnd {
    fn broke(why: JoinError, detail: impl ToString) -> Self {
        Self::Broke { why, detail: detail.to_string(), retryable: true }
    }
}

/// Runs a participant to its end. `scheduled` has come, and the accounts know of it.
pub(crate) async fn run(context: Rc<Context>, participant: Participant) {
    let id = participant.id;
    let last = if participant.spec.media.is_publisher() {
        Leaving::Everybody
    } else {
        Leaving::Subscribers
    };
    let (leaving, own) = (context.leaving.subscribe(), Rc::clone(&participant.leave));
    let mut departure = Departure { leaving, last, own };
    let gave_up = loop {
        let end = attempt(&context, &participant, &mut departure).await;
        let TryEnd::Broke { why, detail, retryable } = end else {
            gone(&context, &participant, None);
            context.joins.borrow_mut().disconnected(id);
            break false;
        };
        let kind = why.key();
        gone(&context, &participant, Some(&kind));
        context.happened(&participant.identity(), || format!("ended: {kind}: {detail}"));
        tracing::debug!("{}: {kind}: {detail}", participant.identity());
        let more = retryable && participant.tries.get() <= context.retry;
        context.joins.borrow_mut().said(&why, &detail);
        context.joins.borrow_mut().broke(id, &why);
        context.changed.notify_waiters();
        if !more {
            break true;
        }
        tokio::select! {
            () = tokio::time::sleep(context.retry_sleep) => {}
            () = departure.due() => {
                gone(&context, &participant, None);
                break true;
            }
        }
        context.joins.borrow_mut().retried(id);
    };
    context.joins.borrow_mut().over(id, gave_up);
    context.changed.notify_waiters();
}

/// Tells the accounts that it is gone: told to leave, or for this reason.
fn gone(context: &Context, participant: &Participant, broke: Option<&str>) {
    let (now, mut audience) = (now(), context.audience.borrow_mut());
    if participant.spec.media.is_publisher() {
        return audience.publisher_gone(
            &participant.spec.room,
            &participant.spec.identity,
            now,
            broke,
        );
    }
    match broke {
        Some(reason) => audience.disconnected(participant.id, now, reason),
        None => audience.left(participant.id, now),
    }
}

async fn attempt(
    context: &Context,
    participant: &Participant,
    departure: &mut Departure,
) -> TryEnd {
    participant.tries.set(participant.tries.get() + 1);
    if departure.is_due() {
        return TryEnd::Left;
    }
    // What is done once is boxed: a task is as large as the largest state it ever waits in, for as
    // long as its participant stays.
    let mut connection = tokio::select! {
        connection = Box::pin(connect(context, participant)) => match connection {
            Ok(connection) => connection,
            Err(end) => return end,
        },
        () = departure.due() => return TryEnd::Left,
    };
    let (sender, mut notices) = mpsc::channel(NOTICES_MAX);
    let spec = PeerSpec {
        label: participant.identity(),
        role: peer_role(&participant.spec.media),
        local_ip: Some(context.local_ip),
        cohort: participant.spec.cohort,
    };
    let peer = match context.add_peer(spec) {
        None => return TryEnd::Left,
        Some(Ok(peer)) => peer,
        Some(Err(error)) => {
            Box::pin(connection.leave(LEAVE_TIMEOUT)).await;
            return TryEnd::broke(JoinError::NoResources, error);
        }
    };
    let identity = participant.identity();
    context.happened(&identity, || format!("websocket open, peer {peer}"));
    let route =
        Route { participant: participant.id, scheduled: participant.scheduled, notices: sender };
    context.routes.borrow_mut().insert(peer, route);
    context.audience.borrow_mut().peer(participant.id, peer);
    let publishes = participant.spec.media.is_publisher();
    let peer_updates =
        PeerUpdates::new(context.own_publishers.clone(), context.obey_dynacast, publishes);
    let identity = &identity;
    let mut joined = Joined {
        context,
        participant,
        identity,
        peer,
        peer_updates,
        began: now(),
        connected: false,
        resumes_tried: 0,
        own_sid: String::new(),
    };
    let end = joined.hold(&mut connection, &mut notices, departure).await;
    // From here on nothing is expected of the server, or nothing can be had of it.
    match &end {
        TryEnd::Left => gone(context, participant, None),
        TryEnd::Broke { why, .. } => gone(context, participant, Some(&why.key())),
    }
    // A worker that takes no commands is told by the close below.
    let _ = context.command(peer, PeerCommand::Update(PeerUpdate::Leaving));
    context.joins.borrow_mut().session_ended(connection.session().counters());
    // The server stops sending before the peer closes, so that nothing it sent goes uncounted.
    Box::pin(connection.leave(LEAVE_TIMEOUT)).await;
    context.happened(identity, || "leave sent".to_owned());
    context.routes.borrow_mut().remove(peer);
    close(context, peer).await;
    end
}

fn connect_options(context: &Context, participant: &Participant) -> Result<ConnectOptions, TryEnd> {
    let publisher = participant.spec.media.is_publisher();
    let identity = participant.identity();
    let grant = JoinGrant {
        room: &participant.spec.room,
        identity: &identity,
        can_publish: publisher,
        can_subscribe: !publisher,
        hidden: participant.spec.hidden,
        ttl: TOKEN_TTL,
    };
    let token = context
        .credentials
        .join_token(&grant)
        .map_err(|error| TryEnd::broke(JoinError::BadToken, error))?;
    let (url, role) = (context.url.clone(), participant.spec.role.clone());
    let mut options = ConnectOptions::new(url, token, role, context.network.tls.clone());
    options.proxy.clone_from(&context.network.proxy);
    options.dial.clone_from(&context.network.dial);
    options.addresses = Some(Arc::clone(&context.addresses));
    Ok(options)
}

async fn connect(context: &Context, participant: &Participant) -> Result<Box<Connection>, TryEnd> {
    context.happened(&participant.identity(), || format!("join of room {}", participant.spec.room));
    let options = connect_options(context, participant)?;
    let connection = Connection::connect(options).await.map_err(|error| TryEnd::Broke {
        why: error.kind().into(),
        detail: error.to_string(),
        retryable: error.is_retryable(),
    })?;
    let at = connection.timings().websocket;
    context.reached_now(participant.id, JoinPhase::Websocket, participant.scheduled, at);
    Ok(Box::new(connection))
}

/// Closes a peer, waiting a while for room in its worker's mailbox.
async fn close(context: &Context, peer: PeerId) {
    for _ in 0..MAILBOX_TRIES {
        if context.command(peer, PeerCommand::Close).is_ok() {
            return;
        }
        tokio::time::sleep(MAILBOX_PAUSE).await;
    }
    // It then lives until the engine stops.
    tracing::warn!("peer {peer} could not be closed: its worker takes no commands");
}

/// A participant with a websocket and a peer.
struct Joined<'a> {
    context: &'a Context,
    participant: &'a Participant,
    identity: &'a str,
    peer: PeerId,
    peer_updates: PeerUpdates,
    began: Instant,
    connected: bool,
    /// Websockets tried since the session last stood.
    resumes_tried: usize,
    /// Our participant sid, once the server has given one.
    own_sid: String,
}

impl Joined<'_> {
    async fn hold(
        &mut self,
        connection: &mut Connection,
        notices: &mut mpsc::Receiver<PeerNotice>,
        departure: &mut Departure,
    ) -> TryEnd {
        let deadline = tokio::time::sleep(MEDIA_TIMEOUT);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                update = connection.next() => match update {
                    Some(Update::Media(command)) => {
                        self.context.happened(self.identity, || heard(&command));
                        if let Some(end) = self.command(peer_command(command)).await {
                            return end;
                        }
                    }
                    Some(Update::Event(SessionEvent::Ended(why))) => {
                        let resumed = tokio::select! {
                            resumed = Box::pin(self.resume(connection, &why)) => resumed,
                            () = departure.due() => return TryEnd::Left,
                        };
                        if !resumed {
                            let asked = match why {
                                EndReason::ServerLeft { .. } | EndReason::ReconnectAsked { .. } => {
                                    Box::pin(self.unconnected(notices)).await
                                }
                                _ => None,
                            };
                            return asked.unwrap_or_else(|| ended(&why));
                        }
                    }
                    Some(Update::Event(event)) => {
                        if let Some(update) = self.peer_updates.of(&event)
                            && let Some(end) = self.command(PeerCommand::Update(update)).await
                        {
                            return end;
                        }
                        self.event(event, connection.timings().tcp);
                    }
                    None => return TryEnd::broke(JoinError::SignalEnded, "the session ended"),
                },
                notice = notices.recv() => match notice {
                    Some(PeerNotice::Disconnected { failure }) if !self.connected => {
                        return self.failed(&failure);
                    }
                    Some(notice) => self.notice(connection, notice),
                    None => return TryEnd::broke(
                        JoinError::SignallingOverloaded,
                        "more notices of the media plane than its task could handle",
                    ),
                },
                () = departure.due() => {
                    // Nobody's failure, but why it hung is known.
                    if !self.connected
                        && let Some(end) = Box::pin(self.unconnected(notices)).await
                        && let TryEnd::Broke { why, detail, .. } = end
                    {
                        self.context.joins.borrow_mut().said(&why, &detail);
                    }
                    return TryEnd::Left;
                }
                () = &mut deadline, if !self.connected => {
                    let unconnected = self.unconnected(notices);
                    return Box::pin(unconnected).await.unwrap_or_else(|| TryEnd::broke(
                        JoinError::MediaTimeout,
                        format!("no ICE and DTLS within {MEDIA_TIMEOUT:?}"),
                    ));
                },
            }
        }
    }

    /// What the media plane knows of why it is not connected, if it had time enough to be.
    async fn unconnected(&self, notices: &mut mpsc::Receiver<PeerNotice>) -> Option<TryEnd> {
        if self.connected || now().saturating_duration_since(self.began) < DIAGNOSED_AFTER {
            return None;
        }
        self.context.command(self.peer, PeerCommand::GiveUp).ok()?;
        let deadline = tokio::time::sleep(DIAGNOSIS_TIMEOUT);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                notice = notices.recv() => match notice? {
                    PeerNotice::Disconnected { failure } => return Some(self.failed(&failure)),
                    notice => self.context.happened(self.identity, || said(&notice)),
                },
                () = &mut deadline => return None,
            }
        }
    }

    /// The end of a try whose media never came up.
    fn failed(&self, failure: &MediaFailure) -> TryEnd {
        self.context.happened(self.identity, || format!("disconnected: {failure}"));
        TryEnd::broke(failure.into(), failure)
    }

    /// Opens another websocket for the same session, as a real client does; the media goes on
    /// meanwhile. False if that can't help or did not.
    ///
    /// Websockets that end again before the server has said that the session goes on count as one
    /// try each: [`RESUME_PAUSES_MS`] is all there is between two sessions that stand.
    async fn resume(&mut self, connection: &mut Connection, why: &EndReason) -> bool {
        if !(why.is_resumable() && self.connected && connection.session().is_joined()) {
            return false;
        }
        let Ok(options) = connect_options(self.context, self.participant) else { return false };
        self.context.joins.borrow_mut().resuming(self.participant.id, Some(why.kind().into()));
        self.context.happened(self.identity, || format!("{why}: resuming"));
        self.context.joins.borrow_mut().said(&why.kind().into(), &why.to_string());
        tracing::debug!("{}: {why}: resuming", self.participant.identity());
        let (id, now) = (self.participant.id, now());
        self.context.audience.borrow_mut().disconnected(id, now, why.kind().key());
        while let Some(pause_ms) = RESUME_PAUSES_MS.get(self.resumes_tried) {
            self.resumes_tried += 1;
            tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
            match connection.resume(&options, why).await {
                Ok(()) => return true,
                Err(error) if error.is_retryable() => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Tells the peer something; an end if that can't be done. Waits a while for room in its
    /// worker's mailbox, and reads nothing more of the server meanwhile: it may be the one that
    /// fills it.
    async fn command(&self, command: PeerCommand) -> Option<TryEnd> {
        for _ in 0..MAILBOX_TRIES {
            if self.context.takes_commands(self.peer) {
                break;
            }
            tokio::time::sleep(MAILBOX_PAUSE).await;
        }
        let full = self.context.command(self.peer, command).err()?;
        Some(TryEnd::broke(JoinError::WorkerOverloaded, full))
    }

    /// What the session says, but its end.
    fn event(&mut self, event: SessionEvent, tcp_connected: Instant) {
        self.context.happened(self.identity, || match &event {
            // It may hold TURN passwords.
            SessionEvent::Joined(_) => "join response".to_owned(),
            event => format!("{event:?}"),
        });
        self.account(&event);
        match event {
            SessionEvent::Joined(joined) => {
                self.own_sid.clone_from(&joined.participant_sid);
                let participant = self.participant;
                let (id, scheduled) = (participant.id, participant.scheduled);
                let at = now();
                self.context.reached_now(id, JoinPhase::Signal, scheduled, at);
                let mut joins = self.context.joins.borrow_mut();
                joins.join_response(at.saturating_duration_since(tcp_connected));
                joins.server_version(&joined.server_version);
            }
            SessionEvent::Resumed => {
                self.resumes_tried = 0;
                self.context.joins.borrow_mut().resumed(self.participant.id);
            }
            SessionEvent::PublishRefused { reason, .. } => {
                self.context
                    .joins
                    .borrow_mut()
                    .error(&JoinError::PublishRefused(reason.to_string()));
            }
            SessionEvent::SubscriptionFailed { error, .. } => {
                self.context.joins.borrow_mut().error(&JoinError::Subscription(error.to_string()));
            }
            _ => {}
        }
    }

    /// What the watch accounts have to know of an event.
    fn account(&self, event: &SessionEvent) {
        let (context, participant) = (self.context, self.participant);
        let (id, now) = (participant.id, now());
        let mut audience = context.audience.borrow_mut();
        let Role::Publisher { tracks } = &participant.spec.role else {
            if matches!(event, SessionEvent::Resumed) && self.connected {
                audience.connected(id, now);
            }
            return audience.heard(id, now, event, &context.own_publishers);
        };
        match event {
            SessionEvent::TrackPublished { cid, sid } => {
                let Some(track) = tracks.iter().find(|track| track.cid == *cid) else { return };
                let published = RemoteTrack {
                    sid: sid.clone(),
                    kind: track.kind,
                    source: track.source(),
                    publisher_sid: self.own_sid.clone(),
                    publisher_identity: self.identity.to_owned(),
                    width: track.width,
                    height: track.height,
                    mime_type: String::new(),
                    muted: false,
                };
                audience.published(&participant.spec.room, now, &published);
            }
            SessionEvent::PublishedTrackMuted { sid, muted } => {
                audience.publication_muted(&participant.spec.room, sid, now, *muted);
            }
            SessionEvent::PublishedTrackGone { sid } => {
                audience.publication_over(&participant.spec.room, sid, now);
            }
            _ => {}
        }
    }

    fn notice(&mut self, connection: &mut Connection, notice: PeerNotice) {
        self.context.happened(self.identity, || said(&notice));
        let input = match notice {
            PeerNotice::Answer { offer_id, sdp } => MediaInput::LocalAnswer { offer_id, sdp },
            PeerNotice::Offer { sdp } => MediaInput::LocalOffer { sdp },
            PeerNotice::NegotiationFailed { reason } => MediaInput::NegotiationFailed { reason },
            PeerNotice::LocalCandidate { candidate } => {
                let publishes = self.participant.spec.media.is_publisher();
                let target = if publishes { Target::Publisher } else { Target::Subscriber };
                MediaInput::LocalCandidate { target, candidate }
            }
            PeerNotice::Disconnected { failure } => {
                MediaInput::Disconnected { reason: failure.to_string() }
            }
            PeerNotice::Connected => {
                self.connected = true;
                let (id, now) = (self.participant.id, now());
                self.context.audience.borrow_mut().connected(id, now);
                return;
            }
            // The router counts these, and keeps them.
            PeerNotice::IceConnected
            | PeerNotice::FirstPacket { .. }
            | PeerNotice::FirstKeyframe
            | PeerNotice::LastFrame { .. }
            | PeerNotice::NextFrame
            | PeerNotice::Closed => return,
        };
        connection.media(input);
    }
}

/// A signalling message about media, for the timeline: candidates in full, SDP by its length.
fn heard(command: &MediaCommand) -> String {
    match command {
        MediaCommand::RemoteOffer { id, sdp, mid_to_track_id } => format!(
            "offer {id} of the server, {} bytes, {} tracks named",
            sdp.len(),
            mid_to_track_id.len()
        ),
        MediaCommand::CreateOffer => "an offer of ours is wanted".to_owned(),
        MediaCommand::RestartIce => "ICE is to restart".to_owned(),
        MediaCommand::RemoteAnswer { sdp } => {
            format!("answer of the server, {} bytes", sdp.len())
        }
        MediaCommand::RemoteCandidate { candidate, .. } => format!("trickled {candidate}"),
    }
}

/// What the peer told its task, for the timeline.
fn said(notice: &PeerNotice) -> String {
    match notice {
        PeerNotice::Answer { offer_id, sdp } => {
            format!("our answer to offer {offer_id}, {} bytes", sdp.len())
        }
        PeerNotice::Offer { sdp } => format!("our offer, {} bytes", sdp.len()),
        PeerNotice::Connected => "DTLS connected".to_owned(),
        PeerNotice::NegotiationFailed { reason } => format!("negotiation failed: {reason}"),
        PeerNotice::LocalCandidate { candidate } => format!("trickled ours: {candidate}"),
        PeerNotice::Disconnected { failure } => format!("disconnected: {failure}"),
        notice => format!("{notice:?}"),
    }
}

fn peer_command(command: MediaCommand) -> PeerCommand {
    match command {
        MediaCommand::RemoteOffer { id, sdp, mid_to_track_id } => {
            PeerCommand::Offer { id, sdp, mid_to_track_id }
        }
        MediaCommand::CreateOffer => PeerCommand::CreateOffer,
        MediaCommand::RestartIce => PeerCommand::RestartIce,
        MediaCommand::RemoteAnswer { sdp } => PeerCommand::Answer { sdp },
        MediaCommand::RemoteCandidate { candidate, .. } => PeerCommand::Candidate(candidate),
    }
}

fn ended(reason: &EndReason) -> TryEnd {
    TryEnd::Broke {
        why: reason.kind().into(),
        detail: reason.to_string(),
        retryable: reason.is_retryable(),
    }
}
