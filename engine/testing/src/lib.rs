//! How tests skip, and how they make inputs of others ([`mutate`]). A dependency of tests and benches
//! only.
//!
//! A test that finds something missing (ffmpeg, root, an io_uring that the kernel allows) says so with
//! [`skip`] and returns. With `STAMPEDE_SKIPS=fail` in the environment that is a failure instead, so
//! that nothing passes in CI which was never run. What CI can't have, a LiveKit server, is skipped
//! with [`skip_without_server`], which never fails.
//!
//! ```
//! # fn test() {
//! if let Err(error) = std::process::Command::new("ffmpeg").arg("-version").output() {
//!     return stampede_testing::skip(format!("ffmpeg can't be run: {error}"));
//! }
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod mutate;

use std::env;
use std::fmt::Display;
use std::io::{self, Write};

/// The variable that decides what a skip is: `fail` makes it a failure, and without it (or empty) a
/// skip passes.
pub const SWITCH: &str = "STAMPEDE_SKIPS";

/// Says that a test skips, and why. The test returns after it.
///
/// # Panics
/// With `STAMPEDE_SKIPS=fail`, and if that variable has another value.
#[track_caller]
pub fn skip(reason: impl Display) {
    assert!(!skips_fail(env::var(SWITCH).ok().as_deref()), "{SWITCH}=fail, but: {reason}");
    say(&reason);
}

/// Says that a test skips because no LiveKit server is named, and how to name one. It is no failure
/// whatever the switch says.
pub fn skip_without_server(reason: impl Display) {
    say(&reason);
}

/// Says it past the test harness, which would swallow `eprintln!` of a test that passes.
fn say(reason: &dyn Display) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    let _ = writeln!(io::stderr(), "{name} skipped: {reason}");
}

fn skips_fail(value: Option<&str>) -> bool {
    match value {
        None | Some("") => false,
        Some("fail") => true,
        Some(other) => panic!("{SWITCH} is '{other}'; it can be 'fail' or nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_word_makes_a_skip_a_failure() {
        assert!(skips_fail(Some("fail")));
        assert!(!skips_fail(None) && !skips_fail(Some("")));
        let typing_error = std::panic::catch_unwind(|| skips_fail(Some("required")));
        assert!(typing_error.is_err(), "a word that means nothing is not taken for 'no'");
    }

    #[test]
    fn a_missing_server_never_fails() {
        skip_without_server("no server is named");
    }
}
