//! Durations, shares, sizes and bit rates as people write and read them: the one grammar of
//! flags, scenario files, impairments and thresholds.
//!
//! [`parse`] reads a value, and its [`UnitError`] says what was wrong with it and what to write
//! instead. [`show`] writes one.
//!
//! ```
//! use std::time::Duration;
//! use stampede_units::{parse, show};
//!
//! assert_eq!(parse::duration("1m30s"), Ok(Duration::from_secs(90)));
//! assert_eq!(parse::percent("0.5%"), Ok(0.005));
//! assert_eq!(parse::bytes("64kB"), Ok(64_000.0));
//! assert_eq!(parse::bits_per_second("2.5Mbps"), Ok(2_500_000.0));
//! assert_eq!(show::bits_per_second(2_500_000.0), "2.5 Mbps");
//! ```
//!
//! The grammar is written by hand. `humantime` refuses durations that flags have always taken
//! (`.5s`, `0.0001h`), and `bytesize` takes `1Mb` for a megabyte, which here stands for megabits
//! and is refused.

#![forbid(unsafe_code)]

mod error;
pub mod parse;
pub mod show;

pub use error::{Quantity, UnitError};
