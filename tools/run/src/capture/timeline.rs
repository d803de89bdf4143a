//! What happened to each participant on the signalling side, in order, as text.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use stampede_output::one_line;

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

    /// With `others`, which are in order of time too, where they belong.
    fn text(&self, others: &[(Duration, String)]) -> String {
        let mut text = String::new();
        let mut line = |at: &Duration, entry: &str| {
            let _ = writeln!(text, "{:>12.6}  {entry}", at.as_secs_f64());
        };
        let mut others = others.iter().peekable();
        for (index, (at, entry)) in self.first.iter().chain(&self.latest).enumerate() {
            while let Some((at, other)) = others.next_if(|other| other.0 <= *at) {
                line(at, &one_line(other));
            }
            if index == FIRST_ENTRIES && self.left_out > 0 {
                line(at, &format!("({} entries before this one left out)", self.left_out));
            }
            line(at, entry);
        }
        others.for_each(|(at, other)| line(at, &one_line(other)));
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

    /// Adds what happened to `identity` this long after the start of the run.
    pub(crate) fn add(&mut self, identity: &str, at: Duration, text: impl FnOnce() -> String) {
        if self.on {
            if !self.of.contains_key(identity) {
                self.of.insert(identity.to_owned(), Timeline::default());
            }
            if let Some(timeline) = self.of.get_mut(identity) {
                timeline.add(at, &text());
            }
        }
    }

    /// A participant's timeline: seconds since the start of the run, and what happened. `watched`
    /// is what is known of its watch time, in order of time.
    pub(crate) fn text(&self, identity: &str, watched: &[(Duration, String)]) -> String {
        let nothing = Timeline::default();
        self.of.get(identity).unwrap_or(&nothing).text(watched)
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
            timelines.add("a", Duration::from_millis(number), text);
        }
        let text = timelines.text("a", &[]);
        assert_eq!(text.lines().count(), ENTRIES_MAX + 1);
        assert!(text.starts_with("    0.000000  event 0\n"), "{text}");
        assert!(text.contains("    0.360000  (300 entries before this one left out)\n"), "{text}");
        assert!(text.ends_with("    0.499000  event 499\n"));
    }

    #[test]
    fn interruptions_stand_where_they_began_and_ended() {
        let mut timelines = Timelines::new(true);
        for (at_ms, text) in [(100, "join"), (900, "leave sent")] {
            timelines.add("a", Duration::from_millis(at_ms), || text.to_owned());
        }
        let watched = [(500, "interrupted"), (950, "over")];
        let watched = watched.map(|(at_ms, text)| (Duration::from_millis(at_ms), text.to_owned()));
        let text = timelines.text("a", &watched);
        let words: Vec<_> = text.lines().map(|line| line[14..].to_owned()).collect();
        assert_eq!(words, ["join", "interrupted", "leave sent", "over"], "{text}");
        assert_eq!(timelines.text("b", &watched).lines().count(), 2);
    }

    #[test]
    fn nothing_is_kept_or_even_formatted_unless_asked_for() {
        let mut timelines = Timelines::default();
        timelines.add("a", Duration::ZERO, || panic!("formatted"));
        assert_eq!(timelines.text("a", &[]), "");
    }
}
