//! One run on many hosts: sockets, clocks and threads around `stampede-hosts`, which decides.
//!
//! `run --hosts N` coordinates on the main thread and carries no load. `work` has its connection on
//! a thread of its own, so that neither a slow coordinator nor a slow network ever keeps the run
//! waiting.

mod coordinate;
mod link;
mod merged;
mod tls;
mod work;
mod worker_link;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stampede_hosts::proof::Token;
use stampede_report::Failure;

pub(crate) use coordinate::{Coordination, coordinate};
pub(crate) use work::work;

/// The token of the environment.
///
/// # Errors
/// It is missing or too short, exit code 104.
fn token() -> Result<Token, Failure> {
    let text = std::env::var("STAMPEDE_TOKEN").ok();
    Token::new(text.as_deref()).map_err(Failure::config)
}

/// Nanoseconds since the Unix epoch, by this host's clock.
fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The time that the state machines go by.
#[derive(Debug, Clone, Copy)]
struct Since(Instant);

impl Since {
    fn now() -> Self {
        Self(Instant::now())
    }

    fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A runtime of one thread.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("no runtime: {error}")))
}
