//! The full screen, drawn from plain figures: pure, so that tests can look at it.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Margin, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, Clear, LineGauge, Paragraph, RenderDirection, Row, Sparkline, Table,
};
use stampede_engine::{PeerLine, WorstBy};

use super::{clock, loss, others, watched};
use stampede_report::show::group;
use stampede_run::Progress;
use stampede_units::show::{bits_per_second, share};

/// Rows of workers shown; the busiest ones, if there are more.
const WORKERS_SHOWN_MAX: usize = 8;
/// A worker busier than this can't be trusted to keep up (docs/measurement.md, "Generator").
const BUSY_RATIO_WARN: f64 = 0.8;
/// Below this height the log is left out.
const LOG_FROM_HEIGHT: u16 = 22;

/// Everything that is drawn.
pub(super) struct Page<'a> {
    progress: &'a Progress,
    /// Packets and bits of the last seconds, oldest first.
    history: &'a VecDeque<(u64, u64)>,
    /// Log lines, oldest first.
    logs: &'a [String],
    /// Order of the worst peers.
    pub sort: WorstBy,
    /// Show the help.
    pub help: bool,
}

impl<'a> Page<'a> {
    /// A page in its default order, without help.
    pub(super) fn new(
        progress: &'a Progress,
        history: &'a VecDeque<(u64, u64)>,
        logs: &'a [String],
    ) -> Self {
        Self { progress, history, logs, sort: WorstBy::default(), help: false }
    }
}

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, page: &Page<'_>) {
    let area = frame.area();
    let workers = page.progress.workers.len().clamp(1, WORKERS_SHOWN_MAX) as u16;
    let log = if area.height >= LOG_FROM_HEIGHT { Constraint::Min(3) } else { Constraint::Max(0) };
    let [title, ramp, figures, machine, worst, logs, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Length(7),
        Constraint::Length(workers + 3),
        Constraint::Min(4),
        log,
        Constraint::Length(1),
    ])
    .areas(area);
    draw_title(frame, title, page.progress);
    draw_ramp(frame, ramp, page.progress);
    let [rates, losses] = split(figures);
    draw_rates(frame, rates, page);
    draw_losses(frame, losses, page.progress);
    let [left, right] = split(machine);
    draw_workers(frame, left, page.progress);
    draw_errors(frame, right, page.progress);
    draw_worst(frame, worst, page);
    draw_logs(frame, logs, page.logs);
    draw_keys(frame, keys, page.progress.paused);
    if page.help {
        draw_help(frame, area);
    }
}

fn split(area: Rect) -> [Rect; 2] {
    Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(area)
}

fn block(title: &str) -> Block<'_> {
    Block::bordered().border_style(Style::new().dark_gray()).title(title.bold())
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, progress: &Progress) {
    let mut spans = vec![
        "stampede ".bold(),
        Span::from(format!(" {} ", progress.phase.name())).black().on_cyan(),
        Span::from(format!("  {}", clock(progress.elapsed))),
    ];
    if let Some(left) = progress.left {
        spans.push(Span::from(format!(", {} left", clock(left))));
    }
    if progress.paused {
        spans.push(Span::from("  "));
        spans.push(" ramp paused, p goes on ".black().on_yellow());
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_ramp(frame: &mut Frame<'_>, area: Rect, progress: &Progress) {
    let rows = Layout::vertical([Constraint::Length(1); 2]).split(block("").inner(area));
    let others = match others(progress) {
        none if none.is_empty() => "ramp".to_owned(),
        others => format!("ramp: {others}"),
    };
    frame.render_widget(block(&others), area);
    let receiving = progress.second.subscribers as usize;
    let counts = [
        ("joined", progress.connected, progress.joins.counted.requested as usize, Color::Green),
        ("receiving", receiving, progress.subscribers, Color::Cyan),
    ];
    for ((name, part, whole, colour), row) in counts.into_iter().zip(rows.iter()) {
        let ratio = if whole > 0 { (part as f64 / whole as f64).min(1.0) } else { 0.0 };
        let label = format!("{name:<10}{:>15} ", format!("{part}/{whole}"));
        let gauge = LineGauge::default()
            .ratio(ratio)
            .label(label)
            .filled_symbol(symbols::line::THICK_HORIZONTAL)
            .filled_style(Style::new().fg(colour))
            .unfilled_style(Style::new().dark_gray());
        frame.render_widget(gauge, *row);
    }
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, page: &Page<'_>) {
    let second = &page.progress.second;
    let inside = block("").inner(area);
    frame.render_widget(block("rates"), area);
    let [text, curve] = Layout::vertical([Constraint::Length(3), Constraint::Min(0)]).areas(inside);
    let peak = page.history.iter().map(|(_, bits)| *bits).max().unwrap_or(0);
    let interrupted = page.progress.watch.interrupted > 0;
    let watching = if interrupted { Style::new().red().bold() } else { Style::new() };
    let lines = vec![
        Line::from(watched(page.progress).unwrap_or_default()).style(watching),
        Line::from(format!(
            "{:>12} packets/s in, {} out",
            group(second.packets_in),
            group(second.packets_out)
        )),
        Line::from(format!(
            "{:>12} now, peak {}",
            bits_per_second(second.bitrate_bps),
            bits_per_second(peak as f64)
        )),
    ];
    frame.render_widget(Paragraph::new(lines), text);
    // Newest at the right, and the curve's right end stays where it is.
    let newest_first: Vec<u64> = page.history.iter().rev().map(|(_, bits)| *bits).collect();
    let sparkline = Sparkline::default()
        .data(newest_first)
        .direction(RenderDirection::RightToLeft)
        .style(Style::new().cyan());
    frame.render_widget(sparkline, curve);
}

fn draw_losses(frame: &mut Frame<'_>, area: Rect, progress: &Progress) {
    let (packets, second) = (progress.counters.packets(), &progress.second);
    let lost = if packets.unrecovered > 0 { Style::new().red().bold() } else { Style::new() };
    let row = |name: &str, text: String| Line::from(format!("{name:<12}{text}"));
    let mut lines = vec![
        row("loss", format!("{} for good", loss(progress))).style(lost),
        row(
            "missing",
            format!("{} ({} this second)", group(packets.missing), group(second.media.missing)),
        ),
        row(
            "repaired",
            format!("{} + {} by RED", group(packets.repaired), group(packets.repaired_by_red)),
        ),
        row(
            "unrecovered",
            format!(
                "{} ({} this second)",
                group(packets.unrecovered),
                group(second.media.unrecovered)
            ),
        ),
    ];
    let freezes = &progress.counters.video.freezes;
    let frozen = freezes.total_s.as_secs_f64();
    lines.push(row("freezes", format!("{}, {frozen:.1} s together", group(freezes.count))));
    frame.render_widget(Paragraph::new(lines).block(block("loss and freezes")), area);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, progress: &Progress) {
    let mut workers: Vec<_> = progress.workers.iter().collect();
    if workers.len() > WORKERS_SHOWN_MAX {
        workers.sort_by(|a, b| b.busy_ratio.total_cmp(&a.busy_ratio));
        workers.truncate(WORKERS_SHOWN_MAX);
    }
    let rows = workers.into_iter().map(|worker| {
        let core = worker.core.map_or("-".to_owned(), |core| core.to_string());
        let bad = worker.busy_ratio > BUSY_RATIO_WARN
            || worker.counted.udp.kernel_drops + worker.counted.udp.unsent() > 0;
        Row::new([
            worker.worker.to_string(),
            core,
            group(worker.peers as u64),
            format!("{:.0} %", worker.busy_ratio * 100.0),
            format!("{:.1} ms", worker.lateness_max.as_secs_f64() * 1_000.0),
            group(worker.packets_in),
            group(worker.packets_out),
            group(worker.counted.udp.kernel_drops),
            group(worker.counted.udp.unsent()),
        ])
        .style(if bad { Style::new().yellow() } else { Style::new() })
    });
    let header = ["#", "core", "peers", "busy", "late", "in/s", "out/s", "dropped", "unsent"];
    let widths = [2, 4, 6, 5, 8, 8, 7, 7, 7].map(Constraint::Length);
    let table = Table::new(rows, widths).header(Row::new(header).dim()).block(block("workers"));
    frame.render_widget(table, area);
}

fn draw_errors(frame: &mut Frame<'_>, area: Rect, progress: &Progress) {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let failed = progress.joins.counted.failed;
    if failed > 0 {
        lines.push(Line::from(format!("{} gave up", group(failed))).red());
    }
    lines.extend(progress.errors.iter().map(|(kind, count)| {
        Line::from(vec![Span::from(format!("{:>7} ", group(*count))).red(), Span::from(kind)])
    }));
    if lines.is_empty() {
        lines.push(Line::from("none").dim());
    }
    frame.render_widget(Paragraph::new(lines).block(block("errors by reason")), area);
}

fn sort_name(sort: WorstBy) -> &'static str {
    match sort {
        WorstBy::Unrecovered => "unrecovered",
        WorstBy::Missing => "missing",
        WorstBy::Freezes => "freezes",
    }
}

/// Worst first; those that are not bad by this order are left out.
fn sorted(worst: &[PeerLine], sort: WorstBy) -> Vec<&PeerLine> {
    let mut peers: Vec<_> = worst.iter().filter(|peer| sort.badness(&peer.figures) > 0).collect();
    peers.sort_by(|a, b| {
        let badness = |peer: &PeerLine| sort.badness(&peer.figures);
        badness(b).cmp(&badness(a)).then_with(|| a.id.cmp(&b.id))
    });
    peers
}

fn draw_worst(frame: &mut Frame<'_>, area: Rect, page: &Page<'_>) {
    let title = format!("worst peers by {}", sort_name(page.sort));
    let peers = sorted(&page.progress.worst, page.sort);
    if peers.is_empty() {
        let text = Paragraph::new("none".dim()).block(block(&title));
        frame.render_widget(text, area);
        return;
    }
    let rows = peers.into_iter().map(|peer| {
        let figures = &peer.figures;
        let lost = if figures.expected > 0 {
            share(figures.unrecovered as f64 / figures.expected as f64)
        } else {
            "-".to_owned()
        };
        Row::new([
            peer.label.clone(),
            group(figures.expected),
            group(figures.missing),
            group(figures.repaired),
            group(figures.unrecovered),
            lost,
            group(figures.freezes),
            format!("{:.1} s", figures.frozen.as_secs_f64()),
        ])
    });
    let header =
        ["peer", "expected", "missing", "repaired", "unrecovered", "loss", "freezes", "frozen"];
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(11),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(8),
    ];
    let table = Table::new(rows, widths).header(Row::new(header).dim()).block(block(&title));
    frame.render_widget(table, area);
}

fn draw_logs(frame: &mut Frame<'_>, area: Rect, logs: &[String]) {
    let rows = usize::from(block("").inner(area).height);
    let tail = &logs[logs.len().saturating_sub(rows)..];
    let lines: Vec<Line<'_>> = tail.iter().map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines).block(block("log")), area);
}

fn draw_keys(frame: &mut Frame<'_>, area: Rect, paused: bool) {
    let pause = if paused { " resume the ramp  " } else { " pause the ramp  " };
    let (sort, capture) = (" sort worst peers  ", " flight recorder  ");
    let keys = [("q", " stop  "), ("p", pause), ("s", sort), ("c", capture), ("?", " help")];
    let spans: Vec<Span<'_>> =
        keys.into_iter().flat_map(|(key, text)| [key.bold().cyan(), text.dim()]).collect();
    frame.render_widget(Line::from(spans), area);
}

const HELP: [&str; 16] = [
    "q, Ctrl-C  stop: everybody leaves, then comes the summary",
    "           (again: exit at once, without a report)",
    "p          pause the ramp, or go on with it",
    "s          next order of the worst peers",
    "c          write the flight recorder now (with --capture)",
    "?          close this",
    "",
    "missing: not there when a later packet came. repaired: came",
    "in time by retransmission, or with a later packet (RED).",
    "unrecovered: lost for good.",
    "interrupted: subscribers with a track of which nothing could",
    "be shown for a second.",
    "dropped: by our own kernel. late: worst timer of the last",
    "second. Yellow workers can't keep up: what they counted is",
    "no fault of the server. Figures begin anew with the",
    "measured window (hold).",
];

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let width = 64.min(area.width);
    let height = (HELP.len() as u16 + 2).min(area.height);
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let place = Rect { x, y, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(Block::bordered().title("help".bold()), place);
    let lines: Vec<Line<'_>> = HELP.into_iter().map(Line::from).collect();
    let text = Paragraph::new(lines).alignment(Alignment::Left);
    frame.render_widget(text, place.inner(Margin { horizontal: 2, vertical: 1 }));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use stampede_counters::{GeneratorCounters, UdpStats};
    use stampede_engine::PeerFigures;
    use stampede_run::WorkerProgress;

    use super::*;
    use crate::live::tests::progress;

    fn screen(width: u16, height: u16, page: &Page<'_>) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, page)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect()
    }

    fn row_with<'a>(rows: &'a [String], text: &str) -> &'a str {
        let found = rows.iter().find(|row| row.contains(text));
        found.unwrap_or_else(|| panic!("no {text:?} in\n{}", rows.join("\n")))
    }

    fn peer(label: &str, unrecovered: u64, missing: u64, freezes: u64) -> PeerLine {
        PeerLine {
            id: stampede_engine::PeerId::default(),
            label: label.to_owned(),
            figures: PeerFigures {
                expected: 1_000,
                unrecovered,
                missing,
                freezes,
                frozen: Duration::from_millis(1_500),
                ..PeerFigures::default()
            },
        }
    }

    fn busy_run() -> Progress {
        let mut run = progress();
        run.counters.video.packets.missing = 1_234;
        run.watch.video.watch_ratio = Some(0.9876);
        run.watch.interrupted = 12;
        run.counters.video.freezes.count = 2;
        run.errors.push(("media_timeout".to_owned(), 1));
        run.workers = (0..2)
            .map(|worker| WorkerProgress {
                worker,
                core: Some(worker + 4),
                peers: 75,
                busy_ratio: 0.42,
                lateness_max: Duration::from_micros(3_250),
                packets_in: 16_520,
                counted: GeneratorCounters {
                    udp: UdpStats { kernel_drops: 17, ..UdpStats::default() },
                    ..GeneratorCounters::default()
                },
                ..WorkerProgress::default()
            })
            .collect();
        run.worst =
            vec![peer("sub-a", 1, 900, 0), peer("sub-b", 50, 60, 0), peer("sub-c", 0, 0, 2)];
        run
    }

    #[test]
    fn everything_the_run_is_judged_by_is_on_the_screen() {
        let (run, history) = (busy_run(), VecDeque::from([(10, 1_000), (20, 2_000)]));
        let logs = ["first".to_owned(), "WARN worker 1 is slow".to_owned()];
        let rows = screen(120, 40, &Page::new(&run, &history, &logs));
        for text in [
            "stampede  ramp   1m15s, 9s left",
            "150/202",
            "140/200",
            "33,040 packets/s in",
            "266.0 Mbps now",
            "watched 98.76 % of the video, 12 interrupted",
            "< 0.001 % for good",
            "1,234 (0 this second)",
            "2, 0.0 s together",
            "3 http_503",
            "1 media_timeout",
            "1 gave up",
            "WARN worker 1 is slow",
            "q stop",
        ] {
            row_with(&rows, text);
        }
        let worker = row_with(&rows, "42 %");
        for text in ["75", "3.2 ms", "16,520", "17"] {
            assert!(worker.contains(text), "{text}: {worker}");
        }
        assert!(rows.iter().any(|row| row.contains('█')), "no curve: {}", rows.join("\n"));
    }

    #[test]
    fn the_worst_come_first_in_the_order_asked_for() {
        let (run, history) = (busy_run(), VecDeque::new());
        let order = |sort| {
            let mut page = Page::new(&run, &history, &[]);
            page.sort = sort;
            let rows = screen(100, 40, &page);
            row_with(&rows, &format!("worst peers by {}", sort_name(sort)));
            let labels =
                rows.iter().filter_map(|row| row.find("sub-").map(|at| row[at..at + 5].to_owned()));
            labels.collect::<Vec<_>>()
        };
        assert_eq!(order(WorstBy::Unrecovered), ["sub-b", "sub-a"]);
        assert_eq!(order(WorstBy::Missing), ["sub-a", "sub-b"]);
        assert_eq!(order(WorstBy::Freezes), ["sub-c"]);
    }

    #[test]
    fn pause_and_help_can_be_seen() {
        let mut run = busy_run();
        run.paused = true;
        let history = VecDeque::new();
        let mut page = Page::new(&run, &history, &[]);
        page.help = true;
        let rows = screen(80, 24, &page);
        row_with(&rows, "ramp paused");
        row_with(&rows, "resume the ramp");
        row_with(&rows, "c flight recorder  ? help");
        row_with(&rows, "everybody leaves, then comes the summary");
    }

    #[test]
    fn any_size_of_terminal_can_be_drawn_on() {
        let (run, history) = (busy_run(), VecDeque::from([(1, 1)]));
        let mut page = Page::new(&run, &history, &[]);
        for help in [false, true] {
            page.help = help;
            for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 100)] {
                assert_eq!(screen(width, height, &page).len(), usize::from(height));
            }
        }
    }

    #[test]
    fn of_many_workers_the_busiest_are_shown() {
        let mut run = busy_run();
        run.workers = (0..40)
            .map(|worker| WorkerProgress {
                worker,
                busy_ratio: worker as f64 / 100.0,
                ..WorkerProgress::default()
            })
            .collect();
        let history = VecDeque::new();
        let rows = screen(120, 50, &Page::new(&run, &history, &[]));
        row_with(&rows, "39 %");
        assert!(!rows.iter().any(|row| row.contains(" 31 %")));
    }
}
