//! A small LiveKit-compatible SFU for load runs without a server.
//!
//! It speaks LiveKit's signalling, v1 (`/rtc/v1`, a single peer connection) and v0 (`/rtc`), enough of
//! the RoomService, and forwards VP8, H.264, VP9, AV1 and Opus without transcoding. It keeps an exact
//! [`Ledger`] of what it sent, and can drop or delay packets on purpose, so that what a client measures
//! can be checked.
//!
//! Two planes as in the engine: one thread runs HTTP and WebSockets on a tokio current-thread
//! runtime; N pinned worker threads own one UDP socket each and the peer connections sharded
//! over them.
//!
//! ```no_run
//! use stampede_sfu::{Sfu, SfuOptions};
//!
//! let sfu = Sfu::start(SfuOptions { port: 7880, ..SfuOptions::default() })?;
//! println!("clients connect to {}", sfu.url());
//! let sent = sfu.ledger()?.totals.forward.packets_sent;
//! println!("{sent} packets of media were sent so far");
//! sfu.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not do: JSON signalling, TURN, estimates of its own by transport-wide feedback (it takes
//! those that subscribers make, REMB), and it does not announce every subscriber of a large room to all
//! others.

#![forbid(unsafe_code)]

mod auth;
#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench_support;
mod bounded;
mod faults;
mod http;
mod hub;
mod join_request;
mod ledger;
mod limits;
mod media;
mod options;
mod report;
mod server;
mod state;
mod twirp;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod virtual_sfu;
mod ws;

pub use faults::SfuFaults;
pub use ledger::{
    CongestionCounters, CongestionLedger, ForwardCounters, Ledger, LedgerTotals,
    PublishedTrackLedger, RoomLedger, SubscriberLedger, SubscriberTrackLedger, WorkerLedger,
};
pub use options::{Congestion, IceServer, OptionsError, SfuOptions};
pub use report::LedgerError;
pub use server::{Sfu, StartError};
pub use stampede_impair as impair;
