//! The summary at the end, for people; the same figures as the JSON report.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use stampede_counters::{ImpairCounters, PacketCounters, UdpStats};

use stampede_output::files::{self, WriteError};
use stampede_output::no_color;
use stampede_report::hist::Hist;
use stampede_report::show::group;
use stampede_report::types::CohortFigures;
use stampede_report::types::{
    Fault, FaultRow, FindSection, GeneratorSection, ImpairmentSection, JoinSection, MediaSection,
    Outcome, PublishSection, RecoveriesSection, Report, ServerMetrics, ServerSection, StageRow,
    ThresholdRow,
};
use stampede_report::watch_words;
use stampede_scenario::values::Backend;
use stampede_units::show::{bits_per_second, bytes, share};

/// Width of the column of cohorts; a longer name has a line of its own.
const COHORT_COLUMN: usize = 20;
/// What is done on purpose and how it was taken is one line up to so many characters.
const FAULT_LINE_MAX: usize = 87;
/// Error kinds shown; the report holds all.
const ERRORS_SHOWN: usize = 5;
/// Workers shown one by one; more are shown as a range.
const WORKERS_SHOWN: usize = 8;

/// Prints the summary to stdout, in colour on a terminal unless `NO_COLOR` is set.
///
/// # Errors
/// Why nobody saw it, which is nothing to act on but a signal.
pub(crate) fn print(report: &Report) -> Result<(), WriteError> {
    let text = render(report, io::stdout().is_terminal() && !no_color());
    files::write(files::STDOUT.as_ref(), text.into_bytes())
}

/// The same to stderr.
///
/// # Errors
/// The same.
pub(crate) fn print_to_stderr(report: &Report) -> Result<(), WriteError> {
    let text = render(report, io::stderr().is_terminal() && !no_color());
    files::write(files::STDERR.as_ref(), text.into_bytes())
}

/// Lines with a name in the first column.
struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn row(&mut self, name: &str, text: &str) {
        let painted = self.paint(Style::new().bold(), &format!("{name:<10}"));
        let _ = writeln!(self.text, "  {painted} {text}");
    }

    fn sub(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.text, "  {:10} {name:<9} {text}", "");
    }

    /// A row whose text has a name itself.
    fn named(&mut self, row: &str, name: &str, text: &str) {
        self.row(row, &format!("{name:<9} {text}"));
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

fn render(report: &Report, colour: bool) -> String {
    let mut page = Page { text: String::from("\n"), colour };
    verdict(&mut page, report);
    page.text.push('\n');
    watch(&mut page, report);
    join(&mut page, &report.join);
    recoveries(&mut page, &report.recoveries);
    faults(&mut page, &report.faults);
    for (number, (name, text)) in report.signalling.told().iter().enumerate() {
        page.named(if number == 0 { "signalling" } else { "" }, name, text);
    }
    for (name, section) in [("video", &report.video), ("audio", &report.audio)] {
        if let Some(section) = section {
            media(&mut page, name, section);
        }
    }
    cohorts(&mut page, &report.cohorts);
    if let Some(section) = &report.publish {
        let adapts = report.run.options.as_ref().is_some_and(|options| options.adapt);
        publish(&mut page, section, adapts);
    }
    let kinds = report.data.iter().flat_map(|section| section.named());
    let told = kinds.filter_map(|(name, one)| Some((name, one.told()?)));
    for (place, (name, told)) in told.enumerate() {
        page.named(if place == 0 { "data" } else { "" }, name, &told);
    }
    if let Some(rpc) = &report.rpc {
        page.row("rpc", &rpc.told());
    }
    if let Some(section) = &report.impairment {
        impairment(&mut page, section);
    }
    if let Some(section) = &report.recordings {
        let text = format!(
            "{} files in {}, {} frames written, {} dropped",
            section.files.len(),
            section.dir,
            group(section.counted.frames_written),
            group(section.counted.frames_dropped)
        );
        page.row("recordings", &text);
    }
    if let Some(first) = report.captures.first() {
        let text = format!("{} subscribers; the worst: {first}", report.captures.len());
        page.row("capture", &text);
    }
    if let Some(rows) = &report.run.stages {
        stages(&mut page, rows);
    }
    if let Some(section) = &report.find {
        find(&mut page, section);
    }
    generator(&mut page, &report.generator);
    server(&mut page, &report.server);
    thresholds(&mut page, &report.thresholds);
    page.text
}

fn verdict(page: &mut Page, report: &Report) {
    let result = report.verdict.result;
    let colour = match result {
        Outcome::Pass if report.verdict.fault == Fault::None => AnsiColor::Green,
        Outcome::Pass | Outcome::Interrupted => AnsiColor::Yellow,
        Outcome::Fail => AnsiColor::Red,
        Outcome::Invalid => AnsiColor::Magenta,
    };
    let word = page.paint(Style::new().bold().fg_color(Some(colour.into())), result.word());
    let mut line = format!("{word}  {}", report.join.balance());
    if let Some(PacketCounters { unrecovered, expected, .. }) = report.packets() {
        let _ = write!(line, ", {} of {} packets lost", group(unrecovered), group(expected));
    }
    let fault = match report.verdict.fault {
        Fault::None => "",
        Fault::Generator if result == Outcome::Invalid => {
            ", fault: generator (these figures say nothing about the server)"
        }
        Fault::Generator => ", fault: generator",
        Fault::Network => ", fault: network",
        Fault::Server => ", fault: server",
        Fault::Publisher => ", fault: publisher",
        Fault::Unknown => ", fault: unknown",
    };
    line.push_str(fault);
    let _ = writeln!(page.text, "{line}");
    for reason in &report.verdict.reasons {
        let _ = writeln!(page.text, "  - {reason}");
    }
}

/// How long could be watched; one line when that was always.
fn watch(page: &mut Page, report: &Report) {
    let kinds: Vec<_> = watch_words::kinds(report).collect();
    if kinds.is_empty() {
        return;
    }
    let layers = report.video.as_ref().and_then(|section| section.layers.as_ref()?.summary());
    if kinds.iter().all(|(_, watch)| watch.is_whole()) {
        let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
        let all = report.watch.as_ref().map_or(0, |section| section.subscribers);
        let text = format!("100 % of {} by all {} subscribers", names.join(" and "), group(all));
        page.row("watched", &text);
        layers.iter().for_each(|layers| page.sub("layers", layers));
        return;
    }
    for (index, (name, watch)) in kinds.iter().enumerate() {
        let mut text = watch.watch_ratio.map_or(String::new(), watch_words::percent);
        if !watch.is_whole() {
            let played = watch.played_of_expected().unwrap_or_default();
            let _ = write!(text, ": {played}");
        }
        if let Some(ratios) = watch.watch_ratio_subscribers.as_ref().filter(|_| !watch.is_whole()) {
            let _ = write!(text, "; subscribers {}", watch_words::of_subscribers(ratios));
        }
        page.named(if index == 0 { "watched" } else { "" }, name, &text);
    }
    for (name, watch) in &kinds {
        let gaps = &watch.interruptions;
        let short = watch.short_gaps_s.filter(|short| *short >= 0.05);
        let short = short.map(|short| format!("{} in short ones", watch_words::seconds(short)));
        if gaps.count > 0 {
            page.sub("gaps", &format!("{name}: {}", gaps.summary()));
            let parts = [Some(gaps.cause_list()), short];
            page.sub("", &parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
        } else if let Some(short) = short {
            page.sub("gaps", &format!("{name}: {short}"));
        }
    }
    layers.iter().for_each(|layers| page.sub("layers", layers));
    let worst = report.watch.iter().flat_map(|section| &section.worst).next();
    if let Some(worst) = worst.filter(|worst| worst.watch_ratio < 1.0) {
        let ratio = watch_words::percent(worst.watch_ratio);
        page.sub("worst", &format!("{ratio}: {}", worst.name()));
    }
}

fn join(page: &mut Page, join: &JoinSection) {
    let mut text = join.balance();
    if let Some(peak) = join.peak {
        let _ = write!(text, ", peak {peak}");
    }
    text.push_str(&join.afterwards());
    page.row("join", &text);
    let mut errors: Vec<_> = join.errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (kind, count) in errors.into_iter().take(ERRORS_SHOWN) {
        page.sub("error", &format!("{} x {kind}", group(*count)));
    }
    let rows = join.phases_ms.named();
    if rows.iter().any(|(_, hist)| hist.is_some()) {
        let _ = writeln!(
            page.text,
            "  {:10} {:<22}{:>9}{:>9}{:>9}{:>9}",
            "", "ms after its schedule", "p50", "p90", "p99", "max"
        );
    }
    for (name, hist) in rows {
        if let Some(hist) = hist {
            let _ = writeln!(
                page.text,
                "  {:10} {name:<22}{:>9.1}{:>9.1}{:>9.1}{:>9.1}",
                "", hist.p50, hist.p90, hist.p99, hist.max
            );
        }
    }
}

/// A line for each way in which somebody came back, or tried to.
fn recoveries(page: &mut Page, section: &RecoveriesSection) {
    for (number, (_, name, way)) in section.tried().enumerate() {
        let row = if number == 0 { "recovered" } else { "" };
        page.row(row, &format!("{name} {}", way.told()));
    }
}

/// A line for each fault, or two where one does not hold it.
fn faults(page: &mut Page, rows: &[FaultRow]) {
    for (number, fault) in rows.iter().enumerate() {
        let row = if number == 0 { "faults" } else { "" };
        let (name, told) = (fault.name(), fault.told());
        let line = format!("{name}: {told}");
        if line.chars().count() <= FAULT_LINE_MAX {
            page.row(row, &line);
        } else {
            page.row(row, &name);
            page.row("", &format!("  {told}"));
        }
    }
}

fn stages(page: &mut Page, rows: &[StageRow]) {
    for (number, row) in rows.iter().enumerate() {
        let loss = row.loss_rate.map_or("-".to_owned(), share);
        let bitrate = row.bitrate_bps.map_or("-".to_owned(), bits_per_second);
        let text = format!(
            "{:>6.1} s to {:>6.1} s: to {} subscribers ({} connected), {bitrate}, lost {loss}",
            row.t_s,
            row.t_s + row.duration_s,
            group(row.subscribers),
            group(row.subscribers_connected)
        );
        page.row(if number == 0 { "stages" } else { "" }, &text);
    }
}

fn find(page: &mut Page, section: &FindSection) {
    let number = |found: Option<u64>| found.map_or("none".to_owned(), group);
    let limit = match section.limit {
        None => "nothing broke it",
        Some(Fault::Generator) => "limit: this machine (generator), not the server",
        Some(Fault::Server) => "limit: server",
        Some(Fault::Network) => "limit: network",
        Some(Fault::Publisher) => "limit: publisher",
        Some(Fault::None | Fault::Unknown) => "limit: unknown (server or network)",
    };
    let text = format!(
        "{} held with {} subscribers a room, first broken with {}; {limit}",
        section.until,
        number(section.highest_ok),
        number(section.first_broken)
    );
    page.row("find", &text);
    for step in &section.steps {
        let value = |value: &Option<f64>| value.map_or("unknown".to_owned(), |v| format!("{v}"));
        let figures: Vec<String> =
            step.figures.iter().map(|(key, figure)| format!("{key} {}", value(figure))).collect();
        let text = format!(
            "{:>6}  {}, workers {:.0} % busy",
            group(step.subscribers),
            figures.join(", "),
            step.busy_ratio_max * 100.0
        );
        page.sub(if step.ok { "held" } else { "broke" }, &text);
    }
}

fn media(page: &mut Page, name: &str, media: &MediaSection) {
    let mut text = match media.tracks_expected {
        Some(expected) => format!("{} of {} tracks", media.tracks_received, expected),
        None => format!("{} tracks", media.tracks_received),
    };
    if let Some(bps) = media.bitrate_bps {
        let each = bps / media.tracks_received.max(1) as f64;
        let _ = write!(text, ", {} ({} each)", bits_per_second(bps), bits_per_second(each));
    }
    if let Some(fps) = media.fps {
        let _ = write!(text, ", {fps:.1} frames/s");
    }
    page.row(name, &text);
    let packets = &media.packets;
    page.sub(
        "packets",
        &format!(
            "{} expected, {} received, {} duplicate, {} reordered",
            group(packets.expected),
            group(packets.received),
            group(packets.duplicate),
            group(packets.reordered)
        ),
    );
    let rate = media.loss_rate.map_or("-".to_owned(), share);
    // Shorter where there is more to say: a line has 100 characters.
    let (for_good, by_red, late) = match packets.repaired_by_red {
        0 => (" for good", String::new(), "came late"),
        by_red => ("", format!(" + {} by RED", group(by_red)), "late"),
    };
    page.sub(
        "loss",
        &format!(
            "{rate}{for_good}: {} missing = {} repaired{by_red} + {} unrecovered ({} {late})",
            group(packets.missing),
            group(packets.repaired),
            group(packets.unrecovered),
            group(packets.late)
        ),
    );
    frames(page, media);
    let mut text = media.jitter_ms.as_ref().map_or("-".to_owned(), |jitter| {
        format!("{:.1} ms p50, {:.1} ms p99", jitter.p50, jitter.p99)
    });
    let _ = write!(
        text,
        "; sent {} NACK, {} PLI",
        group(media.feedback.nack_sent),
        group(media.feedback.pli_sent)
    );
    page.sub("jitter", &text);
    latency(page, media);
}

fn latency(page: &mut Page, media: &MediaSection) {
    let text = match (&media.latency_ms, &media.latency_source.unknown_because) {
        (Some(latency), _) => format!(
            "{:.1} ms p50, {:.1} ms p95, {:.1} ms p99, {:.1} ms max",
            latency.p50, latency.p95, latency.p99, latency.max
        ),
        (None, why) => format!("unknown: {}", why.as_deref().unwrap_or("not measured")),
    };
    page.sub("latency", &text);
    if let Some(after) = &media.pli_to_keyframe_ms {
        let text = format!("{:.0} ms p50, {:.0} ms p99 after a PLI", after.p50, after.p99);
        page.sub("keyframes", &text);
    }
    if let Some(estimate) = &media.estimate_bps {
        let text = format!("{}, in {} REMB", megabits(estimate), group(media.feedback.remb_sent));
        page.sub("estimate", &text);
    }
}

/// Estimates of what a way is good for.
fn megabits(estimate_bps: &Hist) -> String {
    let [min, p50, max] = [estimate_bps.min, estimate_bps.p50, estimate_bps.max].map(|v| v / 1e6);
    format!("{min:.2} Mbit/s at least, {p50:.2} p50, {max:.2} at most")
}

fn frames(page: &mut Page, media: &MediaSection) {
    let frames = &media.frames;
    let mut text =
        format!("{} received, {} complete", group(frames.received), group(frames.complete));
    if let (Some(decodable), Some(dropped)) = (frames.decodable, frames.dropped) {
        let _ = write!(text, ", {} decodable, {} dropped", group(decodable), group(dropped));
    }
    page.sub("frames", &text);
    if let Some(freezes) = media.freezes.as_ref().filter(|freezes| freezes.count > 0) {
        let text = format!(
            "{} on {} tracks, {:.1} s together; {} by loss, {} late, {} as nothing was sent",
            group(freezes.count),
            group(freezes.streams),
            freezes.total_s.as_secs_f64(),
            group(freezes.causes.loss.count),
            group(freezes.causes.late.count),
            group(freezes.causes.silent.count)
        );
        page.sub("freezes", &text);
    }
}

/// A line for each kind of media of each cohort.
fn cohorts(page: &mut Page, rows: &[CohortFigures]) {
    if rows.is_empty() {
        return;
    }
    let head = format!(
        "{:<COHORT_COLUMN$}{:>6}{:>10}{:>10}{:>10}{:>8}{:>12}{:>10}",
        "subscribers", "", "watched", "missing", "for good", "freezes", "latency p50", "p99"
    );
    page.row("cohorts", &head);
    for row in rows {
        let mut name = format!("{} {}", group(row.subscribers), row.name);
        if name.len() >= COHORT_COLUMN {
            page.row("", &name);
            name.clear();
        }
        for (kind, media) in row.media() {
            let text = |value: Option<f64>| value.map_or("-".to_owned(), share);
            let latency = |at: fn(&Hist) -> f64| {
                media.latency_ms.as_ref().map_or("-".to_owned(), |hist| format!("{:.1}", at(hist)))
            };
            let freezes = media.freezes.as_ref().map_or("-".to_owned(), |all| group(all.count));
            let line = format!(
                "{name:<COHORT_COLUMN$}{kind:>6}{:>10}{:>10}{:>10}{freezes:>8}{:>12}{:>10}",
                media.watch.watch_ratio.map_or("-".to_owned(), watch_words::percent),
                text(media.missing_rate),
                text(media.loss_rate),
                latency(|hist| hist.p50),
                latency(|hist| hist.p99)
            );
            page.row("", &line);
            name.clear();
        }
    }
}

/// Loss on the way to the server from which on libwebrtc lowers what it sends
/// (`kDefaultLowLossThreshold`, `send_side_bandwidth_estimation.cc`).
const UPSTREAM_LOSS_HIGH: f64 = 0.02;

fn publish(page: &mut Page, publish: &PublishSection, adapts: bool) {
    let upstream = publish.upstream_loss_rate.map_or("not reported".to_owned(), share);
    let text = format!(
        "{} tracks, {} packets, {}, {} keyframes; lost on the way up: {upstream}",
        publish.counted.tracks,
        group(publish.counted.packets_sent),
        bytes(publish.counted.bytes_sent),
        group(publish.counted.keyframes_sent)
    );
    page.row("publish", &text);
    let text = format!(
        "{} packets{} for {} NACK; {} PLI answered",
        group(publish.counted.retransmitted),
        if adapts { ", padding among them," } else { "" },
        group(publish.counted.nack_received),
        group(publish.counted.pli_received)
    );
    page.sub("resent", &text);
    if let Some(estimate) = &publish.estimate_bps {
        let mut text = megabits(estimate);
        let _ = write!(text, "; layers without room: {}", group(publish.counted.layer_drops));
        page.sub("estimate", &text);
    }
    if !adapts && publish.upstream_loss_rate.is_some_and(|rate| rate > UPSTREAM_LOSS_HIGH) {
        let text = "not obeyed: browsers would have sent fewer layers (--adapt)";
        page.sub("feedback", text);
    }
    if let Some(late) = &publish.lateness_ms {
        let mut text =
            format!("{:.1} ms p50, {:.1} ms p99, {:.1} ms max", late.p50, late.p99, late.max);
        if publish.counted.layer_pauses > 0 {
            let _ = write!(
                text,
                "; layers nobody wants: {}, frames withheld: {}",
                group(publish.counted.layer_pauses),
                group(publish.counted.frames_withheld)
            );
        }
        page.sub("late", &text);
    }
}

fn impairment(page: &mut Page, section: &ImpairmentSection) {
    let what = |injected: &ImpairCounters| {
        format!(
            "{} dropped, {} delayed, {} reordered, {} duplicated",
            group(injected.dropped),
            group(injected.delayed),
            group(injected.reordered),
            group(injected.duplicated)
        )
    };
    page.row("impaired", &format!("on purpose: {}", what(&section.all)));
    for cohort in &section.cohorts {
        let text = format!("{}: {}", cohort.name, cohort.spec);
        page.sub(&format!("{} peers", group(cohort.peers)), &text);
        if section.cohorts.len() > 1 {
            page.sub("", &what(&cohort.injected));
        }
    }
}

/// What a packet ring did not carry, if that is worth a line.
fn past_the_ring(backend: &str, udp: &UdpStats) -> Option<String> {
    if udp.ring_spills > 0 {
        let spills = group(udp.ring_spills);
        return Some(format!("full: {spills} receives went by the sockets instead"));
    }
    // STUN and DTLS never go through it.
    let few = backend == Backend::PacketRing.name() && udp.ring_runs_in * 2 < udp.segment_runs_in;
    few.then(|| {
        let (ring, all) = (group(udp.ring_runs_in), group(udp.segment_runs_in));
        format!("of {all} receives only {ring} came through it")
    })
}

fn generator(page: &mut Page, generator: &GeneratorSection) {
    if generator.workers.is_empty() {
        return;
    }
    let mut text = format!("{}, {} workers", generator.backend, generator.workers.len());
    if let [_] = generator.workers[..] {
        text = format!("{}, 1 worker", generator.backend);
    }
    if let Some(cores) = generator.cpu_cores {
        let _ = write!(text, "; {cores:.2} cores of CPU in all");
    }
    if let Some(ns) = generator.cpu_ns_per_packet {
        let _ = write!(text, ", {} ns a packet", group(ns as u64));
    }
    page.row("generator", &text);
    if let Some(text) = past_the_ring(&generator.backend, &generator.counted.udp) {
        page.sub("ring", &text);
    }
    for (index, worker) in generator.workers.iter().enumerate().take(WORKERS_SHOWN) {
        let core = worker.core.map_or("unpinned".to_owned(), |core| format!("core {core}"));
        let mut late = String::new();
        if let Some(timers) = &worker.lateness_ms {
            let _ = write!(late, "; p99: timers {:.1} ms late", timers.p99);
        }
        if let Some(datagrams) = &worker.batch_age_ms {
            let _ = write!(late, ", datagrams {:.1} ms old", datagrams.p99);
        }
        let text = format!(
            "{core}, {} peers, {:.0} % busy{late}",
            group(worker.peers),
            worker.busy_ratio * 100.0
        );
        page.sub(&format!("worker {index}"), &text);
    }
    let text = format!(
        "{} in, {} out; {} dropped by our kernel, {} not sent",
        group(generator.counted.udp.datagrams_in),
        group(generator.counted.udp.datagrams_out),
        group(generator.counted.udp.kernel_drops),
        group(generator.counted.udp.unsent())
    );
    page.sub("datagrams", &text);
    if let Some(rss) = generator.rss_bytes {
        let each = generator
            .rss_bytes_per_peer
            .map_or(String::new(), |each| format!(", {} a peer", bytes(each)));
        page.sub("memory", &format!("{}{each}", bytes(rss)));
    }
}

fn server(page: &mut Page, server: &ServerSection) {
    if let Some(metrics) = &server.metrics {
        server_metrics(page, metrics);
    }
    let Some(embedded) = &server.embedded else {
        if let Some(why) = &server.embedded_missing {
            page.row("server", &format!("embedded SFU: what it sent is unknown: {why}"));
        }
        return;
    };
    let totals = embedded.measured.as_ref().unwrap_or(&embedded.ledger.totals);
    let mut text = format!(
        "embedded SFU sent {} packets, resent {}",
        group(totals.forward.packets_sent),
        group(totals.forward.retransmitted)
    );
    if totals.forward.dropped > 0 || totals.forward.retransmits_dropped > 0 {
        let _ = write!(
            text,
            "; dropped on purpose: {} and {} resent ones",
            group(totals.forward.dropped),
            group(totals.forward.retransmits_dropped)
        );
    }
    page.row("server", &text);
}

/// What the server says of itself, and how that agrees with what arrived.
fn server_metrics(page: &mut Page, metrics: &ServerMetrics) {
    let cores = metrics.cpu_cores.map_or("-".to_owned(), |cores| format!("{cores:.2}"));
    let memory = metrics.rss_bytes_max.map_or("-".to_owned(), bytes);
    let most = metrics.participants_max.map_or("-".to_owned(), group);
    let text = format!("{cores} cores of CPU, {memory} at most, {most} participants at most");
    page.row("server", &text);
    if let Some(both) = &metrics.reconciliation {
        let (sent, arrived) = (group(both.sent), group(both.arrived));
        let text = format!("{sent} packets sent in the whole run; {arrived} RTP packets arrived");
        page.sub("says", &text);
        let apart = group(both.difference.unsigned_abs());
        let text = match both.difference {
            0 => "as many as it says it sent".to_owned(),
            1.. => format!(
                "{apart} fewer than sent ({}); livekit-server counts signalling messages as well, \
                 and what it sent to others",
                both.share().map_or("-".to_owned(), share)
            ),
            _ => format!("{apart} more than it had counted by then"),
        };
        page.sub("", &text);
    }
    for target in metrics.targets.iter().filter(|target| target.failed > 0) {
        let why = target.error.as_deref().unwrap_or("unknown");
        let text = format!(
            "{} of {} of {} failed: {why}",
            group(target.failed),
            group(target.scrapes),
            target.url
        );
        page.sub("scrapes", &text);
    }
}

fn thresholds(page: &mut Page, rows: &[ThresholdRow]) {
    for (index, row) in rows.iter().enumerate() {
        let (word, colour) =
            if row.ok { ("kept", AnsiColor::Green) } else { ("FAILED", AnsiColor::Red) };
        let word = page.paint(Style::new().fg_color(Some(colour.into())), &format!("{word:<6}"));
        let text = format!("{word}  {}: {}", row.expr, row.value_text());
        page.row(if index == 0 { "thresholds" } else { "" }, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_counters::RecoveryCounters;
    use stampede_report::types::WatchSection;
    use stampede_report::watch::WorstViewer;
    use stampede_run::{nothing_happened, report_of};
    use stampede_scenario::{Draft, Scenario};

    fn report() -> Report {
        let scenario = Scenario::new(Draft::default()).unwrap();
        let mut report = report_of(nothing_happened(scenario), &[]);
        if let Some(video) = &mut report.video {
            video.packets = PacketCounters {
                expected: 1_000_000,
                received: 999_990,
                missing: 1_000,
                repaired: 990,
                late: 4,
                unrecovered: 10,
                ..PacketCounters::default()
            };
            video.loss_rate = Some(1e-5);
        }
        report
    }

    /// Nothing at all is the least that a ring can have.
    #[test]
    fn a_ring_that_carries_little_is_told() {
        let runs = |ring_runs_in, ring_spills| UdpStats {
            segment_runs_in: 1_000,
            ring_runs_in,
            ring_spills,
            ..UdpStats::default()
        };
        let of = |backend, ring, spills| past_the_ring(backend, &runs(ring, spills));
        assert!(of("packet_ring", 0, 0).unwrap().contains("only 0 came"));
        assert!(of("packet_ring", 400, 0).unwrap().contains("only 400 came"));
        assert!(of("packet_ring", 900, 7).unwrap().contains("full: 7 "));
        assert_eq!((of("packet_ring", 900, 0), of("mmsg", 0, 0)), (None, None));
    }

    #[test]
    fn the_verdict_comes_first_and_loss_is_shown_in_its_parts() {
        let text = render(&report(), false);
        let first = text.lines().find(|line| !line.is_empty()).unwrap();
        assert!(first.contains("joined") && first.contains("10 of 1,000,000 packets lost"));
        let loss = "0.001 % for good: 1,000 missing = 990 repaired + 10 unrecovered (4 came late)";
        assert!(text.contains(loss), "{text}");
        let mut redundant = report();
        if let Some(video) = &mut redundant.video {
            (video.packets.repaired, video.packets.repaired_by_red) = (90, 900);
        }
        let text = render(&redundant, false);
        let words: Vec<_> = text.split_whitespace().collect();
        let parts = "= 90 repaired + 900 by RED + 10 unrecovered (4 late)";
        assert!(words.join(" ").contains(parts), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn each_cohort_has_a_line_for_each_kind_of_media() {
        let mut report = report();
        let cohort = |name: &str| CohortFigures {
            name: name.to_owned(),
            impair: None,
            feedback: "chrome".to_owned(),
            subscribers: 1_000,
            video: report.video.clone(),
            audio: report.audio.clone(),
        };
        let long = "a-name-of-thirty-two-characters.+impair-12";
        report.cohorts = vec![cohort("far"), cohort(long)];
        let text = render(&report, false);
        let rows: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.contains("cohorts"))
            .take_while(|line| !line.contains("publish"))
            .map(str::trim)
            .collect();
        assert_eq!(rows.len(), 6, "{rows:#?}");
        assert!(
            rows[1].starts_with("1,000 far            video         -         -   0.001 %"),
            "{rows:#?}"
        );
        assert!(rows[2].starts_with("audio "), "{rows:#?}");
        assert_eq!(rows[3], format!("1,000 {long}"));
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn watch_time_stands_before_the_joins_and_is_one_line_when_all_is_well() {
        let mut report = report();
        let whole = stampede_report::testing::watched(&[(10, 0)]);
        for section in report.video.iter_mut().chain(&mut report.audio) {
            section.watch = whole.clone();
        }
        report.watch = Some(WatchSection { subscribers: 1, worst: Vec::new() });
        let text = render(&report, false);
        assert!(
            text.contains("  watched    100 % of video and audio by all 1 subscribers\n"),
            "{text}"
        );
        assert!(text.find("watched").unwrap() < text.find("\n  join ").unwrap(), "{text}");

        let gaps = stampede_report::testing::watched(&[(10, 4), (10, 0)]);
        report.video.as_mut().unwrap().watch = gaps;
        report.audio.as_mut().unwrap().watch.short_gaps_s = Some(0.25);
        let worst = WorstViewer {
            subscriber: "sub-7".to_owned(),
            watch_ratio: 0.6,
            ..WorstViewer::default()
        };
        report.watch = Some(WatchSection { subscribers: 2, worst: vec![worst] });
        let text = render(&report, false);
        for line in [
            "  watched    video     80.00 %: 16.0 s of 20.0 s; subscribers p50 60.00 %, min 60.00 %\n",
            "             audio     100 %\n",
            "             gaps      video: 1 on 1 subscribers, 4.0 s together, 4.0 s p50, 4.0 s max\n",
            "                       1 silent (4.0 s)\n",
            "             gaps      audio: 0.3 s in short ones\n",
            "             worst     60.00 %: sub-7\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn ways_back_and_faults_are_told_where_there_were_any() {
        let mut report = report();
        let text = render(&report, false);
        assert!(!text.contains("\n  recovered ") && !text.contains("\n  faults "), "{text}");
        let counted = RecoveryCounters { tries: 60, recovered: 50, failed: 10, unfinished: 0 };
        report.recoveries.resume.counted = counted;
        report.recoveries.full_reconnect.counted =
            RecoveryCounters { tries: 1, unfinished: 1, ..RecoveryCounters::default() };
        let fault = |text: &str| FaultRow {
            fault: text.to_owned(),
            hit: 50,
            recovered: 48,
            failed: 1,
            unfinished: 1,
            ..FaultRow::default()
        };
        let long = "network_change,at=30s,every=1m30s,share=12.5%,spread=10s,cohort=mobile";
        report.faults = vec![fault("signal_drop"), fault(long)];
        report.join.counted.drops = 3;
        let text = render(&report, false);
        for line in [
            "  recovered  resume 50 of 60 tries, 10 failed\n",
            "             full reconnect 0 of 1 tries, 1 unfinished\n",
            "  faults     signal_drop: hit 50: 48 came back, 1 gave up, 1 unfinished\n",
            &format!("             {long}\n"),
            "               hit 50: 48 came back, 1 gave up",
            ", 3 sessions lost",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn counts_of_any_size_are_shown() {
        let text = render(&stampede_report::testing::largest(), false);
        assert!(text.contains("18,446,744,073,709,551,615"), "{text}");
    }

    #[test]
    fn colours_only_where_wanted() {
        assert!(!render(&report(), false).contains('\u{1b}'));
        assert!(render(&report(), true).contains('\u{1b}'));
    }
}
