//! What was sent in a room, by whom.

use std::sync::atomic::{AtomicU64, Ordering};

use super::DataKind;

/// Most senders of data in one room. Each costs every receiver of its room a ledger for
/// each kind.
pub const SENDERS_MAX: usize = 1_000;

/// A room's board: how many messages each of its senders has sent so far. Its peers share it,
/// whatever worker they are on. Only its sender writes a count, so the others read at most a moment
/// late, and expect what is newer with their next look.
#[derive(Debug)]
pub struct DataRoom {
    tag: u64,
    kinds: [bool; DataKind::COUNT],
    senders: Box<[[AtomicU64; DataKind::COUNT]]>,
}

/// There are too many senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} senders of data are too many for one room; {SENDERS_MAX} is the most")]
pub struct DataRoomError(pub usize);

impl DataRoom {
    /// Of a room with so many senders, who send messages of these of [`DataKind::ALL`]. `tag` tells
    /// the messages of this room and run from all others.
    ///
    /// # Errors
    /// More than [`SENDERS_MAX`].
    pub fn new(
        tag: u64,
        senders: usize,
        kinds: [bool; DataKind::COUNT],
    ) -> Result<Self, DataRoomError> {
        if senders > SENDERS_MAX {
            return Err(DataRoomError(senders));
        }
        Ok(Self { tag, kinds, senders: (0..senders).map(|_| Default::default()).collect() })
    }

    /// What its messages are marked with.
    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    /// Whether messages of this kind are sent.
    #[must_use]
    pub fn has(&self, kind: DataKind) -> bool {
        self.kinds[kind as usize]
    }

    /// How many there are.
    #[must_use]
    pub fn senders(&self) -> usize {
        self.senders.len()
    }

    /// Messages of this kind that this one has sent: the next one's number.
    pub(crate) fn sent(&self, sender: usize, kind: DataKind) -> u64 {
        self.senders.get(sender).map_or(0, |counts| counts[kind as usize].load(Ordering::Acquire))
    }

    /// It has sent another one.
    pub(crate) fn count(&self, sender: usize, kind: DataKind) {
        if let Some(counts) = self.senders.get(sender) {
            counts[kind as usize].fetch_add(1, Ordering::Release);
        }
    }
}
