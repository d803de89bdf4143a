//! The peer connections of a session: one, or by v0 of who sends and receives two.

use std::rc::Rc;

use stampede_core::{PeerRole, PeerUpdate};
use stampede_engine::{AddPeerError, PeerCommand, PeerId, PeerNotice, PeerSpec};
use stampede_signaling::session::{SignalVersion, Target};

use super::{Broken, Life, MAILBOX_PAUSE, MAILBOX_TRIES, Participant, close, tell};
use crate::context::Context;
use crate::join_error::JoinError;
use crate::routes::{Inbox, Notice, Notices, Route};

/// A peer connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leg {
    target: Target,
    peer: PeerId,
    /// DTLS was up.
    connected: bool,
    /// ICE stands: it was there, is not lost, and is not being restarted.
    stands: bool,
}

/// The peer connections of a session.
pub(super) struct Peers {
    /// The only one, or the one to receive by.
    main: Leg,
    /// The other one, to send by.
    publisher: Option<Leg>,
    inbox: Rc<Inbox>,
}

/// What each connection is for.
fn roles(role: &PeerRole, version: SignalVersion) -> (PeerRole, Option<PeerRole>) {
    let data = role.data.as_ref().is_some_and(|data| data.sends.is_some());
    let sends = !role.tracks.is_empty() || data || role.rpc.is_some();
    if version == SignalVersion::V1 || role.receives.is_none() || !sends {
        return (role.clone(), None);
    }
    let (mut receiving, mut sending) = (role.clone(), role.clone());
    receiving.tracks.clear();
    receiving.calls_elsewhere = receiving.rpc.take().is_some();
    sending.receives = None;
    if let Some(data) = &mut receiving.data {
        data.sends = None;
    }
    if let Some(data) = &mut sending.data {
        data.expects = Default::default();
    }
    (receiving, Some(sending))
}

impl Peers {
    /// Adds those that a session of this version needs, and what they will say; waits a while for
    /// room in their workers' mailboxes. `None` once the engine is gone.
    pub(super) async fn add(
        context: &Context,
        participant: &Participant,
        life: &Life,
        version: SignalVersion,
    ) -> Option<Result<(Self, Notices), Broken>> {
        let (role, other) = roles(&participant.spec.media, version);
        let (inbox, notices) = Inbox::new(1 + u8::from(other.is_some()));
        let target = match (version, &role.receives) {
            (SignalVersion::V0, Some(_)) => Target::Subscriber,
            (SignalVersion::V1, _) | (_, None) => Target::Publisher,
        };
        let main = match add(context, participant, life, (target, role, None), &inbox).await? {
            Ok(main) => main,
            Err(broken) => return Some(Err(broken)),
        };
        context.audience.borrow_mut().peer(participant.id, main.peer);
        let mut peers = Self { main, publisher: None, inbox };
        if let Some(role) = other {
            let other = (Target::Publisher, role, Some(peers.main.peer));
            let added = add(context, participant, life, other, &peers.inbox).await?;
            match added {
                Ok(leg) => peers.publisher = Some(leg),
                Err(broken) => {
                    peers.close(context).await;
                    return Some(Err(broken));
                }
            }
        }
        Some(Ok((peers, notices)))
    }

    /// The one to receive by, if it does; else the one to send by.
    pub(super) fn main(&self) -> PeerId {
        self.main.peer
    }

    /// The one that goes by this name to signalling.
    pub(super) fn of(&self, target: Target) -> PeerId {
        self.leg(target).peer
    }

    fn leg(&self, target: Target) -> &Leg {
        self.publisher.as_ref().filter(|leg| leg.target == target).unwrap_or(&self.main)
    }

    fn all(&self) -> impl Iterator<Item = &Leg> {
        [&self.main].into_iter().chain(&self.publisher)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Leg> {
        [&mut self.main].into_iter().chain(&mut self.publisher)
    }

    /// True once DTLS was up.
    pub(super) fn were_connected(&self) -> bool {
        self.all().all(|leg| leg.connected)
    }

    /// The same of one.
    pub(super) fn was_connected(&self, target: Target) -> bool {
        self.leg(target).connected
    }

    /// True while ICE stands.
    pub(super) fn stand(&self) -> bool {
        self.all().all(|leg| leg.stands)
    }

    /// Takes note of what became of one.
    pub(super) fn heard(&mut self, (target, notice): &Notice) {
        let Some(leg) = self.all_mut().find(|leg| leg.target == *target) else { return };
        match notice {
            PeerNotice::Disconnected { .. } => leg.stands = false,
            PeerNotice::Connected => (leg.connected, leg.stands) = (true, true),
            PeerNotice::IceConnected => leg.stands = leg.connected,
            _ => {}
        }
    }

    /// All are to find their way anew.
    pub(super) fn lost(&mut self) {
        self.all_mut().for_each(|leg| leg.stands = false);
    }

    /// The one that we offer restarts its ICE, if there is one that sends.
    pub(super) fn restarts(&mut self) {
        let single = self.publisher.is_none();
        self.all_mut()
            .filter(|leg| single || leg.target == Target::Publisher)
            .for_each(|leg| leg.stands = false);
    }

    /// Tells all of them something.
    pub(super) async fn tell(&self, context: &Context, command: PeerCommand) -> Result<(), Broken> {
        for leg in self.all() {
            tell(context, leg.peer, command.clone()).await?;
        }
        Ok(())
    }

    /// Asks those that never came up why.
    pub(super) fn give_up(&self, context: &Context) -> bool {
        let mut asked = self.all().filter(|leg| !leg.connected);
        asked.all(|leg| context.command(leg.peer, PeerCommand::GiveUp).is_ok())
    }

    /// They leave. A worker that takes no commands is told by [`Self::close`].
    pub(super) fn leave(&self, context: &Context) {
        for leg in self.all() {
            let _ = context.command(leg.peer, PeerCommand::Update(PeerUpdate::Leaving));
        }
    }

    /// Closes them.
    pub(super) async fn close(&self, context: &Context) {
        self.inbox.close();
        for leg in self.all() {
            close(context, leg.peer).await;
        }
    }
}

/// Adds one for this, beside the one to receive by if it is the other.
async fn add(
    context: &Context,
    participant: &Participant,
    life: &Life,
    (target, role, beside): (Target, PeerRole, Option<PeerId>),
    inbox: &Rc<Inbox>,
) -> Option<Result<Leg, Broken>> {
    let mut tries = 0;
    let peer = loop {
        let spec = PeerSpec {
            label: life.identity.clone(),
            role: role.clone(),
            local_ip: Some(context.local_ip),
            cohort: participant.spec.cohort,
            beside,
        };
        match context.add_peer(spec)? {
            Ok(peer) => break peer,
            Err(AddPeerError::Mailbox(_)) if tries < MAILBOX_TRIES => tries += 1,
            Err(error) => {
                let kind = match error {
                    AddPeerError::Mailbox(_) => JoinError::WorkerOverloaded,
                    _ => JoinError::NoResources,
                };
                return Some(Err(Broken::new(kind, error)));
            }
        }
        tokio::time::sleep(MAILBOX_PAUSE).await;
    };
    let (participant, scheduled) = (participant.id, participant.scheduled);
    let route = Route { participant, scheduled, target, inbox: Rc::clone(inbox) };
    context.routes.borrow_mut().insert(peer, route);
    Some(Ok(Leg { target, peer, connected: false, stands: false }))
}
