//! Conducts a run: looks at the machine, opens what is needed, joins everybody, keeps the series and
//! hands out plain facts.
//!
//! [`prepare`](fn@prepare) does everything that can fail before anybody joins, [`play`] plays it to
//! the last leave on the calling thread (a tokio current-thread runtime: one task for each
//! participant, one that routes engine events, one that keeps the view), [`report_of`] makes the
//! report. Media is the engine's.
//!
//! ```
//! use std::sync::Arc;
//!
//! use stampede_report::{Failure, types::Report};
//! use stampede_run::{View, play, prepare, report_of};
//! use stampede_scenario::Scenario;
//!
//! fn conduct(scenario: Scenario, view: Box<dyn View>) -> Result<Report, Failure> {
//!     Ok(report_of(play(prepare(scenario)?, Arc::default(), view)?, &[]))
//! }
//! ```

#![forbid(unsafe_code)]

mod audience;
mod capture;
mod clips;
mod clock;
mod conductor;
mod context;
mod data;
mod distributions;
pub mod embedded;
mod facts;
mod faults;
mod join_error;
mod joins;
pub mod machine;
mod media_plane;
mod network;
mod participant;
mod peer_updates;
pub mod preflight;
mod prepare;
mod progress;
mod reconnect;
mod recoveries;
mod router;
mod routes;
mod run;
mod series;
mod server_metrics;
mod signalled;
mod so_far;
mod stages;
mod target;
mod together;
mod turn_servers;
mod viewers;

pub use data::RunData;
#[cfg(any(test, feature = "testing"))]
pub use data::nothing_happened;
pub use distributions::LiveDistributions;
pub use facts::report_of;
pub use network::Network;
pub use prepare::{Prepared, Refused, prepare, prepare_part};
pub use progress::{Controls, Phase, Progress, View, WorkerProgress};
pub use run::play;
pub use so_far::report_so_far;
pub use together::{Meeting, Others, Together, meeting};
