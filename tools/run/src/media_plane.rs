//! The media plane as participants and conductor know it: an engine, or in tests what stands for
//! one, so that runs can be played in virtual time. What it tells comes through the
//! [router](crate::router). Called by the signalling plane only, never for a packet.

use stampede_engine::{
    AddPeerError, Engine, EngineReport, MailboxFull, PeerCommand, PeerId, PeerSpec,
};

/// Has the peers of a run. Each call is one of [`Engine`]'s.
pub(crate) trait MediaPlane: Send {
    /// Media workers.
    fn workers(&self) -> usize;

    /// Adds a peer.
    fn add_peer(&self, spec: PeerSpec) -> Result<PeerId, AddPeerError>;

    /// Tells a peer something.
    fn command(&self, peer: PeerId, command: PeerCommand) -> Result<(), MailboxFull>;

    /// True if a command for this peer would find room.
    fn takes_commands(&self, peer: PeerId) -> bool;

    /// Starts the measured window.
    fn begin_measuring(&self) -> Result<(), MailboxFull>;

    /// Asks the workers for their sums.
    fn read_totals(&self, tag: u64) -> Result<(), MailboxFull>;

    /// Asks the workers for what their flight recorders hold.
    fn capture(&self) -> Result<(), MailboxFull>;

    /// Closes every peer and its accounts; blocks.
    fn stop(self: Box<Self>) -> EngineReport;
}

impl MediaPlane for Engine {
    fn workers(&self) -> usize {
        self.workers()
    }

    fn add_peer(&self, spec: PeerSpec) -> Result<PeerId, AddPeerError> {
        self.add_peer(spec)
    }

    fn command(&self, peer: PeerId, command: PeerCommand) -> Result<(), MailboxFull> {
        self.command(peer, command)
    }

    fn takes_commands(&self, peer: PeerId) -> bool {
        self.takes_commands(peer)
    }

    fn begin_measuring(&self) -> Result<(), MailboxFull> {
        self.begin_measuring()
    }

    fn read_totals(&self, tag: u64) -> Result<(), MailboxFull> {
        self.read_totals(tag)
    }

    fn capture(&self) -> Result<(), MailboxFull> {
        self.capture()
    }

    fn stop(self: Box<Self>) -> EngineReport {
        (*self).stop()
    }
}
