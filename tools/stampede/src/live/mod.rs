//! Progress while a run goes on: a full screen on a terminal, plain lines otherwise, nothing with
//! `--quiet`. All of it on stderr; stdout is for the summary.

mod controls;
mod draw;
mod screen;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use stampede_counters::JoinCounters;
use stampede_output::{console, log, no_color};
use stampede_report::show::group;
use stampede_report::watch_words::percent;
use stampede_run::{Controls, Phase, Progress};
use stampede_units::show::{bits_per_second, share};

use controls::Keys;
use draw::Page;
use screen::Screen;

/// Pause between plain lines.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(2);
/// Seconds the curves of the screen go back; older ones are dropped.
const HISTORY_SECONDS_MAX: usize = 300;
/// Log lines handed to the page: as many as fit on any screen.
const LOG_LINES_SHOWN_MAX: usize = 100;

/// Whether and how progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The full screen.
    Screen,
    /// A line now and then.
    Lines,
    /// Nothing.
    Quiet,
}

impl Mode {
    /// From the flags, the terminal and the environment. `NO_COLOR` means no escape sequences at
    /// all, so plain lines.
    pub(crate) fn choose(quiet: bool, no_tui: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if quiet {
            Self::Quiet
        } else if no_tui || no_color() || dumb || !is_ours(&io::stderr()) {
            Self::Lines
        } else {
            Self::Screen
        }
    }
}

/// True for a terminal in whose foreground we are: a job in the background would be stopped for
/// touching it.
fn is_ours(stderr: &io::Stderr) -> bool {
    stderr.is_terminal()
        && rustix::termios::tcgetpgrp(stderr)
            .is_ok_and(|foreground| foreground == rustix::process::getpgrp())
}

/// The view of a run.
pub(crate) struct Live {
    mode: Mode,
    screen: Option<Screen>,
    history: VecDeque<(u64, u64)>,
    last_second: f64,
    next_line: Duration,
    last_phase: Option<Phase>,
}

impl Live {
    /// Begins to show progress. A terminal that can't be taken gets plain lines.
    pub(crate) fn start(mode: Mode, controls: Arc<Controls>) -> Self {
        let mut live = Self {
            mode,
            screen: None,
            history: VecDeque::new(),
            last_second: 0.0,
            next_line: Duration::ZERO,
            last_phase: None,
        };
        if mode == Mode::Screen {
            match Screen::enter(Keys::new(controls)) {
                Ok(screen) => live.screen = Some(screen),
                Err(error) => {
                    live.mode = Mode::Lines;
                    tracing::warn!("no full-screen view: {error}");
                }
            }
        }
        live.show(&Progress::default());
        live
    }

    /// Shows the state of things.
    pub(crate) fn show(&mut self, progress: &Progress) {
        if progress.second.t_s > self.last_second {
            self.last_second = progress.second.t_s;
            if self.history.len() == HISTORY_SECONDS_MAX {
                self.history.pop_front();
            }
            let second = &progress.second;
            self.history.push_back((second.packets_in, second.bitrate_bps as u64));
        }
        if let Some(screen) = &mut self.screen {
            let logs = log::last(LOG_LINES_SHOWN_MAX);
            if screen.draw(&mut Page::new(progress, &self.history, &logs)) {
                return;
            }
            self.screen = None;
            self.mode = Mode::Lines;
            log::release();
        }
        let changed = self.last_phase != Some(progress.phase);
        let due = changed || progress.elapsed >= self.next_line;
        if self.mode == Mode::Lines && due && progress.joins.counted.requested > 0 {
            self.last_phase = Some(progress.phase);
            self.next_line = progress.elapsed + LINE_EVERY;
            console::err(&(line(progress) + "\n"));
        }
    }

    /// True if nothing is shown or said.
    pub(crate) fn is_quiet(&self) -> bool {
        self.mode == Mode::Quiet
    }

    /// Says one thing.
    pub(crate) fn say(&self, text: &str) {
        if self.mode != Mode::Quiet {
            stampede_output::say(text);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.screen.take().is_some() {
            log::release();
        }
    }
}

fn loss(progress: &Progress) -> String {
    progress.counters.packets().loss_rate().map_or_else(|| "-".to_owned(), share)
}

fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 60 {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// Who is asked for and not connected, in words; the connected and these are all.
fn others(progress: &Progress) -> String {
    let JoinCounters { joined, failed, pending, not_started, leaves, rejoins, .. } =
        progress.joins.counted;
    let absent = joined.saturating_sub(progress.connected as u64);
    let left = absent.min(leaves.saturating_sub(rejoins));
    let parts = [
        (pending, "joining"),
        (failed, "failed"),
        (absent - left, "gone"),
        (left, "left as planned"),
        (not_started, "to come"),
    ];
    let there = parts.into_iter().filter(|(count, _)| *count > 0);
    let words: Vec<_> = there.map(|(count, word)| format!("{} {word}", group(count))).collect();
    words.join(", ")
}

/// `watched 98.20 % of the video, 12 interrupted`; `None` before anything is known.
fn watched(progress: &Progress) -> Option<String> {
    let interrupted = match progress.watch.interrupted {
        0 => String::new(),
        count => format!("{} interrupted", group(count)),
    };
    let Some(ratio) = progress.watch.video.watch_ratio else {
        return (progress.watch.interrupted > 0).then_some(interrupted);
    };
    let watched = format!("watched {} of the video", percent(ratio));
    Some(if interrupted.is_empty() { watched } else { format!("{watched}, {interrupted}") })
}

fn line(progress: &Progress) -> String {
    let second = &progress.second;
    let others = match others(progress) {
        none if none.is_empty() => none,
        others => format!(" ({others})"),
    };
    let mut text = format!(
        "{:>6} {:<9} joined {}/{}{others}  receiving {}/{}  {} packets/s  {}  loss {}  worker {:.0} %",
        clock(progress.elapsed),
        progress.phase.name(),
        progress.connected,
        progress.joins.counted.requested,
        second.subscribers,
        progress.subscribers,
        group(second.packets_in),
        bits_per_second(second.bitrate_bps),
        loss(progress),
        second.busy_ratio_max * 100.0
    );
    if let Some(watched) = watched(progress) {
        text.push_str(&format!("  {watched}"));
    }
    if let Some((kind, count)) = progress.errors.first() {
        text.push_str(&format!("  errors: {count} x {kind}"));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use stampede_counters::RunCounters;
    use stampede_report::running::LiveJoins;
    use stampede_report::types::SeriesRow;

    use super::*;

    pub(crate) fn progress() -> Progress {
        let mut counters = RunCounters::default();
        counters.video.packets.expected = 1_000_000;
        counters.video.packets.unrecovered = 1;
        Progress {
            counters,
            phase: Phase::Ramp,
            elapsed: Duration::from_secs(75),
            left: Some(Duration::from_secs(9)),
            connected: 150,
            joins: LiveJoins {
                counted: JoinCounters {
                    requested: 202,
                    joined: 152,
                    failed: 1,
                    pending: 9,
                    not_started: 40,
                    ..JoinCounters::default()
                },
                ..LiveJoins::default()
            },
            subscribers: 200,
            second: SeriesRow {
                t_s: 75.0,
                subscribers: 140,
                packets_in: 33_040,
                bitrate_bps: 266e6,
                busy_ratio_max: 0.42,
                lateness_ms_max: 3.25,
                ..SeriesRow::default()
            },
            errors: vec![("http_503".to_owned(), 3)],
            ..Progress::default()
        }
    }

    #[test]
    fn a_line_holds_all_that_matters() {
        let line = line(&progress());
        assert_eq!(
            line,
            " 1m15s ramp      joined 150/202 (9 joining, 1 failed, 2 gone, 40 to come)  receiving \
             140/200  33,040 packets/s  266.0 Mbps  loss < 0.001 %  worker 42 %  errors: 3 x http_503"
        );
    }

    #[test]
    fn who_left_as_planned_is_not_gone() {
        let mut run = progress();
        (run.joins.counted.leaves, run.joins.counted.rejoins) = (30, 29);
        let told = "9 joining, 1 failed, 1 gone, 1 left as planned, 40 to come";
        assert_eq!(others(&run), told);
        run.joins.counted.leaves = 100;
        assert!(others(&run).contains("failed, 2 left as planned, 40"), "{}", others(&run));
    }

    #[test]
    fn who_can_not_watch_is_told_as_soon_as_it_is_known() {
        let told = |watch_ratio, interrupted| {
            let mut progress = progress();
            progress.watch.video.watch_ratio = watch_ratio;
            progress.watch.interrupted = interrupted;
            watched(&progress)
        };
        assert_eq!(told(None, 0), None);
        assert_eq!(told(None, 3).as_deref(), Some("3 interrupted"));
        assert_eq!(told(Some(1.0), 0).as_deref(), Some("watched 100 % of the video"));
        let text = "watched 98.20 % of the video, 1,200 interrupted";
        assert_eq!(told(Some(0.982), 1_200).as_deref(), Some(text));
        let mut run = progress();
        run.watch.video.watch_ratio = Some(0.982);
        run.watch.interrupted = 1_200;
        assert!(line(&run).contains(&format!("worker 42 %  {text}  errors:")), "{}", line(&run));
    }
}
