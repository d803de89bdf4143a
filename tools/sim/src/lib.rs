//! Whole runs without sockets, threads and clocks, from one seed.
//!
//! [`World`] holds real peers (`stampede_core::Peer`), real sessions (`stampede_signaling`), the embedded
//! SFU's rooms and media workers (`stampede_sfu::virtual_sfu`), and a network of [links](link) between
//! them; it moves their time from one thing that is due to the next. [`Plan::of`] says what a seed
//! stands for, and [`check`](fn@check) plays it and looks whether what the product says of it is true.
//!
//! For tests alone: it panics where it finds a fault.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "for tests, which may panic")]

pub mod accounts;
pub mod check;
pub mod client;
pub mod clips;
pub mod link;
pub mod news;
pub mod plan;
pub mod recorder;
pub mod spec;
#[path = "../../../engine/core/tests/turn/server.rs"]
#[allow(dead_code, reason = "a test of the TURN client's needs more of it")]
mod turn_server;
pub mod wire;
mod world;

// What the TURN server speaks by.
use turn_client_proto as _;

pub use check::check;
pub use plan::Plan;
pub use world::{Happened, Way, World};
