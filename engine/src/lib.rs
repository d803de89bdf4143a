//! The media plane: pinned worker threads that carry thousands of sans-IO peers each.
//!
//! An [`Engine`] starts its workers, binds one UDP socket a peer connection (LiveKit's UDP mux
//! tells peers apart by source address) and hands peers to workers for their whole life. The
//! signalling plane talks to it in [`PeerCommand`]s and hears [`EngineEvent`]s, both through
//! bounded channels; SDP crosses as text. Nothing on the packet path takes a lock, awaits,
//! allocates a string or asks the clock: a worker reads the clock once a turn.
//!
//! ```text
//! Engine::add_peer / command ──▶ mailbox + waker ──▶ worker: poll ▸ group by peer ▸ timers
//!                events() + event_fd() ◀── EngineEvent ◀──┘
//! ```
//!
//! ```no_run
//! use stampede_engine::{Engine, EngineOptions, PeerCommand, PeerRole, PeerSpec};
//!
//! let engine = Engine::start(EngineOptions { workers: 1, ..EngineOptions::default() })?;
//! let role = PeerRole::subscriber(false);
//! let spec = PeerSpec { label: "sub-1".to_owned(), role, local_ip: None, cohort: 0, beside: None };
//! let peer = engine.add_peer(spec)?;
//! engine.command(peer, PeerCommand::Close)?;
//! let _report = engine.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod capture;
mod clock;
mod cohort;
mod cover;
mod distributions;
mod engine;
mod event;
mod health;
mod impair;
mod mailbox;
mod options;
mod peer_id;
mod recorder;
mod rows;
mod snapshot;
mod timer;
mod worker;
mod worst;

pub use capture::{CaptureOptions, CapturedPeer, keep_worst};
pub use cohort::CohortReport;
pub use cover::{CoverNews, PeerCover};
pub use distributions::{Distributions, HEIGHTS_MAX, Measure};
pub use engine::{AddPeerError, Engine, MailboxFull, StartError};
pub use event::{CUT_OFF_MAX, EngineEvent, PeerCommand, PeerNotice, PeerSpec};
pub use health::{HealthReport, Second};
pub use options::EngineOptions;
pub use peer_id::PeerId;
pub use rows::{CLOSED_ROWS_MAX, LeftOut, PeerRow, TRACKS_LEFT_OUT_MAX, TrackLeftOut};
pub use snapshot::{EngineReport, LastPart, WorkerReport, WorkerSnapshot};
pub use stampede_core as core;
pub use stampede_core::{PathKind, PeerRole, Receives, Transport, TurnServer};
pub use stampede_impair::{
    ImpairCounters, Spec as ImpairSpec, SpecError as ImpairSpecError, choose as choose_impair,
};
pub use stampede_udp::{BackendChoice, BackendReport, StreamStats, UdpStats};
pub use worst::{PeerFigures, PeerLine, WORST_PEERS_MAX, WorstBy};
