//! What happened to each participant on the signalling side, in order, as text.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use crate::exit::one_line;

/// Most entries kept of a participant: the first ones and the latest; what is between is counted.
const ENTRIES_MAX: usize = 200;
/// The first entries (its join) are never given up.
const FIRST_ENTRIES: usize = 60;
/// Longest entry in characters; the rest is cut off.
const ENTRY_CHARS_MAX: usize = 300;

#[derive(Debug, Default)]
struct Timeline {
    first: Vec<(Duration, String)>,
    latest: VecDeque<(Duration, String)>,
    left_out: u64,
}

impl Timeline {
    fn add(&mut self, at: Duration, text: &str) {
        let text: String = one_line(text).chars().take(ENTRY_CHARS_MAX).collect();
        if self.first.len() < FIRST_ENTRIES {
            self.first.push((at, text));
            return;
        }
        if self.latest.len() == ENTRIES_MAX - FIRST_ENTRIES {
            self.latest.pop_front();
            self.left_out += 1;
        }
        self.latest.push_back((at, text));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (at, entry) in &self.first {
            let _ = writeln!(text, "{:>12.6}  {entry}", at.as_secs_f64());
        }
        if self.left_out > 0 {
            let _ = writeln!(text, "              ({} entries left out)", self.left_out);
        }
        for (at, entry) in &self.latest {
            let _ = writeln!(text, "{:>12.6}  {entry}", at.as_secs_f64());
        }
        text
    }
}

/// The timelines of all participants by identity. Empty, and free, unless it is told to record.
#[derive(Debug, Default)]
pub(crate) struct Timelines {
    on: bool,
    of: HashMap<String, Timeline>,
}

impl Timelines {
    /// Records if `on`.
    pub(crate) fn new(on: bool) -> Self {
        Self { on, of: HashMap::new() }
    }

    /// Notes what happened to `identity` this long after the start of the run.
    pub(crate) fn note(&mut self, identity: &str, at: Duration, text: impl FnOnce() -> String) {
        if self.on {
            if !self.of.contains_key(identity) {
                self.of.insert(identity.to_owned(), Timeline::default());
            }
            if let Some(timeline) = self.of.get_mut(identity) {
                timeline.add(at, &text());
            }
        }
    }

    /// A participant's timeline: seconds since the start of the run, and what happened.
    pub(crate) fn text(&self, identity: &str) -> String {
        self.of.get(identity).map_or_else(String::new, Timeline::text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_join_and_the_latest_are_kept() {
        let mut timelines = Timelines::new(true);
        for number in 0..500 {
            let text = || format!("event\n{number}");
            timelines.note("a", Duration::from_millis(number), text);
        }
        let text = timelines.text("a");
        assert_eq!(text.lines().count(), ENTRIES_MAX + 1);
        assert!(text.starts_with("    0.000000  event 0\n"), "{text}");
        assert!(text.contains("(300 entries left out)"));
        assert!(text.ends_with("    0.499000  event 499\n"));
    }

    #[test]
    fn nothing_is_kept_or_even_formatted_unless_asked_for() {
        let mut timelines = Timelines::default();
        timelines.note("a", Duration::ZERO, || panic!("formatted"));
        assert_eq!(timelines.text("a"), "");
    }
}
