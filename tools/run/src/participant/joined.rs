//! A participant with a websocket and a peer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaFailure;
use stampede_engine::{PeerCommand, PeerNotice};
use stampede_signaling::connection::{ConnectTimings, Connection, Update};
use stampede_signaling::session::{
    EndReason, MediaCommand, MediaInput, RemoteTrack, SessionEvent, WayBack,
};

use super::orders::{Order, What};
use super::peers::Peers;
use super::resolving::Resolving;
use super::updates::Updates;
use super::words::{heard, said};
use super::{Broken, Departure, Life, Participant, SessionEnd, connect_options, may_dial_again};
use crate::clock::now;
use crate::context::Context;
use crate::join_error::JoinError;
use crate::joins::JoinPhase;
use crate::peer_updates::PeerUpdates;
use crate::reconnect::STANDS_WITHIN;
use crate::recoveries::Way;
use crate::routes::{Notice, Notices};

/// How long a join may take from the open websocket to DTLS; livekit-server itself gives up on a
/// participant that is not active after 60 s (rtc/room.go).
const MEDIA_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after a path stands again its streams may still be on their way to what they were: a new
/// subscription begins with another layer than it ends with.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);
/// A server that is to break ways back does so as soon as they stand.
const TRAPPED_WITHIN: Duration = Duration::from_secs(5);
/// How long a server that closed the media connection has to say why over the websocket. Both go out
/// at once, and which is here first is chance; a browser doesn't even look at the former before its
/// ICE fails.
const WORD_WITHIN: Duration = Duration::from_millis(500);
/// How long the media plane has to say why it did not connect.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(1);
/// Where a server sends a participant away later than this, and there is no media, the media plane
/// knows better why: servers give up on participants whose ICE found nothing.
const DIAGNOSED_AFTER: Duration = Duration::from_secs(5);

/// What is still missing before a participant stands: it joins, or is on its way back.
#[derive(Debug, Clone, Copy)]
struct Missing {
    /// The server has not said yet that the session stands.
    session: bool,
    /// The media connection was lost, so that it takes more than a new websocket.
    lost: bool,
    /// When that takes too long.
    until: Instant,
}

/// One session of a participant. Besides what is [`Missing`] its peers have to stand.
pub(super) struct Joined<'a> {
    context: &'a Context,
    participant: &'a Participant,
    life: &'a mut Life,
    peers: Peers,
    resolving: Resolving<'a>,
    peer_updates: PeerUpdates,
    began: Instant,
    /// `None` while it stands.
    missing: Option<Missing>,
    /// The server closed the media connection of a session that stands, and may say until then why.
    closed_until: Option<Instant>,
    /// Our participant sid, once the server has given one.
    own_sid: String,
}

impl<'a> Joined<'a> {
    pub(super) fn new(
        context: &'a Context,
        participant: &'a Participant,
        life: &'a mut Life,
        peers: Peers,
    ) -> Self {
        let tracks = &participant.spec.role.tracks;
        let own = [Arc::clone(&context.own), Arc::clone(&context.stamps)];
        let callee = participant.spec.media.rpc.as_ref().and_then(|rpc| rpc.callee.clone());
        let limit = if life.joined { STANDS_WITHIN } else { MEDIA_TIMEOUT };
        let began = now();
        Self {
            context,
            participant,
            life,
            peers,
            resolving: Resolving::default(),
            peer_updates: PeerUpdates::new(own, context.obey_dynacast, tracks).calling(callee),
            began,
            missing: Some(Missing { session: true, lost: false, until: began + limit }),
            closed_until: None,
            own_sid: String::new(),
        }
    }

    /// Its peers, once it is over.
    pub(super) fn into_peers(self) -> Peers {
        self.peers
    }

    /// Serves it until it ends.
    pub(super) async fn hold(
        &mut self,
        connection: &mut Connection,
        notices: &mut Notices,
        departure: &mut Departure,
    ) -> SessionEnd {
        let orders = Rc::clone(&self.participant.orders);
        // One sleep for all that takes too long.
        let deadline = tokio::time::sleep(MEDIA_TIMEOUT);
        tokio::pin!(deadline);
        let mut updates = Updates::new(self.participant.spec.updates_every, self.participant.id);
        loop {
            orders.stands(self.missing.is_none());
            // The media is closed only while nothing is missing.
            let until = self.closed_until.or(self.missing.map(|missing| missing.until));
            if let Some(until) = until
                && deadline.deadline() != until.into()
            {
                deadline.as_mut().reset(until.into());
            }
            let step = tokio::select! {
                update = connection.next() => match update {
                    Some(Update::Event(SessionEvent::Ended(why))) => {
                        tokio::select! {
                            ended = Box::pin(self.ended(connection, notices, &why)) => ended,
                            () = departure.due() => return SessionEnd::Left,
                        }
                    }
                    Some(update) => self.update(connection, update).await,
                    None => Err(Broken::new(JoinError::SignalEnded, "the session ended")),
                },
                notice = notices.recv() => match notice {
                    Some(notice) => self.notice(connection, notice),
                    None => Err(Broken::notices_lost()),
                },
                order = orders.next() => match order.what {
                    What::LeaveRejoin(after) => {
                        self.context.recoveries.borrow_mut().hit(order.fault);
                        return SessionEnd::Rejoins(after);
                    }
                    _ => self.obey(connection, order).await,
                },
                (servers, only) = self.resolving.done() => {
                    self.command(PeerCommand::TurnServers { servers, only }).await
                }
                () = updates.due(), if self.missing.is_none() => {
                    self.update_itself(connection);
                    Ok(())
                }
                () = departure.due() => {
                    // Nobody's failure, but why it hung is known.
                    if let Some(Broken { why, detail, .. }) =
                        Box::pin(self.unconnected(notices)).await
                    {
                        self.context.joins.borrow_mut().said(&why, &detail);
                    }
                    return SessionEnd::Left;
                }
                () = &mut deadline, if until.is_some() => match self.closed_until.take() {
                    Some(_) => {
                        let reason = MediaFailure::Closed.to_string();
                        connection.media(MediaInput::Disconnected { reason });
                        Ok(())
                    }
                    None => {
                        let hung = Box::pin(self.unconnected(notices)).await;
                        Err(hung.unwrap_or_else(|| self.late()))
                    }
                },
            };
            if let Err(broken) = step {
                return SessionEnd::Broke(broken);
            }
            self.look(connection);
        }
    }

    /// What took too long.
    fn late(&self) -> Broken {
        let detail = match self.life.joined {
            false => format!("no ICE and DTLS within {MEDIA_TIMEOUT:?}"),
            true => format!("session and media connection did not stand within {STANDS_WITHIN:?}"),
        };
        Broken::new(JoinError::MediaTimeout, detail)
    }

    /// Looks whether nothing is missing any more.
    fn look(&mut self, connection: &Connection) {
        let Some(missing) = self.missing else { return };
        // A publisher's tracks are to be there again.
        if missing.session || !self.peers.stand() || !connection.session().can_resume() {
            return;
        }
        self.missing = None;
        self.life.joined = true;
        self.life.tried = 0;
        self.life.explained.set(false);
        self.participant.orders.is_known_as(&self.life.identity, &self.life.room);
        let (id, at) = (self.participant.id, now());
        let stood = self.context.recoveries.borrow_mut().stands(id);
        {
            let mut audience = self.context.audience.borrow_mut();
            if self.participant.spec.publishes() {
                let identity = &self.participant.spec.identity;
                audience.publisher_back(&self.life.room, identity, at);
            }
            if self.participant.spec.receives() {
                audience.connected(id, at);
            }
            let hears_all = self.participant.spec.hears_all();
            let mut signalled = self.context.signalled.borrow_mut();
            signalled.present(id, &self.life.room, at, hears_all);
        }
        let Some(stood) = stood else { return };
        // What it was done for is done: what breaks next has another reason.
        self.life.blames.retain(|(order, _)| Some(order.fault) != stood.fault);
        if let Some((order, _)) = self.life.trap.take().filter(|(_, until)| at < *until) {
            self.life.blame(order, at + TRAPPED_WITHIN);
        }
        self.context.happened(&self.life.identity, || "stands again".to_owned());
        {
            let mut joins = self.context.joins.borrow_mut();
            joins.stands(id);
            joins.connected_again(id);
        }
        // A server that does not take up what lost its websocket alone breaks the media itself.
        let signal_only = |fault| self.context.recoveries.borrow().is_signal_only(fault);
        let by_server =
            stood.way == Some(Way::FullReconnect) && stood.fault.is_some_and(signal_only);
        if stood.fault.is_some() && !by_server {
            let until = (at + SETTLED_WITHIN).min(stood.since + STANDS_WITHIN);
            self.excuse(stood.since, until);
        }
        // Without an answer the time is not known, and nothing else is lost.
        let _ = self.context.command(self.peers.main(), PeerCommand::NextFrame);
        self.context.changed.notify_waiters();
    }

    /// The path is broken; nothing more if it was before.
    fn broke(&mut self, why: &JoinError, media: bool) {
        let (id, at) = (self.participant.id, now());
        let by = self.life.fault(|_| true);
        super::path_broke(self.context, id, self.peers.main(), at, by);
        let media = media || self.closed_until.take().is_some();
        let lost = media || self.missing.is_some_and(|missing| missing.lost);
        self.missing = Some(Missing { session: true, lost, until: at + STANDS_WITHIN });
        self.participant.orders.stands(false);
        let mut joins = self.context.joins.borrow_mut();
        joins.absent(id, why, at, by.is_some());
        if media || !self.peers.stand() {
            joins.disconnected(id);
        }
        super::gone(self.context, self.participant, self.life, at, Some(why));
    }

    /// What is missed of it, or by it, in this time was done on purpose.
    fn excuse(&self, from: Instant, until: Instant) {
        let mut audience = self.context.audience.borrow_mut();
        if self.participant.spec.publishes() {
            let identity = &self.participant.spec.identity;
            audience.excuse_publisher(&self.life.room, identity, from, until);
        }
        if self.participant.spec.receives() {
            audience.excuse(self.participant.id, from, until);
        }
    }

    /// The session ended: by this websocket, or because nothing is left of the media connection. If
    /// it can be taken up again that is tried, as often as the schedule has it.
    async fn ended(
        &mut self,
        connection: &mut Connection,
        notices: &mut Notices,
        why: &EndReason,
    ) -> Result<(), Broken> {
        let resumes = why.way_back() == WayBack::Resume && connection.session().can_resume();
        // Of a session that stood; the answer to a resume is a refusal like any other
        // (client-sdk-js src/api/SignalClient.ts, `LeaveRequest`).
        let asked_for = why.is_asked_for() && !self.missing.is_some_and(|missing| missing.session);
        if !self.peers.were_connected() || !self.life.joined || !resumes {
            if let EndReason::ServerLeft { .. } | EndReason::ReconnectAsked { .. } = why
                && let Some(hung) = self.unconnected(notices).await
            {
                return Err(hung);
            }
            // What can't be taken up again is begun anew.
            return Err(match Broken::from(why) {
                broken @ Broken { back: WayBack::Resume, .. } => {
                    Broken { back: WayBack::Reconnect, asked_for, ..broken }
                }
                broken => Broken { asked_for, ..broken },
            });
        }
        self.context.happened(&self.life.identity, || format!("{why}: resuming"));
        tracing::debug!("{}: {why}: resuming", self.life.identity);
        let kind: JoinError = why.kind().into();
        self.context.joins.borrow_mut().said(&kind, &why.to_string());
        // Of a try that broke again.
        self.context.recoveries.borrow_mut().failed(self.participant.id);
        self.broke(&kind, matches!(why, EndReason::MediaLost { .. }));
        let version = connection.session().version();
        let mut options = connect_options(self.context, self.participant, self.life, version)?;
        if let Some(token) = connection.session().refreshed_token() {
            options.token = token.clone();
        }
        let mut asked_for = asked_for;
        loop {
            let pause = self.life.pause(self.context, std::mem::take(&mut asked_for));
            let Some(pause) = pause else {
                return Err(Broken { back: WayBack::None, ..Broken::from(why) });
            };
            self.wait(notices, pause).await?;
            self.context.recoveries.borrow_mut().tries(self.participant.id, self.way());
            match connection.resume(&options, why).await {
                Ok(()) => break,
                Err(error) if may_dial_again(&error) == WayBack::None => {
                    return Err(Broken::from(error));
                }
                Err(error) => {
                    self.context.happened(&self.life.identity, || format!("no websocket: {error}"));
                    self.context.recoveries.borrow_mut().failed(self.participant.id);
                    self.told_why(&error.kind().into(), &error.to_string());
                }
            }
        }
        if let Some(missing) = &mut self.missing {
            missing.until = now() + STANDS_WITHIN;
        }
        Ok(())
    }

    /// A try to come back failed, which may tell why there is one.
    fn told_why(&self, why: &JoinError, detail: &str) {
        if why.class().tells() {
            self.context.joins.borrow_mut().said(why, detail);
            super::gone(self.context, self.participant, self.life, now(), Some(why));
        }
    }

    /// Which way back this is.
    fn way(&self) -> Way {
        match self.missing {
            Some(Missing { lost: true, .. }) => Way::IceRestart,
            _ => Way::Resume,
        }
    }

    /// Pauses, and hears meanwhile what becomes of the media connection.
    async fn wait(&mut self, notices: &mut Notices, pause: Duration) -> Result<(), Broken> {
        let pause = tokio::time::sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return Ok(()),
                notice = notices.recv() => match notice {
                    Some(notice) => self.media_changed(&notice),
                    None => return Err(Broken::notices_lost()),
                },
            }
        }
    }

    /// Takes note of what became of the media connection.
    fn media_changed(&mut self, notice: &Notice) {
        self.peers.heard(notice);
        if let (Some(missing), PeerNotice::Disconnected { .. }) = (&mut self.missing, &notice.1) {
            missing.lost = true;
        }
    }

    /// What the media plane knows of why it is not connected, if it never was and had time enough
    /// to be.
    async fn unconnected(&self, notices: &mut Notices) -> Option<Broken> {
        if self.peers.were_connected()
            || now().saturating_duration_since(self.began) < DIAGNOSED_AFTER
        {
            return None;
        }
        if !self.peers.give_up(self.context) {
            return None;
        }
        let deadline = tokio::time::sleep(DIAGNOSIS_TIMEOUT);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                notice = notices.recv() => match notice?.1 {
                    PeerNotice::Disconnected { failure } => return Some(self.failed(&failure)),
                    notice => self.context.happened(&self.life.identity, || said(&notice)),
                },
                () = &mut deadline => return None,
            }
        }
    }

    /// Its media never came up.
    fn failed(&self, failure: &MediaFailure) -> Broken {
        self.context.happened(&self.life.identity, || format!("disconnected: {failure}"));
        Broken::from(failure)
    }

    /// Does something to it on purpose.
    async fn obey(&mut self, connection: &mut Connection, order: Order) -> Result<(), Broken> {
        let until = now() + order.what.lasts();
        let blamed_until = until + order.what.blamed_for();
        match order.what.acts_on_return() {
            true => self.life.trap = Some((order, blamed_until)),
            false => self.life.blame(order, blamed_until),
        }
        // Of a move whoever asks the server knows.
        if order.what != What::Moving {
            self.context.recoveries.borrow_mut().hit(order.fault);
        }
        self.context.happened(&self.life.identity, || format!("on purpose: {:?}", order.what));
        match order.what {
            What::SignalDrop => connection.reset(),
            What::SignalStall(_) => connection.stall_until(until),
            What::Outage(span) => {
                self.life.dark_until = Some(until);
                connection.stall_until(until);
                self.excuse(until - span, until + SETTLED_WITHIN);
                self.command(PeerCommand::CutOff { lasts: span }).await?;
            }
            What::NetworkChange => {
                let lost = JoinError::Signalling(stampede_signaling::ErrorKind::SignalLost);
                self.broke(&lost, true);
                self.peers.lost();
                self.command(PeerCommand::ChangeNetwork).await?;
                connection.lose("the network changed");
            }
            What::Simulate(scenario) => connection.simulate(scenario),
            // The server was asked already, and `hold` knows the other.
            What::Moving | What::LeaveRejoin(_) => {}
        }
        Ok(())
    }

    /// Tells the peers something, and reads nothing more of the server while a worker has no room: it
    /// may be the one that fills it.
    async fn command(&self, command: PeerCommand) -> Result<(), Broken> {
        self.peers.tell(self.context, command).await
    }

    /// What the session says, but its end.
    async fn update(&mut self, connection: &Connection, update: Update) -> Result<(), Broken> {
        match update {
            Update::Media(command) => {
                self.context.happened(&self.life.identity, || heard(&command));
                let target = command.target();
                let command = self.peer_command(command);
                match target {
                    Some(target) => super::tell(self.context, self.peers.of(target), command).await,
                    None => self.command(command).await,
                }
            }
            Update::Event(event) => {
                if let Some(update) = self.peer_updates.of(&event) {
                    self.command(PeerCommand::Update(update)).await?;
                }
                self.event(event, connection.timings());
                Ok(())
            }
        }
    }

    fn event(&mut self, event: SessionEvent, timings: ConnectTimings) {
        self.context.happened(&self.life.identity, || match &event {
            // It may hold TURN passwords.
            SessionEvent::Joined(_) => "join response".to_owned(),
            event => format!("{event:?}"),
        });
        self.account(&event);
        self.heard(&event);
        let id = self.participant.id;
        match event {
            SessionEvent::Joined(joined) => {
                self.own_sid.clone_from(&joined.participant_sid);
                let at = now();
                self.context.reached_now(id, JoinPhase::Signal, self.participant.scheduled, at);
                let mut joins = self.context.joins.borrow_mut();
                joins.join_response(at.saturating_duration_since(timings.tcp));
                joins.server_version(&joined.server_version);
                self.session_stands();
            }
            SessionEvent::Resumed => {
                self.context.joins.borrow_mut().resumed();
                // Who sends restarts its ICE now, and what it sends meanwhile goes nowhere.
                if self.participant.spec.publishes() {
                    self.peers.restarts();
                }
                self.session_stands();
            }
            SessionEvent::Moved { room, participant_sid } => {
                self.own_sid = participant_sid;
                self.moved(room.as_str().into());
            }
            // What was done to the websocket has broken nothing.
            SessionEvent::Pong { .. } => {
                self.life.blames.retain(|(order, _)| !order.what.is_over_by_pong());
            }
            SessionEvent::PublishRefused { reason, .. } => {
                self.context
                    .joins
                    .borrow_mut()
                    .error(&JoinError::PublishRefused(reason.to_string()));
            }
            SessionEvent::DataTrackRefused { reason } => {
                self.context.joins.borrow_mut().error(&JoinError::DataTrackRefused(reason));
            }
            SessionEvent::SubscriptionFailed { error, .. } => {
                self.context.joins.borrow_mut().error(&JoinError::Subscription(error.to_string()));
            }
            _ => {}
        }
    }

    /// What the book of signalling has to know of an event.
    fn heard(&self, event: &SessionEvent) {
        let id = self.participant.id;
        let mut signalled = self.context.signalled.borrow_mut();
        match event {
            SessionEvent::Joined(joined) => signalled.known_as(id, &joined.participant_sid),
            SessionEvent::Moved { participant_sid, .. } => signalled.known_as(id, participant_sid),
            SessionEvent::Pong { rtt } => signalled.pong(*rtt),
            SessionEvent::OthersUpdated(updates) => signalled.told_updates(id, updates, now()),
            SessionEvent::UpdateRefused { .. } => signalled.update_refused(),
            SessionEvent::SpeakersChanged(speakers) => {
                signalled.told_speakers(id, speakers, now());
            }
            _ => {}
        }
    }

    /// Makes its next update of itself.
    fn update_itself(&self, connection: &mut Connection) {
        let number = self.participant.updates.get() + 1;
        self.participant.updates.set(number);
        self.context.signalled.borrow_mut().updates(self.participant.id, number, now());
        connection.update_attribute(number);
    }

    fn session_stands(&mut self) {
        if let Some(missing) = &mut self.missing {
            missing.session = false;
        }
    }

    /// It is in another room, over the same connections: all that was missing is the first frame.
    fn moved(&mut self, room: Rc<str>) {
        let (id, at) = (self.participant.id, now());
        let left = std::mem::replace(&mut self.life.room, room);
        if self.participant.spec.publishes() {
            let mut audience = self.context.audience.borrow_mut();
            audience.publisher_moved(&left, &self.life.room, &self.participant.spec.identity, at);
        }
        if self.context.recoveries.borrow().is_absent(id) {
            return;
        }
        let by = self.life.fault(|order| order.what == What::Moving);
        super::path_broke(self.context, id, self.peers.main(), at, by);
        self.context.recoveries.borrow_mut().tries(id, Way::Moved);
        let until = at + STANDS_WITHIN;
        self.missing = Some(Missing { session: false, lost: false, until });
    }

    /// What the watch accounts have to know of an event.
    fn account(&self, event: &SessionEvent) {
        let (context, participant) = (self.context, self.participant);
        let (id, now) = (participant.id, now());
        let mut audience = context.audience.borrow_mut();
        if participant.spec.receives() {
            audience.heard(id, now, event, &context.own);
        }
        let tracks = &participant.spec.role.tracks;
        match event {
            SessionEvent::TrackPublished { cid, sid } => {
                let Some(track) = tracks.iter().find(|track| track.cid == *cid) else { return };
                let published = RemoteTrack {
                    sid: sid.clone(),
                    kind: track.kind,
                    source: track.source,
                    publisher_sid: self.own_sid.clone(),
                    publisher_identity: self.life.identity.clone(),
                    width: track.width,
                    height: track.height,
                    mime_type: String::new(),
                    muted: false,
                    layers: track.offered(),
                };
                audience.published(&self.life.room, now, &published);
            }
            SessionEvent::PublishedTrackMuted { sid, muted } => {
                audience.publication_muted(&self.life.room, sid, now, *muted);
            }
            SessionEvent::PublishedTrackGone { sid } => {
                audience.publication_over(&self.life.room, sid, now);
            }
            _ => {}
        }
    }

    fn notice(&mut self, connection: &mut Connection, notice: Notice) -> Result<(), Broken> {
        self.media_changed(&notice);
        let (target, notice) = notice;
        if let PeerNotice::Disconnected { failure } = &notice
            && !self.peers.was_connected(target)
        {
            return Err(self.failed(failure));
        }
        self.context.happened(&self.life.identity, || said(&notice));
        let input = match notice {
            PeerNotice::Answer { offer_id, sdp } => MediaInput::LocalAnswer { offer_id, sdp },
            PeerNotice::Offer { id, sdp } => MediaInput::LocalOffer { id, sdp },
            PeerNotice::NegotiationFailed { reason } => MediaInput::NegotiationFailed { reason },
            PeerNotice::LocalCandidate { candidate } => {
                MediaInput::LocalCandidate { target, candidate }
            }
            PeerNotice::BackupRefused { .. } => {
                let refused = JoinError::PublishRefused("backup".to_owned());
                self.context.joins.borrow_mut().error(&refused);
                return Ok(());
            }
            // On the way back ICE is restarted anyhow.
            PeerNotice::Disconnected { .. } if self.missing.is_some() => return Ok(()),
            PeerNotice::Disconnected { failure } if *failure == MediaFailure::Closed => {
                self.closed_until = Some(now() + WORD_WITHIN);
                return Ok(());
            }
            PeerNotice::Disconnected { failure } => {
                MediaInput::Disconnected { reason: failure.to_string() }
            }
            // The router counts these, and keeps most of them.
            PeerNotice::Connected
            | PeerNotice::IceConnected
            | PeerNotice::Path { .. }
            | PeerNotice::FirstPacket { .. }
            | PeerNotice::FirstKeyframe
            | PeerNotice::LastFrame { .. }
            | PeerNotice::NextFrame
            | PeerNotice::Speaks { .. }
            | PeerNotice::Closed => return Ok(()),
        };
        connection.media(input);
        Ok(())
    }

    fn peer_command(&mut self, command: MediaCommand) -> PeerCommand {
        match command {
            // Names are looked up meanwhile: what comes next may not wait for them.
            MediaCommand::TurnServers { servers, only } => {
                let servers = self.resolving.begin(self.context, servers, only);
                PeerCommand::TurnServers { servers, only }
            }
            MediaCommand::RemoteOffer { id, sdp, mid_to_track_id } => {
                PeerCommand::Offer { id, sdp, mid_to_track_id }
            }
            MediaCommand::CreateOffer { id, added, publish } => {
                PeerCommand::CreateOffer { id, added, publish }
            }
            MediaCommand::RestartIce { id } => PeerCommand::RestartIce { id },
            MediaCommand::RemoteAnswer { sdp, mid_to_track_id } => {
                PeerCommand::Answer { sdp, mid_to_track_id }
            }
            MediaCommand::RemoteCandidate { candidate, .. } => PeerCommand::Candidate(candidate),
        }
    }
}
