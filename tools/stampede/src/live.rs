//! Progress while a run goes on: a block that updates in place on a terminal, plain lines
//! otherwise, nothing with `--quiet`. All of it on stderr; stdout is for the summary.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::judge::group;
use crate::report::types::SeriesRow;

/// Pause between plain lines.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(2);
/// Redraws a second of the block.
const REDRAWS_HZ: u8 = 8;

/// The block on screen, so that log lines can be printed above it.
static BLOCK: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// What is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// What the run is doing.
    pub phase: &'static str,
    /// Since the start of the run.
    pub elapsed: Duration,
    /// Left of the measured window, if it has begun.
    pub left: Option<Duration>,
    /// Participants connected now.
    pub joined: usize,
    /// Participants asked for.
    pub requested: usize,
    /// Participants given up.
    pub failed: usize,
    /// Subscribers asked for.
    pub subscribers: usize,
    /// The latest second.
    pub second: SeriesRow,
    /// Packets lost for good so far.
    pub unrecovered: u64,
    /// Packets expected so far.
    pub expected: u64,
    /// Commonest error, if any.
    pub error: Option<(String, u64)>,
}

/// Whether and how progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A block that updates in place.
    Block,
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
        } else if no_tui || no_color() || dumb || !io::stderr().is_terminal() {
            Self::Lines
        } else {
            Self::Block
        }
    }
}

/// The view of a run.
pub(crate) struct Live {
    mode: Mode,
    next_line: Duration,
    last_phase: &'static str,
}

impl Live {
    /// Begins to show progress.
    pub(crate) fn start(mode: Mode) -> Self {
        if mode == Mode::Block {
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_HZ);
            let bar = ProgressBar::with_draw_target(None, target);
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            *BLOCK.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
        }
        Self { mode, next_line: Duration::ZERO, last_phase: "" }
    }

    /// Shows the state of things.
    pub(crate) fn show(&mut self, progress: &Progress) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Block => {
                if let Some(bar) = &*BLOCK.lock().unwrap_or_else(PoisonError::into_inner) {
                    bar.set_message(block(progress));
                    bar.tick();
                }
            }
            Mode::Lines => {
                let changed = self.last_phase != progress.phase;
                if changed || progress.elapsed >= self.next_line {
                    self.last_phase = progress.phase;
                    self.next_line = progress.elapsed + LINE_EVERY;
                    // A closed stderr is no reason to end a run.
                    let _ = writeln!(io::stderr(), "{}", line(progress));
                }
            }
        }
    }

    /// Says one thing, above the block if there is one.
    pub(crate) fn say(&self, text: &str) {
        if self.mode != Mode::Quiet {
            let _ = writeln!(LogWriter, "{text}");
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = BLOCK.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

/// stderr for log lines: they go above the block, which is drawn again below them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &*BLOCK.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// True if `NO_COLOR` is set (no-color.org): no escape sequences anywhere.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// `1.9 Mbps`, `48 kbps`.
pub(crate) fn bits(bps: f64) -> String {
    match bps {
        bps if bps >= 1e9 => format!("{:.2} Gbps", bps / 1e9),
        bps if bps >= 1e6 => format!("{:.1} Mbps", bps / 1e6),
        bps => format!("{:.0} kbps", bps / 1e3),
    }
}

/// A share as a percentage that never shows a small loss as 0.
pub(crate) fn share(rate: f64) -> String {
    match rate * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.001 => "< 0.001 %".to_owned(),
        percent if percent < 1.0 => format!("{percent:.3} %"),
        percent => format!("{percent:.2} %"),
    }
}

fn loss(progress: &Progress) -> String {
    if progress.expected == 0 {
        return "-".to_owned();
    }
    share(progress.unrecovered as f64 / progress.expected as f64)
}

fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 60 {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

fn line(progress: &Progress) -> String {
    let second = &progress.second;
    let mut text = format!(
        "{:>6} {:<9} joined {}/{}  receiving {}/{}  {} packets/s  {}  loss {}  worker {:.0} %",
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
    if let Some((kind, count)) = &progress.error {
        text.push_str(&format!("  errors: {count} x {kind}"));
    }
    text
}

const BAR_CELLS: usize = 24;

fn bar(part: usize, whole: usize) -> String {
    let filled = (part.min(whole) * BAR_CELLS).checked_div(whole).unwrap_or(0);
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR_CELLS - filled))
}

fn block(progress: &Progress) -> String {
    let second = &progress.second;
    let left = progress.left.map_or(String::new(), |left| format!(", {} left", clock(left)));
    let row = |name: &str, text: String| format!("  {name:<10} {text}\n");
    let mut text = format!("stampede  {} ({}{left})\n", progress.phase, clock(progress.elapsed));
    let count = |part, whole| format!("{} {part}/{whole}", bar(part, whole));
    text += &row("joined", count(progress.joined, progress.requested));
    text += &row("receiving", count(second.subscribers as usize, progress.subscribers));
    text +=
        &row("in", format!("{} packets/s, {}", group(second.packets_in), bits(second.bitrate_bps)));
    text += &row("loss", loss(progress));
    text += &row(
        "worker",
        format!(
            "{:.0} % busy, {:.1} ms late at worst",
            second.busy_ratio_max * 100.0,
            second.lateness_ms_max
        ),
    );
    if let Some((kind, count)) = &progress.error {
        text += &row("errors", format!("{count} x {kind}, {} gave up", progress.failed));
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress {
            phase: "ramp",
            elapsed: Duration::from_secs(75),
            left: Some(Duration::from_secs(9)),
            joined: 150,
            requested: 202,
            failed: 1,
            subscribers: 200,
            second: SeriesRow {
                subscribers: 140,
                packets_in: 33_040,
                bitrate_bps: 266e6,
                busy_ratio_max: 0.42,
                lateness_ms_max: 3.25,
                ..SeriesRow::default()
            },
            unrecovered: 1,
            expected: 1_000_000,
            error: Some(("http_503".to_owned(), 3)),
        }
    }

    #[test]
    fn a_line_holds_all_that_matters() {
        let line = line(&progress());
        assert_eq!(
            line,
            " 1m15s ramp      joined 150/202  receiving 140/200  33,040 packets/s  266.0 Mbps  \
             loss < 0.001 %  worker 42 %  errors: 3 x http_503"
        );
    }

    #[test]
    fn the_block_has_bars_and_no_escape_sequences_of_its_own() {
        let block = block(&progress());
        assert!(block.contains("150/202") && block.contains("3 x http_503, 1 gave up"), "{block}");
        assert!(!block.contains('\u{1b}'));
        assert!(bar(1, 0).chars().all(|cell| cell == '░'));
        assert_eq!(bar(9, 3).chars().filter(|cell| *cell == '█').count(), BAR_CELLS);
    }

    #[test]
    fn small_shares_are_never_shown_as_zero() {
        for (rate, text) in
            [(0.0, "0 %"), (1e-7, "< 0.001 %"), (0.0001, "0.010 %"), (0.0226, "2.26 %")]
        {
            assert_eq!(share(rate), text);
        }
    }
}
