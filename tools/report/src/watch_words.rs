//! Watch time in words: the same in the summary, the live view and every form of a report.

use super::hist::Hist;
use super::show::group;
use super::types::Report;
use super::watch::{Interruptions, WatchFigures, WorstViewer};

/// Causes named in one line; the report has all.
const CAUSES_SHOWN: usize = 4;

/// A ratio as a percentage that never calls all but a little all: 0.99999 is `99.999 %`.
pub fn percent(ratio: f64) -> String {
    if ratio >= 1.0 {
        return "100 %".to_owned();
    }
    // Rounded down, and by no more than what the digits shown can't tell apart.
    let digits = if ratio >= 0.9999 { 3 } else { 2 };
    let scale = 10f64.powi(digits);
    let percent = ((ratio * 100.0 + 1e-9) * scale).floor() / scale;
    if percent > 0.0 { format!("{percent:.*} %", digits as usize) } else { "0 %".to_owned() }
}

/// `1,234.5 s`.
pub fn seconds(value: f64) -> String {
    let tenths = (value * 10.0).round().max(0.0) as u64;
    format!("{}.{} s", group(tenths / 10), tenths % 10)
}

impl WatchFigures {
    /// True if something was expected, and all of it played.
    pub fn is_whole(&self) -> bool {
        self.watch_ratio.is_some() && self.expected_s == self.played_s
    }

    /// `711.2 s of 800.0 s`; `None` where nothing was expected.
    pub fn played_of_expected(&self) -> Option<String> {
        let (played_s, expected_s) = self.played_s.zip(self.expected_s)?;
        Some(format!("{} of {}", seconds(played_s), seconds(expected_s)))
    }
}

impl Interruptions {
    /// `30 on 30 subscribers, 183.0 s together, 6.1 s p50, 6.3 s max`.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{} on {} subscribers, {} together",
            group(self.count),
            group(self.subscribers),
            seconds(self.total_s)
        );
        if let Some(length) = &self.length_s {
            text += &format!(", {:.1} s p50, {:.1} s max", length.p50, length.max);
        }
        text
    }

    /// `28 disconnected (180.1 s), 2 loss (2.9 s)`, what took most time first; only causes that
    /// there were.
    pub fn cause_list(&self) -> String {
        let mut causes: Vec<_> = self.causes.named().filter(|(_, of)| of.count > 0).collect();
        causes.sort_by(|(_, a), (_, b)| b.total_s.total_cmp(&a.total_s));
        let more = causes.len().saturating_sub(CAUSES_SHOWN);
        let words = causes.into_iter().take(CAUSES_SHOWN).map(|(name, of)| {
            format!("{} {} ({})", group(of.count), name.replace('_', " "), seconds(of.total_s))
        });
        let mut text = words.collect::<Vec<_>>().join(", ");
        if more > 0 {
            text += &format!(" and {more} further causes");
        }
        text
    }
}

/// The sections in which something was expected, with their names.
pub fn kinds(report: &Report) -> impl Iterator<Item = (&'static str, &WatchFigures)> {
    [("video", &report.video), ("audio", &report.audio)].into_iter().filter_map(
        |(name, section)| {
            let watch = &section.as_ref()?.watch;
            watch.watch_ratio.is_some().then_some((name, watch))
        },
    )
}

/// `p50 99.20 %, min 88.04 %`: of the subscribers' own ratios.
pub fn of_subscribers(ratios: &Hist) -> String {
    format!("p50 {}, min {}", percent(ratios.p50), percent(ratios.min))
}

impl WorstViewer {
    /// With its host, in a merged report.
    pub fn name(&self) -> String {
        match &self.host {
            Some(host) => format!("{host}: {}", self.subscriber),
            None => self.subscriber.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{CauseFigures, Causes};

    #[test]
    fn little_missing_is_never_shown_as_nothing() {
        for (ratio, text) in [
            (1.0, "100 %"),
            (0.999_999, "99.999 %"),
            (0.999_94, "99.994 %"),
            (0.998_77, "99.87 %"),
            (0.889, "88.90 %"),
            (0.999, "99.90 %"),
            (0.0, "0 %"),
            (1.000_4, "100 %"),
        ] {
            assert_eq!(percent(ratio), text, "{ratio}");
        }
        assert_eq!(seconds(1_234.56), "1,234.6 s");
    }

    #[test]
    fn causes_are_told_by_the_time_they_took() {
        let causes = Causes {
            loss: CauseFigures { count: 2, total_s: 2.9 },
            publisher_gone: CauseFigures { count: 28, total_s: 180.1 },
            ..Causes::default()
        };
        let one =
            Interruptions { count: 30, subscribers: 29, total_s: 183.0, causes, length_s: None };
        assert_eq!(one.cause_list(), "28 publisher gone (180.1 s), 2 loss (2.9 s)");
        assert_eq!(one.summary(), "30 on 29 subscribers, 183.0 s together");
    }
}
