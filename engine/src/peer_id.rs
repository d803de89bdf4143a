//! Names of peers.

use std::fmt;

/// One peer connection for its whole life; never reused within an [`Engine`](crate::Engine).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    pub(crate) worker: u16,
    pub(crate) serial: u32,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.worker, self.serial)
    }
}
