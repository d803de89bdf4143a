//! What workers tell of the time that streams could be watched.

use std::time::Instant;

use stampede_core::watch::StreamCover;

use crate::PeerId;

/// What is new of the streams of some peers. Each span is told once, so nothing of this is ever
/// dropped: a worker whose events wait makes its news later instead.
#[derive(Debug, Clone)]
pub struct CoverNews {
    /// Which worker.
    pub worker: usize,
    /// Arrivals up to then are in it.
    pub made_at: Instant,
    /// It is of all peers of the worker, not of one that is being closed.
    pub whole: bool,
    /// In order.
    pub covers: Vec<PeerCover>,
    /// Peers of which datagrams other than media were dropped on purpose: from the first to the
    /// last since the news before.
    pub cut_off: Vec<(PeerId, [Instant; 2])>,
}

/// What is new of one stream.
#[derive(Debug, Clone)]
pub struct PeerCover {
    /// Whose stream it is.
    pub peer: PeerId,
    /// The news.
    pub cover: StreamCover,
}

impl CoverNews {
    /// Nothing new yet.
    pub(crate) fn new(worker: usize, made_at: Instant, whole: bool) -> Self {
        Self { worker, made_at, whole, covers: Vec::new(), cut_off: Vec::new() }
    }
}
