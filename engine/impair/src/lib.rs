//! Network impairments on purpose, decided packet by packet.
//!
//! A [`Spec`] says what is to happen (`cohort=10%,loss=1%,burst=5`), [`Cohorts`] picks who it
//! happens to, and an [`Impairment`] decides for one subscriber what becomes of each packet: a
//! [`Fate`]. Packets that are to wait go into a [`Held`] queue. Everything is pure: the time comes
//! in as an argument, and the same seed gives the same decisions on every machine.
//!
//! Both sides use it: the engine on what its subscribers receive, the embedded SFU on what it
//! sends to each subscriber.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use stampede_impair::{Class, Fate, Impairment, Spec};
//!
//! let spec: Spec = "outage=2s@10s".parse()?;
//! let start = Instant::now();
//! let mut model = Impairment::new(&spec, 1, "sub-1", start);
//! assert_eq!(model.decide(start, Class::Rtp, 1_200), Fate::untouched(start));
//! assert_eq!(model.decide(start + Duration::from_secs(11), Class::Rtp, 1_200), Fate::Drop);
//! # Ok::<(), stampede_impair::SpecError>(())
//! ```

#![forbid(unsafe_code)]

mod cohort;
mod held;
mod loss;
mod model;
mod random;
mod spec;

pub use cohort::{Cohorts, choose, stable_name};
pub use fastrand::Rng;
pub use held::{HELD_PACKETS_MAX, Held};
pub use loss::Loss;
pub use model::{Class, Fate, Impairment, RATE_BURST_BYTES, RATE_QUEUE_MAX, REORDER_HOLD};
pub use random::seeded;
pub use spec::{BURST_PACKETS_MAX, Spec, SpecError, ValueError, Window};
pub use stampede_counters::ImpairCounters;
