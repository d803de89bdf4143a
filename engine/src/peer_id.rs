//! Names of peers.

use std::fmt;

/// One peer connection for its whole life; never reused within an [`Engine`](crate::Engine).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    pub(crate) worker: u16,
    pub(crate) serial: u32,
}

impl PeerId {
    /// Of the peer with this number on this worker. Engines name their peers themselves; this is
    /// for what stands for one.
    #[must_use]
    pub const fn new(worker: u16, serial: u32) -> Self {
        Self { worker, serial }
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.worker, self.serial)
    }
}
