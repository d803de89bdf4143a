//! Progress while a run goes on: a full screen on a terminal, plain lines otherwise, nothing with
//! `--quiet`. All of it on stderr; stdout is for the summary.

mod controls;
mod draw;
mod logs;
mod screen;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use stampede_engine::PeerLine;
pub(crate) use stampede_units::show::{bits_per_second as bits, share};

use crate::console;
use crate::report::judge::group;
use crate::report::types::SeriesRow;
use crate::report::watch_words::percent;
use crate::run::{Standings, Totals};
pub(crate) use controls::Controls;
use draw::Page;
pub(crate) use logs::{LogWriter, say};
use screen::Screen;
pub(crate) use screen::{is_up as has_the_screen, restore as restore_terminal};

/// Pause between plain lines.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(2);
/// Seconds the curves of the screen go back; older ones are dropped.
const HISTORY_SECONDS_MAX: usize = 300;
/// Log lines handed to the page: as many as fit on any screen.
const LOG_LINES_SHOWN_MAX: usize = 100;

/// What is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// What the run is doing.
    pub phase: &'static str,
    /// The ramp is paused by the user.
    pub paused: bool,
    /// Since the start of the run.
    pub elapsed: Duration,
    /// Left of the measured window, if it has begun.
    pub left: Option<Duration>,
    /// Participants connected now.
    pub joined: usize,
    /// Participants asked for.
    pub requested: usize,
    /// Where the participants stand.
    pub standings: Standings,
    /// Subscribers with a track that is interrupted now.
    pub interrupted: u64,
    /// Played over expected time of video so far, once known.
    pub watch_ratio: Option<f64>,
    /// Subscribers asked for.
    pub subscribers: usize,
    /// The latest second.
    pub second: SeriesRow,
    /// Packets and freezes so far.
    pub totals: Totals,
    /// Errors of joins by kind, commonest first.
    pub errors: Vec<(String, u64)>,
    /// The workers.
    pub workers: Vec<WorkerLine>,
    /// The workers' worst peers.
    pub worst: Vec<PeerLine>,
}

/// A worker in its last second.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerLine {
    /// Which.
    pub worker: usize,
    /// Its core, if it is pinned.
    pub core: Option<usize>,
    /// Peers it holds.
    pub peers: usize,
    /// CPU time over wall time.
    pub busy_ratio: f64,
    /// Worst lateness of a timer.
    pub lateness_ms_max: f64,
    /// Datagrams received in the second.
    pub packets_in: u64,
    /// Datagrams sent in the second.
    pub packets_out: u64,
    /// Datagrams the kernel dropped at its receive buffers since the window began.
    pub kernel_drops: u64,
    /// Datagrams not sent since the window began.
    pub unsent: u64,
}

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
    last_phase: &'static str,
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
            last_phase: "",
        };
        if mode == Mode::Screen {
            match Screen::enter(controls) {
                Ok(screen) => live.screen = Some(screen),
                Err(error) => {
                    live.mode = Mode::Lines;
                    tracing::warn!("no full-screen view: {error}");
                }
            }
        }
        live.show(&Progress { phase: "starting", ..Progress::default() });
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
            let logs = logs::last(LOG_LINES_SHOWN_MAX);
            if screen.draw(&mut Page::new(progress, &self.history, &logs)) {
                return;
            }
            self.screen = None;
            self.mode = Mode::Lines;
            logs::release();
        }
        let changed = self.last_phase != progress.phase;
        let due = changed || progress.elapsed >= self.next_line;
        if self.mode == Mode::Lines && due && progress.requested > 0 {
            self.last_phase = progress.phase;
            self.next_line = progress.elapsed + LINE_EVERY;
            console::err(&(line(progress) + "\n"));
        }
    }

    /// Says one thing.
    pub(crate) fn say(&self, text: &str) {
        if self.mode != Mode::Quiet {
            say(text);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.screen.take().is_some() {
            logs::release();
        }
    }
}

/// True if `NO_COLOR` is set (no-color.org): no escape sequences anywhere.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn loss(progress: &Progress) -> String {
    let totals = &progress.totals;
    if totals.expected == 0 {
        return "-".to_owned();
    }
    share(totals.unrecovered as f64 / totals.expected as f64)
}

fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 60 {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

impl Progress {
    /// Who is asked for and not connected, in words; the connected and these are all.
    fn others(&self) -> String {
        let Standings { joined, failed, pending_at, not_started } = self.standings;
        let gone = joined.saturating_sub(self.joined as u64);
        let parts = [
            (pending_at.total(), "joining"),
            (failed, "failed"),
            (gone, "gone"),
            (not_started, "to come"),
        ];
        let there = parts.into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<_> = there.map(|(count, word)| format!("{} {word}", group(count))).collect();
        words.join(", ")
    }
}

/// `watched 98.20 % of the video, 12 interrupted`; `None` before anything is known.
fn watched(progress: &Progress) -> Option<String> {
    let interrupted = match progress.interrupted {
        0 => String::new(),
        count => format!("{} interrupted", group(count)),
    };
    let Some(ratio) = progress.watch_ratio else {
        return (progress.interrupted > 0).then_some(interrupted);
    };
    let watched = format!("watched {} of the video", percent(ratio));
    Some(if interrupted.is_empty() { watched } else { format!("{watched}, {interrupted}") })
}

fn line(progress: &Progress) -> String {
    let second = &progress.second;
    let others = match progress.others() {
        none if none.is_empty() => none,
        others => format!(" ({others})"),
    };
    let mut text = format!(
        "{:>6} {:<9} joined {}/{}{others}  receiving {}/{}  {} packets/s  {}  loss {}  worker {:.0} %",
        clock(progress.elapsed),
        progress.phase,
        progress.joined,
        progress.requested,
        second.subscribers,
        progress.subscribers,
        group(second.packets_in),
        bits(second.bitrate_bps),
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
    use super::*;
    use crate::report::joins::PendingAt;

    pub(crate) fn progress() -> Progress {
        Progress {
            phase: "ramp",
            elapsed: Duration::from_secs(75),
            left: Some(Duration::from_secs(9)),
            joined: 150,
            requested: 202,
            standings: Standings {
                joined: 152,
                failed: 1,
                pending_at: PendingAt { ice: 9, ..PendingAt::default() },
                not_started: 40,
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
            totals: Totals { unrecovered: 1, expected: 1_000_000, ..Totals::default() },
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
    fn who_can_not_watch_is_told_as_soon_as_it_is_known() {
        let told = |watch_ratio, interrupted| {
            watched(&Progress { watch_ratio, interrupted, ..progress() })
        };
        assert_eq!(told(None, 0), None);
        assert_eq!(told(None, 3).as_deref(), Some("3 interrupted"));
        assert_eq!(told(Some(1.0), 0).as_deref(), Some("watched 100 % of the video"));
        let text = "watched 98.20 % of the video, 1,200 interrupted";
        assert_eq!(told(Some(0.982), 1_200).as_deref(), Some(text));
        let run = Progress { watch_ratio: Some(0.982), interrupted: 1_200, ..progress() };
        assert!(line(&run).contains(&format!("worker 42 %  {text}  errors:")), "{}", line(&run));
    }
}
