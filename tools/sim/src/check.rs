//! Plays a plan, and looks whether what the product says of it is true.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use stampede_core::watch::Cause;
use stampede_core::{MediaKind, PeerReport};
use stampede_counters::{Figure, PeerCounters, PublishCounters, SfuWorkerCounters};
use stampede_media::AssemblerCounters;
use stampede_media::disk::DiskReport;
use stampede_report::facts::{CauseGroup, Facts, LedgerFacts, TracksFacts, WatchFacts};
use stampede_report::judge::judge;
use stampede_report::recording::Recorded;
use stampede_report::senders::SenderFacts;
use stampede_report::types::{Fault as Blamed, Outcome, Verdict};
use stampede_sfu::virtual_sfu::Census;
use stampede_sfu::{Ledger, LedgerTotals};

use crate::accounts::Watched;
use crate::client::Client;
use crate::link::Class;
use crate::plan::{Culprit, Fault, Plan};
use crate::world::World;

const MS: Duration = Duration::from_millis(1);
/// How long after the last fault everybody watches again: a path that is gone is noticed after ICE's
/// patience, and the fifth try to come back follows 9 s after the first.
pub const RECOVERS_WITHIN: Duration = Duration::from_secs(25);
/// Whoever watches has had a frame since.
const WATCHES: Duration = Duration::from_millis(500);
/// What is missing then is decided before anybody leaves: the playout deadline and the grace after it.
const SETTLES: Duration = Duration::from_millis(1_500);
/// A room without participants lives so long.
const ROOM_CLOSES: Duration = Duration::from_secs(21);
/// By how much watch time may differ from the model's for each track, whatever happens: the ends.
const WATCH_SLACK: Duration = Duration::from_millis(250);
/// And for each gap: a stream that came anew has another bound on what a frame covers, of which the model
/// does not know.
const WATCH_SLACK_A_GAP: Duration = Duration::from_millis(350);

/// A share of packets of which few are lost twice.
const LOST_SELDOM: f64 = 0.15;
/// By how many frames what was put together may differ from what is said to be decodable: those that
/// wait at the end of a stream, or came before a recording could begin.
const FRAMES_SLACK: u64 = 4;
/// Fewer say nothing.
const LOST_MIN: u64 = 20;

/// A run that was played to its end.
pub struct Played {
    /// Everything that was in it.
    pub world: World,
    /// What the SFUs counted, together.
    pub ledger: Ledger,
    /// How long after the last fault everybody watched again; `None` if somebody did not.
    pub recovered_after: Option<Duration>,
    /// Watch time.
    pub watched: Vec<Watched>,
    /// What is known for the verdict.
    pub facts: Facts,
    /// What the run's report would say.
    pub verdict: Verdict,
    /// What it would say of the same against a server that is not ours, of which no ledger is known.
    pub foreign: Verdict,
    /// What became of the recordings, if there were any.
    pub recordings: Option<DiskReport>,
    /// What was left when everybody had gone, and when the room had closed.
    pub left: [Census; 2],
}

/// Plays a plan to its end, and finds what is wrong with it.
///
/// # Errors
/// What is not true, a line each.
pub fn check(plan: Plan) -> Result<Played, String> {
    let played = play(plan);
    let mut wrongs = Vec::new();
    books(&played, &mut wrongs);
    watch(&played, &mut wrongs);
    verdict(&played, &mut wrongs);
    repair(&played, &mut wrongs);
    disk::look(&played, &mut wrongs);
    ends(&played, &mut wrongs);
    match wrongs.is_empty() {
        true => Ok(played),
        false => Err(wrongs.join("\n")),
    }
}

/// Plays a plan to its end.
#[must_use]
pub fn play(plan: Plan) -> Played {
    let mut world = World::new(plan);
    world.run_until(world.start + world.plan.duration);
    let faults_end = world.start + world.plan.faults_end();
    let deadline = world.now.max(faults_end) + RECOVERS_WITHIN;
    let mut recovered = everybody_watches(&world);
    while !recovered && world.now < deadline {
        world.run_until(world.now + 100 * MS);
        recovered = everybody_watches(&world);
    }
    let recovered_after = recovered.then(|| world.now.saturating_duration_since(faults_end));
    world.run_until(world.now + SETTLES);
    world.leave(true);
    world.run_until(world.now + SETTLES);
    let until = world.now;
    world.leave(false);
    world.run_until(world.now + SETTLES);
    let gone = world.census().unwrap_or_default();
    let ledger = together(&mut world);
    world.run_until(world.now + ROOM_CLOSES);
    let left = [gone, world.census().unwrap_or_default()];
    heard(&mut world);
    let watched = world.accounts.watched(until);
    let recordings = world.recordings();
    let facts = facts(&world, &ledger, &watched, recordings.as_ref());
    let verdict = judge(&facts);
    let foreign = judge(&Facts { ledger: None, embedded: false, ..facts.clone() });
    Played { world, ledger, recovered_after, watched, facts, verdict, foreign, recordings, left }
}

/// Tells the model when audio came: whoever records it waits for what is missing before.
fn heard(world: &mut World) {
    for (client, report) in &world.reports {
        let audio = report.streams.iter().filter(|stream| stream.kind == MediaKind::Audio);
        for stream in audio {
            if let Some(packets) = world.ways[*client].wire.of(stream.ssrc) {
                world.accounts.heard(*client, stream.track_id.clone(), &packets.deliveries);
            }
        }
    }
}

/// Everybody is up, and each subscriber gets each track of everybody else.
fn everybody_watches(world: &World) -> bool {
    let clients = || world.clients.iter().enumerate();
    let since = world.now - WATCHES;
    let watches = |subscriber: usize| {
        let others = clients().filter(|(publisher, _)| *publisher != subscriber);
        others.into_iter().all(|(publisher, client)| {
            [(client.spec.video, true), (client.spec.audio, false)].into_iter().all(
                |(sends, video)| {
                    let latest = world.accounts.latest_frame(subscriber, (publisher, video));
                    !sends || latest.is_some_and(|at| at >= since)
                },
            )
        })
    };
    clients().all(|(index, client)| client.is_up() && (!client.spec.subscribes || watches(index)))
}

/// The ledgers of all SFUs of a run.
fn together(world: &mut World) -> Ledger {
    let mut all = Ledger::default();
    let last = world.ledger();
    for ledger in world.ledgers.iter().cloned().chain(last) {
        all.totals.merge(&ledger.totals);
        all.signalling.merge(&ledger.signalling);
        all.workers.extend(ledger.workers);
        all.rooms.extend(ledger.rooms);
    }
    all
}

fn sums(world: &World) -> PeerCounters {
    let mut sums = PeerCounters::default();
    world.reports.iter().for_each(|(_, report)| sums.merge(&report.counters));
    sums
}

// What the report would be made of.

fn facts(
    world: &World,
    ledger: &Ledger,
    watched: &[Watched],
    recordings: Option<&DiskReport>,
) -> Facts {
    let counters = sums(world);
    let (video, audio) = (counters.video.packets, counters.audio.packets);
    let clients = || world.clients.iter();
    let joined = |publishes: bool, subscribes: bool| {
        let of = clients().filter(|client| {
            client.has_joined()
                && (client.spec.publishes() || !publishes)
                && (client.spec.subscribes || !subscribes)
        });
        of.count() as u64
    };
    let of_subscribers: BTreeSet<usize> = world
        .reports
        .iter()
        .filter(|(_, report)| lost_for_good(report) > 0)
        .map(|(client, _)| *client)
        .collect();
    let died = world.plan.faults.iter().any(|planned| planned.fault == Fault::Death);
    let LedgerTotals { forward, upstream, .. } = ledger.totals;
    let inside = SfuWorkerCounters::sum_of(ledger.workers.iter().map(|worker| worker.counted));
    let signalling = &ledger.signalling;
    Facts {
        started: world.clients.len() as u64,
        joined: joined(false, false),
        failed: clients().filter(|client| !client.has_joined()).count() as u64,
        dropped: world.gave_up.len() as u64,
        balance: "a simulated run".to_owned(),
        subscribers_joined: joined(false, true),
        publishers_joined: joined(true, false),
        errors: world.accounts.errors.values().cloned().collect(),
        senders: SenderFacts::of(world.reports.iter().flat_map(|(_, report)| &report.streams)),
        expected: video.expected + audio.expected,
        received: video.received + audio.received,
        missing: video.missing + audio.missing,
        reordered: video.reordered + audio.reordered,
        repaired: video.repaired + audio.repaired,
        unrecovered: video.unrecovered + audio.unrecovered,
        late: video.late + audio.late,
        watch: watch_facts(watched),
        embedded: !died,
        tracks: TracksFacts {
            expected: watched.len() as u64,
            missing: watched.iter().filter(|one| one.model.played.is_zero()).count() as u64,
            plis: counters.video.feedback.pli_sent,
            ..TracksFacts::default()
        },
        rejected: counters.transport.malformed + counters.transport.rejected,
        bounded_unrecovered: video.unrecovered + audio.unrecovered,
        bounded_expected: video.expected + audio.expected,
        published: counters.publish.packets_sent,
        upstream_lost: counters.publish.upstream_lost.unwrap_or(0),
        upstream_reported: counters.publish.upstream_expected.unwrap_or(0),
        sent_again: counters.publish.retransmitted,
        datagrams_in: counters.transport.datagrams.received,
        datagrams_out: counters.transport.datagrams.sent,
        // Of an SFU that died nothing is known.
        ledger: (!died).then(|| LedgerFacts {
            packets_sent: forward.packets_sent,
            dropped: forward.dropped,
            reordered: forward.reordered,
            retransmits_dropped: forward.retransmits_dropped,
            upstream_lost: upstream.publisher_packets_lost,
            lost_inside: inside.map_or(0, |inside| inside.lost_inside()),
            receive_drops: inside.map_or(0, |inside| inside.kernel_drops),
            fell_silent: signalling.media_lost + signalling.signalling_timeouts,
            read_too_slowly: signalling.signalling_overflows,
            full_s: ledger.workers.iter().map(|worker| worker.full_s).fold(0.0, f64::max),
        }),
        subscribers_lossy: of_subscribers.len() as u64,
        files_lost: recordings.map_or_else(Vec::new, |report| files_lost(world, report)),
        ..Facts::default()
    }
}

/// Why recordings are not whole, as `tools/run/src/facts` has it.
fn files_lost(world: &World, report: &DiskReport) -> Vec<String> {
    let recorded = Recorded {
        dir: "/recordings".to_owned(),
        errors: report.errors.clone(),
        errors_total: report.errors_total,
        frames_written: report.files.iter().map(|file| file.frames).sum(),
        frames_dropped: report.frames_dropped,
        frames_not_taken: assembled(world).frames_not_polled,
        somebody_received: world.clients.iter().any(|it| it.spec.subscribes && it.has_joined()),
    };
    recorded.wrongs().into_iter().map(|error| format!("recording: {error}")).collect()
}

/// What became of recorded packets on their way into frames.
fn assembled(world: &World) -> AssemblerCounters {
    let mut sum = AssemblerCounters::default();
    let recorders = world.clients.iter().filter_map(Client::recorder);
    recorders.for_each(|recorder| sum.merge(&recorder.assembled));
    sum
}

fn lost_for_good(report: &PeerReport) -> u64 {
    let PeerCounters { video, audio, .. } = &report.counters;
    video.packets.unrecovered + audio.packets.unrecovered
}

fn watch_facts(watched: &[Watched]) -> WatchFacts {
    let subscribers: BTreeSet<usize> = watched.iter().map(|one| one.subscriber).collect();
    let mut facts = WatchFacts { subscribers: subscribers.len() as u64, ..Default::default() };
    // Of each kind, cause and reason: whose gap, how long, and whether the picture came back.
    type Gap<'a> = (&'a Watched, Duration, bool);
    let mut groups: BTreeMap<(bool, Cause, Option<String>), Vec<Gap<'_>>> = BTreeMap::new();
    for one in watched {
        let video = one.publication.1;
        let missed = &mut facts.kinds[usize::from(!video)];
        missed.expected_s += one.tally.expected.as_secs_f64();
        missed.missed_s += one.tally.expected.saturating_sub(one.tally.played).as_secs_f64();
        let short = facts.short_gaps_s.iter_mut().zip(one.tally.short_gaps_by);
        short.for_each(|(sum, own)| *sum += own.as_secs_f64());
        for gap in &one.tally.interruptions {
            let key = (video, gap.cause, gap.reason.as_ref().map(ToString::to_string));
            groups.entry(key).or_default().push((one, gap.length(), gap.back));
        }
    }
    facts.groups = groups
        .into_iter()
        .map(|((video, cause, reason), gaps)| {
            let of: BTreeSet<usize> = gaps.iter().map(|(one, ..)| one.subscriber).collect();
            let tracks: BTreeSet<_> =
                gaps.iter().map(|(one, ..)| (one.subscriber, one.publication)).collect();
            let same = watched.iter().filter(|one| one.publication.1 == video);
            CauseGroup {
                video,
                cause,
                reason,
                subscribers: of.len() as u64,
                tracks: tracks.len() as u64,
                of_tracks: same.filter(|one| of.contains(&one.subscriber)).count() as u64,
                total_s: gaps.iter().map(|(_, length, _)| length.as_secs_f64()).sum(),
                length_s_p50: gaps[gaps.len() / 2].1.as_secs_f64(),
                from_s: 0.0,
                back_after_s: None,
                not_back: gaps.iter().filter(|(.., back)| !back).count() as u64,
            }
        })
        .collect();
    facts.groups.sort_by(|a, b| b.total_s.total_cmp(&a.total_s));
    facts
}

// Oracles.

/// Says what is not equal.
fn equal(wrongs: &mut Vec<String>, what: impl FnOnce() -> String, left: u64, right: u64) {
    if left != right {
        wrongs.push(format!("books: {}: {left} is not {right}", what()));
    }
}

/// What was sent is what was lost, delivered, or is under way; and both ends say so.
fn books(played: &Played, wrongs: &mut Vec<String>) {
    let Played { world, ledger, .. } = played;
    for (client, way) in world.ways.iter().enumerate() {
        for (direction, link) in [("up", &way.up), ("down", &way.down)] {
            for class in Class::ALL {
                let what = || format!("{client} {direction} {class:?}: under way at the end");
                equal(wrongs, what, link.book(class).under_way(), 0);
            }
        }
        let own: Vec<&PeerReport> =
            world.reports.iter().filter(|(of, _)| *of == client).map(|(_, it)| it).collect();
        let mut counters = PeerCounters::default();
        own.iter().for_each(|report| counters.merge(&report.counters));
        let all = |of: fn(&crate::link::Book) -> u64, link: &crate::link::Link| {
            link.books.iter().map(of).sum::<u64>()
        };
        let datagrams = counters.transport.datagrams;
        let sent = all(|book| book.sent, &way.up);
        let delivered = all(|book| book.delivered, &way.down);
        equal(
            wrongs,
            || format!("{client}: datagrams out, and put on its way"),
            datagrams.sent,
            sent,
        );
        let what = || format!("{client}: datagrams in, and delivered to it");
        equal(wrongs, what, datagrams.received, delivered);
        let transport = counters.transport;
        let elsewhere = transport.unknown_ssrc + transport.rejected + transport.before_connected;
        let arrived = counters.rtp_arrived();
        let rtp = way.down.book(Class::Rtp).delivered;
        let what = || format!("{client}: RTP counted ({elsewhere} not as media), and delivered");
        equal(wrongs, what, arrived, rtp);
        let PublishCounters { packets_sent, retransmitted, .. } = counters.publish;
        // Where there is no way for a while, because its relay is gone, it does not leave.
        let put = way.up.book(Class::Rtp).sent;
        let kept = (packets_sent + retransmitted).saturating_sub(put);
        let kept = kept.min(transport.dropped_unsent + counters.impairment.unsent);
        let what = || format!("{client}: RTP published, and put on its way ({kept} unsent)");
        equal(wrongs, what, packets_sent + retransmitted, put + kept);
        own.iter().for_each(|report| streams(client, report, &way.wire, wrongs));
    }
    let forward = ledger.totals.forward;
    let by_ledger = forward.packets_sent
        + forward.retransmitted
        + forward.malformed
        + ledger.totals.congestion.padding_packets;
    let put: u64 = world.ways.iter().map(|way| way.down.book(Class::Rtp).sent).sum();
    equal(
        wrongs,
        || "the SFU's ledger, and RTP put on ways".to_owned(),
        by_ledger,
        put + world.nowhere,
    );
    let inside = SfuWorkerCounters::sum_of(ledger.workers.iter().map(|it| it.counted));
    equal(
        wrongs,
        || "packets that the SFU lost, and found its buffers full".to_owned(),
        inside.unwrap_or_default().lost_inside(),
        world.receive_drops,
    );
}

/// The sequence ledger against what the network saw in clear.
fn streams(client: usize, report: &PeerReport, wire: &crate::wire::Wire, wrongs: &mut Vec<String>) {
    for stream in &report.streams {
        let packets = stream.packets;
        let name = || format!("{client}: SSRC {} ({})", stream.ssrc, stream.kind);
        let explained =
            packets.repaired + packets.repaired_by_red + packets.unrecovered + packets.pending;
        equal(wrongs, || name() + ": missing, and what became of them", packets.missing, explained);
        let expected =
            (packets.received + packets.missing).saturating_sub(packets.repaired + packets.late);
        equal(wrongs, || name() + ": expected, and its parts", packets.expected, expected);
        equal(wrongs, || name() + ": pending at the end", packets.pending, 0);
        let Some(seen) = wire.of(stream.ssrc) else {
            equal(wrongs, || name() + ": received, and never sent", packets.received, 0);
            continue;
        };
        // What came before the description that names it is not the stream's.
        let transport = report.counters.transport;
        if transport.before_connected + transport.unknown_ssrc > 0 {
            continue;
        }
        let primary = packets.received + packets.duplicate + packets.padding_only + packets.stale
            - packets.rtx_repairs;
        let deliveries = seen.deliveries.len() as u64;
        equal(wrongs, || name() + ": on the primary SSRC, and delivered", primary, deliveries);
        let (span, lost) = seen.passed_over();
        let numbers = packets.expected + packets.padding_only + packets.cut_off;
        equal(wrongs, || name() + ": numbers, and passed over", numbers, span);
        // What was held back may have been repaired before it came, and is a duplicate then.
        let first = packets.missing.saturating_sub(packets.reordered) + packets.cut_off;
        let overtaken = first.saturating_sub(lost).min(packets.duplicate);
        let what = || name() + ": lost in first transmission";
        equal(wrongs, what, first, lost + overtaken);
    }
}

/// Watch time is the model's, and its parts make the whole.
fn watch(played: &Played, wrongs: &mut Vec<String>) {
    for one in &played.watched {
        let Watched { subscriber, publication, tally, model } = one;
        let name = format!("watch: {subscriber} of {publication:?}");
        let interrupted: Duration = tally.interruptions.iter().map(|gap| gap.length()).sum();
        let further: Duration = tally.further.iter().map(|(_, length)| *length).sum();
        let parts = tally.played + tally.short_gaps + interrupted + further;
        if parts != tally.expected {
            wrongs.push(format!(
                "{name}: {:?} were expected, and its parts are {parts:?}",
                tally.expected
            ));
        }
        let slack = WATCH_SLACK + WATCH_SLACK_A_GAP * model.gaps;
        for (what, ours, theirs) in [
            ("expected", tally.expected, model.expected),
            ("played", tally.played, model.played),
            ("missed", tally.expected - tally.played, model.expected.saturating_sub(model.played)),
        ] {
            if ours.abs_diff(theirs) > slack {
                wrongs.push(format!(
                    "{name}: {what} {ours:?}, by the model {theirs:?} (slack {slack:?}, {} gaps)",
                    model.gaps
                ));
            }
        }
    }
}

/// Something was lost for good, or could not be watched, of which a verdict has to say whose fault it is.
fn anything_happened(facts: &Facts) -> bool {
    let TracksFacts { missing, .. } = facts.tracks;
    let late = facts.watch.kinds.iter().any(|kind| kind.is_too_much());
    facts.unrecovered > 0
        || late
        || !facts.watch.groups.is_empty()
        || missing > 0
        || facts.failed + facts.dropped > 0
        || !facts.files_lost.is_empty()
}

/// Who is to be named, of all that was injected. With the SFU's ledger, or without one, as of a server that
/// is not ours: then only what the sender and receiver reports prove can be known.
fn to_be_named(played: &Played, with_ledger: bool) -> Vec<Blamed> {
    let Played { world, facts, .. } = played;
    if !anything_happened(facts) {
        return vec![Blamed::None];
    }
    let faults = &world.plan.faults;
    let lost = facts.unrecovered > 0;
    // Lost in first transmission on the way down; what was only overtaken was never lost.
    let at_first = facts.missing > facts.reordered;
    // Without a ledger only what the server's reports prove can be known, and they must not lie.
    let proof = facts.senders.proof(facts.missing).map(|(whose, _)| whose);
    let proven = |whose: Blamed| match proof {
        _ if with_ledger => whose,
        Some(proven) if proven == whose => whose,
        _ => Blamed::Unknown,
    };
    let mut named = Vec::new();
    for planned in faults {
        let publishes = planned.client.is_none_or(|it| world.clients[it].spec.publishes());
        let subscribes = planned.client.is_none_or(|it| world.clients[it].spec.subscribes);
        match planned.fault.culprit() {
            Culprit::Network if lost => named.push(proven(Blamed::Network)),
            Culprit::Network if at_first && with_ledger => named.push(Blamed::Network),
            Culprit::Publisher if with_ledger => named.push(Blamed::Publisher),
            Culprit::Publisher => named.push(match publishers_know(facts) {
                true => Blamed::Publisher,
                false => Blamed::Unknown,
            }),
            Culprit::Server if lost => named.push(proven(Blamed::Server)),
            Culprit::Server if at_first && with_ledger => named.push(Blamed::Server),
            Culprit::FullServer if with_ledger => named.push(Blamed::Server),
            // What its buffers had no room for is lost on the way up to all that anybody else can see.
            Culprit::FullServer => {
                named.extend([Blamed::Server, Blamed::Unknown, Blamed::Publisher]);
            }
            Culprit::DeadServer => named.push(Blamed::Server),
            Culprit::Disk => named.push(Blamed::Generator),
            Culprit::Cut if with_ledger => {
                named.extend(subscribes.then_some(Blamed::Network));
                named.extend(publishes.then_some(Blamed::Publisher));
            }
            Culprit::Cut => {
                named.extend([Blamed::Unknown, proven(Blamed::Network)]);
                named.extend(publishes.then_some(Blamed::Publisher));
            }
            // Everything came, and too late: nobody counts that.
            _ => named.push(Blamed::Unknown),
        }
    }
    named
}

/// What receiver reports tell publishers explains nine tenths of what was lost, for good or at first.
fn publishers_know(facts: &Facts) -> bool {
    let nine_tenths = |of: u64| of as f64 * 0.9;
    match facts.unrecovered {
        0 => {
            // What is sent again comes in the wrong order.
            let again = facts.sent_again * facts.subscribers_joined;
            let at_first = facts.missing - facts.reordered.saturating_sub(again).min(facts.missing);
            let known = again + facts.upstream_lost * facts.subscribers_joined;
            at_first > 0 && known as f64 >= nine_tenths(at_first)
        }
        lost => (facts.upstream_lost * facts.subscribers_lossy) as f64 >= nine_tenths(lost),
    }
}

/// The verdict names what was injected, and nobody else.
fn verdict(played: &Played, wrongs: &mut Vec<String>) {
    let Played { world, facts, verdict, foreign, .. } = played;
    let faults = &world.plan.faults;
    for (with_ledger, verdict) in [(true, verdict), (false, foreign)] {
        let named = to_be_named(played, with_ledger);
        if !named.contains(&verdict.fault) {
            let how = if with_ledger { "with the ledger" } else { "without a ledger" };
            wrongs.push(format!("verdict {how}: {verdict:#?}, where it is to be {named:?}"));
        }
    }
    for planned in faults.iter().filter(|it| it.fault.culprit() == Culprit::FullServer) {
        // A second at either end is not whole, and another may be worked off after it.
        let full_s = facts.ledger.map_or(0.0, |ledger| ledger.full_s);
        if (full_s - planned.lasts.as_secs_f64()).abs() > 2.0 {
            wrongs.push(format!("verdict: the SFU was full for {full_s} s, in {planned:?}"));
        }
    }
    let clean = faults.iter().all(|planned| planned.fault.culprit() == Culprit::Nobody);
    let lost = facts.unrecovered;
    if clean && lost > 0 {
        wrongs.push(format!("verdict: {lost} packets are lost for good, and none was dropped"));
    }
    if faults.is_empty() && (verdict.result, verdict.fault) != (Outcome::Pass, Blamed::None) {
        wrongs.push(format!("verdict: {verdict:?} of a run without faults"));
    }
}

/// What is lost seldom is repaired mostly, and where nothing is lost every frame can be shown.
fn repair(played: &Played, wrongs: &mut Vec<String>) {
    let Played { world, .. } = played;
    let faults: Vec<Fault> = world.plan.faults.iter().map(|planned| planned.fault).collect();
    let counters = sums(world);
    let packets = counters.video.packets;
    let lost = packets.missing - packets.reordered;
    if let [Fault::Loss(share, burst)] = faults[..]
        && share < LOST_SELDOM
        && burst <= 1.0
        && lost >= LOST_MIN
        && packets.repaired < lost / 2
    {
        wrongs.push(format!(
            "repair: of {lost} packets lost alone only {} came again",
            packets.repaired
        ));
    }
    if let [Fault::LossUp(share, _)] = faults[..]
        && share < LOST_SELDOM
    {
        let lost: u64 = world.ways.iter().map(|way| way.up.book(Class::Rtp).lost).sum();
        let again = counters.publish.retransmitted;
        if lost >= LOST_MIN && again == 0 {
            wrongs
                .push(format!("repair: of {lost} packets lost on the way up none was sent again"));
        }
    }
    told(played, &counters, wrongs);
    let recorded = world.accounts.tracks.iter().filter(|((_, (_, video)), _)| *video);
    let recorded: u64 = recorded.map(|(_, track)| track.frames.len() as u64).sum();
    let decodable = counters.video.frames.decodable.unwrap_or(0);
    if decodable.abs_diff(recorded) > FRAMES_SLACK {
        wrongs.push(format!(
            "repair: {decodable} frames are said to be decodable, and {recorded} were put together"
        ));
    }
    let early = counters.transport.before_connected + counters.transport.unknown_ssrc;
    if early == 0 && faults.iter().all(|fault| fault.culprit() == Culprit::Nobody) {
        let frames = counters.video.frames;
        equal(
            wrongs,
            || "frames, and those decodable".to_owned(),
            frames.received,
            frames.decodable.unwrap_or(0),
        );
        equal(wrongs, || "frames dropped, and none was".to_owned(), frames.dropped.unwrap_or(0), 0);
    }
}

/// What the server says of publishers' losses is what they say; and who takes up a session finds a new
/// way.
fn told(played: &Played, counters: &PeerCounters, wrongs: &mut Vec<String>) {
    let (facts, signalling) = (&played.facts, &played.ledger.signalling);
    let told = counters.publish.upstream_lost.unwrap_or(0);
    let lost = played.ledger.totals.upstream.publisher_packets_lost;
    let reported = facts.upstream_reported as f64 >= 0.9 * facts.published as f64;
    if reported && lost >= LOST_MIN && told < lost / 2 {
        wrongs.push(format!(
            "repair: {lost} packets never reached the SFU, and publishers were told of {told}"
        ));
    }
    if signalling.ice_restarts < signalling.resumes {
        wrongs.push(format!(
            "recovery: {} sessions were taken up, and {} connections got new ICE credentials",
            signalling.resumes, signalling.ice_restarts
        ));
    }
}

/// Everybody recovers, and leaves nothing behind.
fn ends(played: &Played, wrongs: &mut Vec<String>) {
    let Played { world, recovered_after, left, .. } = played;
    if recovered_after.is_none() {
        wrongs.push(format!(
            "recovery: {RECOVERS_WITHIN:?} after the last fault not everybody watches: {}",
            absent(world)
        ));
    }
    for (client, why) in &world.gave_up {
        wrongs.push(format!("recovery: {client} gave up: {why}"));
    }
    for (index, client) in world.clients.iter().enumerate() {
        if !client.is_over() {
            wrongs.push(format!("leak: {index} is still there"));
        }
    }
    let [gone, closed] = left;
    let nobody = Census { rooms: gone.rooms, ..Census::default() };
    if *gone != nobody {
        wrongs.push(format!("leak: everybody has left, and the SFU has {gone:?}"));
    }
    if *closed != Census::default() {
        wrongs.push(format!("leak: the room is over, and the SFU has {closed:?}"));
    }
}

fn absent(world: &World) -> String {
    let up: Vec<bool> = world.clients.iter().map(Client::is_up).collect();
    let latest: Vec<_> = world
        .accounts
        .tracks
        .keys()
        .map(|&(subscriber, publication)| {
            let at = world.accounts.latest_frame(subscriber, publication);
            (subscriber, publication, at.map(|at: Instant| at - world.start))
        })
        .collect();
    format!("up {up:?}, latest frames {latest:?}")
}
