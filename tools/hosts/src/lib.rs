//! One run on many hosts: what coordinator and workers say to each other, who takes which part,
//! whose clock is how far off, and what both do when the other falls silent.
//!
//! Nothing in here reads a clock or opens a socket: time is an argument, messages are values, and
//! what is to be done comes back as a list. The sockets are the binary's.
//!
//! ```
//! use stampede_hosts::split::{Member, split};
//!
//! let room = [Member { room: 0, part: 0 }; 5];
//! assert_eq!(split(&room, &[1, 1]), [0, 1, 0, 1, 0]);
//! ```

#![forbid(unsafe_code)]

pub mod clock;
pub mod coordinator;
pub mod messages;
pub mod proof;
pub mod split;
pub mod worker;
