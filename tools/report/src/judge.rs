//! The verdict: a pure function of what is known. Generator first (docs/measurement.md, "Verdict"):
//! a run in which the generator was starved is invalid, never merely bad.

use super::bounds::{
    BUSY_RATIO_MAX, JOIN_RESPONSE_WAIT_MS_MAX, LATENESS_MS_P99_MAX, LOSS_RATE_MAX, OWN_LOSS_MIN,
    OWN_LOSS_RATE_MAX, STALL_MS_MAX,
};
use super::errors::{ErrorClass, ErrorFact};
use super::facts::{Facts, TracksFacts};
use super::joins::JOIN_FAILURE_RATE_MAX;
use super::layers_verdict;
use super::loss::{
    dropped_in_words, dropped_on_purpose, kernel_drops, loss, lost_on_purpose, on_purpose_by,
};
use super::show::group;
use super::types::{Fault, Outcome, Verdict};
use super::watch_verdict;
use super::{data_verdict, rpc_verdict};
use stampede_counters::RecoveryGroups;

/// Judges a run.
pub fn judge(facts: &Facts) -> Verdict {
    let mut verdict = by_figures(facts);
    if facts.interrupted {
        interrupt(&mut verdict);
        let reason = format!("interrupted by a signal: {}", facts.balance);
        verdict.reasons.insert(0, reason);
    }
    verdict
}

/// Whatever the figures say, they are of a part of what was asked for.
pub fn interrupt(verdict: &mut Verdict) {
    verdict.result = Outcome::Interrupted;
}

fn by_figures(facts: &Facts) -> Verdict {
    let mut reasons = generator_reasons(facts);
    if !reasons.is_empty() {
        let (mut result, mut fault) = (Outcome::Invalid, Fault::Generator);
        if let Some(flood) = flood(facts) {
            // Which part of our time the flood took can't be told.
            (result, fault) = (Outcome::Fail, Fault::Server);
            reasons.insert(0, flood);
        }
        reasons.extend(notes(facts));
        return Verdict { result, fault, reasons };
    }
    let lost = (facts.unrecovered > 0).then(|| loss(facts));
    let loss_fault = lost.as_ref().map_or(Fault::Unknown, |(fault, _)| *fault);
    let blackout = watch_verdict::judge(facts, loss_fault);
    if let Some(reason) = watch_verdict::own_stall(facts, &blackout) {
        reasons.push(reason);
        reasons.extend(notes(facts));
        return Verdict { result: Outcome::Invalid, fault: Fault::Generator, reasons };
    }
    if let Some((mut fault, reason)) = failure(facts) {
        reasons.push(reason);
        for (whose, reason) in blackout.found.into_iter().chain(blackout.stutters) {
            fault = if fault == Fault::Unknown && whose != Fault::None { whose } else { fault };
            reasons.push(reason);
        }
        reasons.extend(notes(facts));
        return Verdict { result: Outcome::Fail, fault, reasons };
    }
    let mut fault = Fault::None;
    let mut result = Outcome::Pass;
    let mut found = blackout.found;
    if blackout.failed {
        result = Outcome::Fail;
    }
    if let Some(silence) = silent_tracks(facts) {
        if facts.tracks.missing as f64 > LOSS_RATE_MAX * facts.tracks.expected as f64
            && silence.0 != Fault::None
        {
            result = Outcome::Fail;
        }
        found.push(silence);
    }
    if let Some(whose) = lost {
        found.push(whose);
        let lost = facts.bounded_unrecovered.saturating_sub(lost_on_purpose(facts));
        if lost as f64 > LOSS_RATE_MAX * facts.bounded_expected as f64 {
            result = Outcome::Fail;
        }
    }
    found.extend(blackout.stutters);
    if facts.lost_joins.too_many(facts.started) {
        result = Outcome::Fail;
    }
    if let Some((true, whose, reason)) = layers_verdict::judge(facts) {
        result = Outcome::Fail;
        found.push((whose, reason));
    }
    for judged in [data_verdict::judge(facts), rpc_verdict::judge(facts)] {
        if judged.failed {
            result = Outcome::Fail;
        }
        found.extend(judged.found);
    }
    found.extend(joins(facts));
    found.extend(stall(facts));
    if !facts.files_lost.is_empty() {
        result = Outcome::Fail;
        found.extend(facts.files_lost.iter().map(|why| (Fault::Generator, why.clone())));
    }
    for (whose, reason) in found {
        fault = if fault == Fault::None { whose } else { fault };
        reasons.push(reason);
    }
    reasons.extend(notes(facts));
    Verdict { result, fault, reasons }
}

/// A server that sent more than anybody can use, where all that this machine lacked is time.
fn flood(facts: &Facts) -> Option<String> {
    if facts.flooded() == 0 {
        return None;
    }
    let mut timeless = Facts { workers: Vec::new(), ..facts.clone() };
    timeless.errors.retain(|error| error.class != ErrorClass::Overloaded);
    generator_reasons(&timeless).is_empty().then(|| {
        let flooded = group(facts.flooded());
        format!("server: it flooded {flooded} sessions, which costs time; {}", join_reason(facts))
    })
}

/// What makes the run invalid.
fn generator_reasons(facts: &Facts) -> Vec<String> {
    let mut reasons: Vec<String> =
        facts.workers_failed.iter().map(|why| format!("generator: {why}")).collect();
    let shortages = facts.counted().filter(|error| error.class.is_shortage());
    reasons.extend(shortages.map(|ErrorFact { kind, count, .. }| {
        format!(
            "generator: {} tries to join ended with {kind}: this machine had too little of \
             something (ports, descriptors, memory, time of a worker)",
            group(*count)
        )
    }));
    for (index, worker) in facts.workers.iter().enumerate() {
        if worker.busy_ratio > BUSY_RATIO_MAX {
            reasons.push(format!(
                "generator: worker {index} was busy {:.0} % of the time (bound {:.0} %); use more \
                 --workers or fewer subscribers",
                worker.busy_ratio * 100.0,
                BUSY_RATIO_MAX * 100.0
            ));
        }
        // A starved worker is not busy: it waits for a core, and so do its timers and datagrams.
        for (ms, what) in [
            (worker.lateness_ms_p99, "timers ran {} ms late"),
            (worker.batch_age_ms_p99, "datagrams were {} ms old when it came to them"),
        ] {
            if ms > LATENESS_MS_P99_MAX {
                let what = what.replace("{}", &format!("{ms:.0}"));
                reasons.push(format!(
                    "generator: worker {index}: its {what}, at the 99th percentile (bound \
                     {LATENESS_MS_P99_MAX:.0} ms); it was starved of CPU"
                ));
            }
        }
    }
    for (index, worker) in facts.workers.iter().enumerate() {
        if worker.stall_ms_max > STALL_MS_MAX {
            reasons.push(format!(
                "generator: worker {index} once stood still for {:.1} s (bound {:.0} s); this \
                 machine had no CPU for it",
                worker.stall_ms_max / 1_000.0,
                STALL_MS_MAX / 1_000.0
            ));
        }
    }
    let beyond = |lost: u64, all: u64| {
        lost > OWN_LOSS_MIN && lost as f64 > OWN_LOSS_RATE_MAX * (lost + all) as f64
    };
    if beyond(facts.kernel_drops, facts.datagrams_in) {
        reasons.push(format!(
            "generator: our kernel dropped {} of {} datagrams at our own receive buffers; raise \
             net.core.rmem_max, or --receive-buffer if it was lowered, or use more --workers",
            kernel_drops(facts),
            group(facts.datagrams_in + facts.kernel_drops)
        ));
    }
    if beyond(facts.send_losses, facts.datagrams_out) {
        reasons.push(format!(
            "generator: {} of {} datagrams could not be sent; raise net.core.wmem_max or use more \
             --workers",
            group(facts.send_losses),
            group(facts.datagrams_out + facts.send_losses)
        ));
    }
    reasons
}

/// What makes the run a failure.
fn failure(facts: &Facts) -> Option<(Fault, String)> {
    // An interrupted run is judged by what it had time for.
    if facts.interrupted && facts.failed == 0 {
        return None;
    }
    if facts.joined == 0 {
        let fault = if facts.refused() { Fault::Server } else { Fault::Unknown };
        let why = facts.ended_early.as_ref().map(|early| format!("; {}", early.why));
        return Some((fault, join_reason(facts) + why.as_deref().unwrap_or_default()));
    }
    if let Some(early) = &facts.ended_early {
        let text = format!("the run ended early: {}; {}", early.why, join_reason(facts));
        return Some(match &facts.server_gone {
            Some(gone) if early.fault == Fault::Unknown => {
                (gone.fault, format!("{text}; {}", gone.why))
            }
            _ => (early.fault, text),
        });
    }
    if let Some(gone) = &facts.server_gone {
        let whose = if gone.fault == Fault::Server { "server" } else { "unknown" };
        let mut text = format!("{whose}: {}; {}", gone.why, join_reason(facts));
        if facts.left_absent > 0 {
            let lost = group(facts.left_absent);
            text += &format!("; {lost} had lost their connection and were on their way back");
        }
        return Some((gone.fault, text));
    }
    if facts.interrupted {
        return None;
    }
    let none_due = facts.no_media || (facts.tracks.none_due && facts.publishers_joined > 0);
    if facts.subscribers_joined > 0 && facts.received == 0 && !none_due {
        let reason = if facts.publishers_joined == 0 {
            "nothing was received: no publisher of this run joined, and nobody else published in \
             the room"
        } else if facts.published == 0 {
            "nothing was received: our publishers sent nothing"
        } else {
            "nothing was received, though our publishers sent; the server forwarded nothing or \
             the network (a firewall for UDP?) kept it"
        };
        // How much was due nobody knows.
        let dropped = match lost_on_purpose(facts) {
            0 => String::new(),
            _ => format!("; {}", dropped_in_words(facts)),
        };
        return Some((Fault::Unknown, reason.to_owned() + &dropped));
    }
    if facts.publishers_joined > 0 && facts.published == 0 {
        return Some((Fault::Unknown, "our publishers joined but sent nothing".to_owned()));
    }
    None
}

/// Tracks of which nothing came.
fn silent_tracks(facts: &Facts) -> Option<(Fault, String)> {
    let TracksFacts { expected, missing, unsent, plis, .. } = facts.tracks;
    if missing == 0 || facts.interrupted {
        return None;
    }
    let what = format!(
        "of {} of {} subscribed tracks nothing came; {} keyframes were asked for",
        group(missing),
        group(expected),
        group(plis)
    );
    let on_purpose = dropped_on_purpose(facts);
    Some(match unsent {
        Some(unsent) if unsent >= missing => {
            let reason = format!(
                "server: {what}; the embedded SFU never sent anything on {} tracks",
                group(unsent)
            );
            (Fault::Server, reason)
        }
        _ if on_purpose > 0 => (Fault::None, format!("{what}; {}", dropped_in_words(facts))),
        Some(unsent) => {
            let reason = format!(
                "network: {what}; the embedded SFU sent on all tracks but {}",
                group(unsent)
            );
            (Fault::Network, reason)
        }
        None => (Fault::Unknown, format!("unknown: {what}; server or network")),
    })
}

/// Participants that did not join, or not for long.
fn joins(facts: &Facts) -> Option<(Fault, String)> {
    let lost = facts.lost_joins;
    if lost.all == 0 && facts.dropped == 0 {
        return None;
    }
    let mut reason = join_reason(facts);
    if lost.too_many(facts.started) {
        reason += &format!(" (bound {} % that failed or never ended)", JOIN_FAILURE_RATE_MAX * 1e2);
    }
    if facts.refused() {
        return Some((Fault::Server, format!("server: {reason}")));
    }
    let cut_off = facts.injected.map_or(0, |injected| injected.other_dropped);
    if lost.all == lost.on_purpose && cut_off > 0 {
        let by = on_purpose_by(facts);
        let reason = format!("{reason}; {} other datagrams were dropped {by}", group(cut_off));
        return Some((Fault::None, reason));
    }
    if let Some(full_s) = facts.ledger.map(|ledger| ledger.full_s).filter(|full_s| *full_s > 0.0) {
        let full = watch_verdict::full(full_s);
        return Some((Fault::Server, format!("server: {reason}; {full}")));
    }
    Some((Fault::Unknown, format!("unknown: {reason}")))
}

/// A server that kept open websockets waiting.
fn stall(facts: &Facts) -> Option<(Fault, String)> {
    let waited_ms = facts.join_response_wait_ms_max;
    (waited_ms > JOIN_RESPONSE_WAIT_MS_MAX).then(|| {
        let reason = format!(
            "server: its signalling stalled: a join response came {waited_ms:.0} ms after TCP was \
             connected (bound {JOIN_RESPONSE_WAIT_MS_MAX:.0} ms)"
        );
        (Fault::Server, reason)
    })
}

fn join_reason(facts: &Facts) -> String {
    let mut text = facts.balance.clone();
    if facts.dropped > 0 {
        text.push_str(&format!(", {} dropped out", group(facts.dropped)));
    }
    let kinds: Vec<String> = facts
        .counted()
        .take(3)
        .map(|ErrorFact { kind, count, said, .. }| match said {
            Some(said) => format!("{count} x {kind}: {said}"),
            None => format!("{count} x {kind}"),
        })
        .collect();
    if !kinds.is_empty() {
        text.push_str(&format!(" ({})", kinds.join("; ")));
    }
    // Told to leave while they hung: no errors, but it is known at what.
    let only_said = facts.errors.iter().filter(|error| error.count == 0);
    let hung = only_said.filter(|error| matches!(error.class, ErrorClass::Hung { .. }));
    for said in hung.filter_map(|error| error.said.as_ref()) {
        text.push_str(&format!("; still joining: {said}"));
    }
    text
}

/// What is worth saying without changing the verdict.
fn notes(facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.unrecovered == 0 && facts.missing > 0 {
        notes.push(format!(
            "{} of {} packets were missing at first and all were repaired in time",
            group(facts.missing),
            group(facts.expected)
        ));
    }
    if facts.unrecovered == 0 && lost_on_purpose(facts) > 0 {
        notes.push(dropped_in_words(facts));
    }
    if let Some((false, _, remark)) = layers_verdict::judge(facts) {
        notes.push(remark);
    }
    notes.extend(facts.faults_without_effect.iter().cloned());
    notes.extend(came_back(facts));
    if facts.rejected > 0 {
        notes.push(format!(
            "{} datagrams were broken or failed authentication and were not counted",
            group(facts.rejected)
        ));
    }
    if facts.kernel_drops > 0 || facts.send_losses > 0 {
        notes.push(format!(
            "the generator lost {} datagrams on receiving and {} on sending (bound {} % of all)",
            kernel_drops(facts),
            group(facts.send_losses),
            OWN_LOSS_RATE_MAX * 100.0
        ));
    }
    notes
}

/// Participants had to come back though nobody had broken anything on purpose, and did.
fn came_back(facts: &Facts) -> Option<String> {
    let RecoveryGroups { resume, ice_restart, full_reconnect, moved } = facts.recoveries;
    let ways = [
        (resume, "resume"),
        (ice_restart, "ICE restart"),
        (full_reconnect, "full reconnect"),
        (moved, "being moved"),
    ];
    let there = ways.map(|(way, name)| (way.recovered, name));
    let all: u64 = there.iter().fold(0, |sum, (count, _)| sum.saturating_add(*count));
    let on_purpose = facts.on_purpose.recovered;
    if all <= on_purpose {
        return None;
    }
    let there = there.into_iter().filter(|(count, _)| *count > 0);
    let by: Vec<String> =
        there.map(|(count, name)| format!("{} by {name}", group(count))).collect();
    let mut note =
        format!("participants had to come back {} times, and did: {}", group(all), by.join(", "));
    if on_purpose > 0 {
        note += &format!("; of all these {} after something done on purpose", group(on_purpose));
    }
    Some(note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Early, LedgerFacts, OnPurposeFacts, WorkerFacts};
    use crate::joins::LostJoins;
    use crate::senders::SenderFacts;
    use stampede_counters::ImpairCounters;

    /// A run in which all went well.
    fn healthy() -> Facts {
        Facts {
            started: 11,
            joined: 11,
            balance: "11 of 11 joined".to_owned(),
            subscribers_joined: 10,
            publishers_joined: 1,
            expected: 100_000,
            received: 100_000,
            bounded_expected: 100_000,
            published: 10_000,
            upstream_reported: 10_000,
            datagrams_in: 110_000,
            datagrams_out: 20_000,
            workers: vec![WorkerFacts {
                busy_ratio: 0.5,
                lateness_ms_p99: 2.0,
                batch_age_ms_p99: 4.0,
                stall_ms_max: 30.0,
            }],
            ..Facts::default()
        }
    }

    fn lossy() -> Facts {
        Facts {
            missing: 1_000,
            repaired: 900,
            unrecovered: 100,
            bounded_unrecovered: 100,
            received: 99_900,
            subscribers_lossy: 7,
            ..healthy()
        }
    }

    fn check(facts: &Facts, result: Outcome, fault: Fault, word: &str) {
        let verdict = judge(facts);
        assert_eq!((verdict.result, verdict.fault), (result, fault), "{:?}", verdict.reasons);
        assert!(verdict.reasons.join("\n").contains(word), "{word}: {:?}", verdict.reasons);
    }

    #[test]
    fn a_healthy_run_passes_without_a_word() {
        let verdict = judge(&healthy());
        assert_eq!((verdict.result, verdict.fault), (Outcome::Pass, Fault::None));
        assert!(verdict.reasons.is_empty());
    }

    #[test]
    fn repaired_loss_is_noted_and_nobodys_fault() {
        let facts = Facts { missing: 1_000, repaired: 1_000, ..healthy() };
        check(&facts, Outcome::Pass, Fault::None, "1,000 of 100,000 packets were missing at first");
    }

    #[test]
    fn the_generator_is_suspected_first() {
        let starved = |busy_ratio, lateness_ms_p99, batch_age_ms_p99| {
            let worker =
                WorkerFacts { busy_ratio, lateness_ms_p99, batch_age_ms_p99, stall_ms_max: 0.0 };
            Facts { workers: vec![worker], ..lossy() }
        };
        check(&starved(0.97, 1.0, 1.0), Outcome::Invalid, Fault::Generator, "busy 97 %");
        check(
            &starved(0.2, 900.0, 1.0),
            Outcome::Invalid,
            Fault::Generator,
            "its timers ran 900 ms late, at the 99th",
        );
        check(
            &starved(0.2, 1.0, 800.0),
            Outcome::Invalid,
            Fault::Generator,
            "its datagrams were 800 ms old",
        );
        let stalled = WorkerFacts { stall_ms_max: 28_000.0, ..WorkerFacts::default() };
        let stalled = Facts { workers: vec![stalled], ..healthy() };
        check(&stalled, Outcome::Invalid, Fault::Generator, "stood still for 28.0 s");
        let drops = Facts { kernel_drops: 500, ..lossy() };
        check(&drops, Outcome::Invalid, Fault::Generator, "our kernel dropped 500");
        let runs = Facts { kernel_drops: 500, drops_estimated: true, ..lossy() };
        check(&runs, Outcome::Invalid, Fault::Generator, "our kernel dropped about 500");
        let sends = Facts { send_losses: 500, ..healthy() };
        check(&sends, Outcome::Invalid, Fault::Generator, "could not be sent");
        let dead = Facts { workers_failed: vec!["worker 0 ended".to_owned()], ..healthy() };
        check(&dead, Outcome::Invalid, Fault::Generator, "worker 0 ended");
    }

    #[test]
    fn heavy_loss_is_no_pass_whoever_did_it() {
        let facts = Facts {
            missing: 2_000,
            unrecovered: 2_000,
            bounded_unrecovered: 2_000,
            received: 98_000,
            ..healthy()
        };
        check(&facts, Outcome::Fail, Fault::Unknown, "2,000 of 100,000 packets were lost");
        let bounded_by_a_threshold = Facts { bounded_unrecovered: 0, bounded_expected: 0, ..facts };
        check(&bounded_by_a_threshold, Outcome::Pass, Fault::Unknown, "2,000 of 100,000");
    }

    #[test]
    fn a_handful_of_own_drops_is_noted_only() {
        let facts = Facts { kernel_drops: 5, ..healthy() };
        check(&facts, Outcome::Pass, Fault::None, "the generator lost 5 datagrams");
    }

    fn error(kind: &str, count: u64, class: ErrorClass) -> ErrorFact {
        ErrorFact { kind: kind.to_owned(), count, class, said: None }
    }

    #[test]
    fn nobody_joined_is_a_failure() {
        let errors = vec![error("websocket: connection refused", 11, ErrorClass::Other)];
        let balance = "0 of 11 joined, 11 failed".to_owned();
        let nobody = Facts { joined: 0, failed: 11, balance, received: 0, errors, ..healthy() };
        let said = "0 of 11 joined, 11 failed (11 x websocket";
        check(&nobody, Outcome::Fail, Fault::Unknown, said);
        let errors = vec![error("http_503", 11, ErrorClass::Refused)];
        check(&Facts { errors, ..nobody }, Outcome::Fail, Fault::Server, "0 of 11");
    }

    #[test]
    fn without_a_candidate_pair_that_is_said_once_and_nobody_is_blamed() {
        let said = "no candidate pair worked: our candidates 127.0.0.1:40001";
        let class = ErrorClass::Hung { by_server: false };
        let of = |count| ErrorFact {
            said: Some(said.to_owned()),
            ..error("no_candidate_pair", count, class)
        };
        let hung = Facts { joined: 0, received: 0, errors: vec![of(0)], ..healthy() };
        let hanging = format!("; still joining: {said}");
        check(&hung, Outcome::Fail, Fault::Unknown, &hanging);
        let failed = Facts { errors: vec![of(11)], failed: 11, ..hung };
        check(&failed, Outcome::Fail, Fault::Unknown, &format!("(11 x no_candidate_pair: {said})"));
        assert!(!judge(&failed).reasons[0].contains(&hanging));
    }

    #[test]
    fn nothing_received_is_a_failure_and_says_what_was_sent() {
        let nothing = Facts { expected: 0, received: 0, ..healthy() };
        check(&nothing, Outcome::Fail, Fault::Unknown, "though our publishers sent");
        let silent = Facts { published: 0, ..nothing.clone() };
        check(&silent, Outcome::Fail, Fault::Unknown, "our publishers sent nothing");
        let alone = Facts { publishers_joined: 0, published: 0, ..nothing };
        check(&alone, Outcome::Fail, Fault::Unknown, "nobody else published");
        // A meeting of one has nobody to see.
        let tracks = TracksFacts { none_due: true, ..TracksFacts::default() };
        let first = Facts { expected: 0, received: 0, tracks, ..healthy() };
        assert_eq!(judge(&first).result, Outcome::Pass, "{:?}", judge(&first));
    }

    #[test]
    fn a_run_that_could_not_go_on_is_a_failure() {
        let early = Early { fault: Fault::Server, why: "the embedded SFU ended".to_owned() };
        let facts = Facts { ended_early: Some(early), dropped: 11, ..healthy() };
        check(
            &facts,
            Outcome::Fail,
            Fault::Server,
            "ended early: the embedded SFU ended; 11 of 11",
        );
    }

    #[test]
    fn publishing_only_needs_packets_sent() {
        let idle = Facts { no_media: true, received: 0, expected: 0, ..healthy() };
        let idle = Facts { publishers_joined: 0, published: 0, ..idle };
        assert_eq!(judge(&idle).result, Outcome::Pass, "{:?}", judge(&idle).reasons);
        let only = Facts { subscribers_joined: 0, received: 0, expected: 0, ..healthy() };
        check(&only, Outcome::Pass, Fault::None, "");
        check(&Facts { published: 0, ..only }, Outcome::Fail, Fault::Unknown, "sent nothing");
    }

    #[test]
    fn loss_is_blamed_on_whom_the_ledger_proves() {
        check(&lossy(), Outcome::Pass, Fault::Unknown, "server or network");
        check(
            &lossy(),
            Outcome::Pass,
            Fault::Unknown,
            "unknown: 100 of 100,000 packets were lost for good at 7 subscribers (1,000 were missing \
             at first, 900 repaired); our kernel dropped none, our workers were busy 50 % at most",
        );
        let with = |ledger| Facts { ledger: Some(ledger), ..lossy() };
        let sent = LedgerFacts { packets_sent: 100_000, ..LedgerFacts::default() };
        check(&with(sent), Outcome::Pass, Fault::Network, "handed 100,000 to its kernel");
        let injected = LedgerFacts { dropped: 990, ..sent };
        check(&with(injected), Outcome::Pass, Fault::Server, "dropped 990 packets");
        let inside = LedgerFacts { lost_inside: 1_000, ..sent };
        check(&with(inside), Outcome::Pass, Fault::Server, "itself lost 1,000");
        // One at each of the seven that lost any; a whole room that lost none proves nothing.
        let upstream = Facts { upstream_lost: 1, ..with(sent) };
        check(&upstream, Outcome::Pass, Fault::Network, "1 packets were lost on the way up");
        let upstream = Facts { upstream_lost: 7, subscribers_joined: 1_000, ..lossy() };
        check(&upstream, Outcome::Pass, Fault::Unknown, "7 packets were lost on the way up");
        let upstream = LedgerFacts { upstream_lost: 100, ..sent };
        let upstream = Facts { upstream_lost: 100, missing: 100, repaired: 0, ..with(upstream) };
        check(&upstream, Outcome::Pass, Fault::Publisher, "100 packets were lost on the way up");
        // Most of what was lost upstream came after all, late: missing at first, and repaired.
        let late = LedgerFacts { packets_sent: 99_916, upstream_lost: 15, ..sent };
        let (missing, repaired, unrecovered) = (174, 90, 84);
        let late = Facts { missing, repaired, unrecovered, upstream_lost: 12, ..with(late) };
        check(&late, Outcome::Pass, Fault::Publisher, "15 never reached the embedded SFU");
    }

    #[test]
    fn what_an_sfu_had_no_room_for_when_it_came_is_its_own_loss() {
        // Each is lost once at each of the seven.
        let full = LedgerFacts {
            packets_sent: 99_930,
            upstream_lost: 10,
            lost_inside: 12,
            receive_drops: 12,
            ..LedgerFacts::default()
        };
        let (missing, repaired, unrecovered) = (70, 0, 70);
        let facts = Facts { missing, repaired, unrecovered, upstream_lost: 10, ..lossy() };
        let facts = Facts { ledger: Some(full), ..facts };
        check(&facts, Outcome::Pass, Fault::Server, "server: 70 of 100,000");
        let elsewhere = LedgerFacts { lost_inside: 0, receive_drops: 0, ..full };
        let facts = Facts { ledger: Some(elsewhere), ..facts };
        check(&facts, Outcome::Pass, Fault::Publisher, "publisher: 70 of 100,000");
    }

    #[test]
    fn what_came_too_late_is_put_down_to_who_lost_it_at_first() {
        // The server got them when it asked again, and all it sent came.
        let ledger = LedgerFacts { packets_sent: 100_000, ..LedgerFacts::default() };
        let (missing, repaired, unrecovered) = (260, 250, 10);
        let late = Facts { missing, repaired, unrecovered, late: 10, ..lossy() };
        let late = Facts { sent_again: 26, ledger: Some(ledger), ..late };
        check(&late, Outcome::Pass, Fault::Publisher, "10 of them came after the deadline");
        check(&Facts { sent_again: 0, ..late.clone() }, Outcome::Pass, Fault::Network, "network: ");
        // Half of them never came.
        let half = Facts { late: 5, ..late };
        check(&half, Outcome::Pass, Fault::Publisher, "publisher, mainly: ");
    }

    #[test]
    fn a_server_can_t_send_what_it_never_got() {
        let senders = SenderFacts {
            streams: 10,
            covered: 10,
            sent: 99_000,
            missing: 1_000,
            never_sent: 950,
            lost_behind: 0,
        };
        let facts = Facts { senders, ..lossy() };
        check(&facts, Outcome::Pass, Fault::Server, "it never sent 950");
        // What it got of the rest is not known.
        let facts = Facts { upstream_reported: 8_999, ..facts };
        check(&facts, Outcome::Pass, Fault::Unknown, "prove 950 never sent");
        let foreign = Facts { publishers_joined: 0, published: 0, upstream_reported: 0, ..facts };
        check(&foreign, Outcome::Pass, Fault::Unknown, "prove 950 never sent");
    }

    #[test]
    fn of_several_causes_the_largest_is_named_and_all_are_told() {
        let sent = LedgerFacts { packets_sent: 100_000, dropped: 800, ..LedgerFacts::default() };
        let facts = Facts { ledger: Some(sent), ..lossy() };
        check(&facts, Outcome::Pass, Fault::Server, "server, mainly: 100 of 100,000");
        check(&facts, Outcome::Pass, Fault::Server, "dropped 800 packets");
        let less = Facts { ledger: Some(LedgerFacts { dropped: 300, ..sent }), ..lossy() };
        check(&less, Outcome::Pass, Fault::Network, "network, mainly: 100 of 100,000");
        check(&less, Outcome::Pass, Fault::Network, "dropped 300 packets");
    }

    #[test]
    fn what_this_machine_lacks_makes_the_run_invalid() {
        let shortage = error("local_resources", 3, ErrorClass::NoResources);
        let errors = vec![shortage, error("http_503", 1, ErrorClass::Refused)];
        let facts = Facts { failed: 3, errors, ..healthy() };
        check(&facts, Outcome::Invalid, Fault::Generator, "3 tries to join ended with local_res");
    }

    #[test]
    fn a_flood_is_the_servers_also_where_it_took_our_time() {
        let said = "the server flooded us: more offers than 7".to_owned();
        let flood = error("server_flooded_offers", 3, ErrorClass::Flooded);
        let flood = ErrorFact { said: Some(said), ..flood };
        let overloaded = error("worker_overloaded", 2, ErrorClass::Overloaded);
        let errors = vec![overloaded.clone()];
        let workers = vec![WorkerFacts { stall_ms_max: 3_000.0, ..WorkerFacts::default() }];
        let starved = Facts { workers, failed: 5, joined: 6, errors, ..healthy() };
        check(&starved, Outcome::Invalid, Fault::Generator, "worker 0 once stood still");
        let flooded = Facts { errors: vec![flood.clone(), overloaded], ..starved };
        let words = "it flooded 3 sessions, which costs time; 11 of 11 joined (3 x \
                     server_flooded_offers: the server flooded us: more offers than 7; 2 x \
                     worker_overloaded)";
        check(&flooded, Outcome::Fail, Fault::Server, words);
        check(&flooded, Outcome::Fail, Fault::Server, "worker 0 once stood still");
        // What no flood takes.
        let drops = Facts { kernel_drops: 5_000, ..flooded.clone() };
        check(&drops, Outcome::Invalid, Fault::Generator, "our kernel dropped");
        let shortage = error("local_resources", 1, ErrorClass::NoResources);
        let ports = Facts { errors: vec![flood, shortage], ..flooded };
        check(&ports, Outcome::Invalid, Fault::Generator, "local_resources");
    }

    #[test]
    fn what_was_dropped_on_purpose_is_nobodys_fault() {
        let injected = Some(ImpairCounters { dropped: 5_000, ..ImpairCounters::default() });
        let facts = Facts { missing: 5_000, unrecovered: 5_000, injected, ..healthy() };
        check(&facts, Outcome::Pass, Fault::None, "5,000 packets were dropped on purpose");
        let sent = LedgerFacts { packets_sent: 100_000, ..LedgerFacts::default() };
        let facts = Facts {
            missing: 8_000,
            unrecovered: 8_000,
            bounded_unrecovered: 8_000,
            ledger: Some(sent),
            ..facts
        };
        check(&facts, Outcome::Fail, Fault::Network, "handed 100,000");
        let ledger = Some(LedgerFacts { dropped: 3_000, ..sent });
        check(&Facts { ledger, ..facts }, Outcome::Fail, Fault::Server, "dropped 3,000");
        let repaired = Facts { missing: 5_000, repaired: 5_000, injected, ..healthy() };
        check(&repaired, Outcome::Pass, Fault::None, "5,000 packets were dropped on purpose");
        // Held back on purpose so that others overtook them, or by the SFU: missing, and not lost.
        let overtaken = Facts {
            missing: 9_000,
            reordered: 4_000,
            repaired: 8_000,
            unrecovered: 1_000,
            injected,
            ..healthy()
        };
        check(&overtaken, Outcome::Pass, Fault::None, "5,000 packets were dropped on purpose");
        let held = ImpairCounters { dropped: 5_000, reordered: 4_000, ..ImpairCounters::default() };
        let repaired_before = Facts { reordered: 0, injected: Some(held), ..overtaken.clone() };
        let said = "5,000 packets were dropped on purpose";
        check(&repaired_before, Outcome::Pass, Fault::None, said);
        let injected = Some(ImpairCounters::default());
        let overtaken =
            Facts { injected, ledger: Some(LedgerFacts { dropped: 5_000, ..sent }), ..overtaken };
        check(&overtaken, Outcome::Pass, Fault::Server, "server: 1,000 of 100,000");
        let injected = Some(ImpairCounters { other_dropped: 9, ..ImpairCounters::default() });
        let cut_off = Facts { dropped: 2, injected, ..healthy() };
        check(&cut_off, Outcome::Pass, Fault::None, "9 other datagrams were dropped on purpose");
    }

    #[test]
    fn tracks_of_which_nothing_came_are_no_pass() {
        let tracks = TracksFacts {
            expected: 20,
            missing: 10,
            unsent: Some(10),
            plis: 70,
            ..TracksFacts::default()
        };
        let facts = Facts { tracks, ..healthy() };
        check(&facts, Outcome::Fail, Fault::Server, "of 10 of 20 subscribed tracks nothing came");
        let unknown = TracksFacts { unsent: None, ..tracks };
        let facts = Facts { tracks: unknown, ..healthy() };
        check(&facts, Outcome::Fail, Fault::Unknown, "server or network");
        let injected = Some(ImpairCounters { dropped: 500, ..ImpairCounters::default() });
        check(
            &Facts { injected, ..facts },
            Outcome::Pass,
            Fault::None,
            "on purpose (--impair, or a cohort's impair)",
        );
    }

    #[test]
    fn a_stalled_join_response_is_the_server_s() {
        let facts = Facts { join_response_wait_ms_max: 4_500.0, ..healthy() };
        check(&facts, Outcome::Pass, Fault::Server, "came 4500 ms after");
    }

    #[test]
    fn at_a_real_server_its_sender_reports_tell_server_from_network() {
        let senders = |never_sent, lost_behind| SenderFacts {
            streams: 10,
            covered: 10,
            sent: 99_000,
            missing: 1_000,
            never_sent,
            lost_behind,
        };
        let with = |senders| Facts { senders, ..lossy() };
        check(&with(senders(0, 950)), Outcome::Pass, Fault::Network, "it sent at least 950");
        check(&with(senders(950, 0)), Outcome::Pass, Fault::Server, "it never sent 950");
        check(&with(senders(400, 400)), Outcome::Pass, Fault::Unknown, "prove 400 never sent");
    }

    fn lost(all: u64, on_purpose: u64, bounded: u64) -> Facts {
        let joined = 11 - all;
        let lost_joins = LostJoins { all, on_purpose, bounded };
        let balance = format!("{joined} of 11 joined, {all} failed");
        Facts { joined, failed: all, balance, lost_joins, ..healthy() }
    }

    #[test]
    fn too_many_that_never_joined_are_no_pass() {
        let errors = vec![error("http_503", 2, ErrorClass::Refused)];
        let refused = Facts { errors, ..lost(2, 0, 2) };
        let said = "server: 9 of 11 joined, 2 failed (2 x http_503) (bound 1 % that failed";
        check(&refused, Outcome::Fail, Fault::Server, said);
        check(&lost(2, 0, 2), Outcome::Fail, Fault::Unknown, "unknown: 9 of 11 joined");
        // The user's own threshold decides, or it was done on purpose.
        check(&lost(2, 0, 0), Outcome::Pass, Fault::Unknown, "unknown: 9 of 11 joined");
        let injected = Some(ImpairCounters { other_dropped: 9, ..ImpairCounters::default() });
        let cut_off = Facts { injected, ..lost(2, 2, 0) };
        check(&cut_off, Outcome::Pass, Fault::None, "9 other datagrams were dropped on purpose");
        let partly = Facts { injected, ..lost(2, 1, 1) };
        check(&partly, Outcome::Fail, Fault::Unknown, "unknown: 9 of 11 joined");
        let few = Facts { started: 200, ..lost(2, 0, 2) };
        check(&few, Outcome::Pass, Fault::Unknown, "unknown: 9 of 11 joined");
    }

    #[test]
    fn a_server_that_is_gone_at_the_end_is_named() {
        let gone = |fault, why: &str| Facts {
            server_gone: Some(Early { fault, why: why.to_owned() }),
            left_absent: 11,
            dropped: 11,
            ..healthy()
        };
        let refused = gone(Fault::Server, "the server at h:1 did not answer: refused");
        let said = "server: the server at h:1 did not answer: refused; 11 of 11 joined, 11 dropped \
                    out; 11 had lost their connection";
        check(&refused, Outcome::Fail, Fault::Server, said);
        let silent = gone(Fault::Unknown, "nothing came back");
        check(&silent, Outcome::Fail, Fault::Unknown, "unknown: nothing came back");
    }

    #[test]
    fn a_file_that_was_asked_for_and_is_not_whole_is_no_pass() {
        let files_lost = vec!["recording: /r/x.ivf: cannot be written: No space left".to_owned()];
        let facts = Facts { files_lost, ..healthy() };
        check(&facts, Outcome::Fail, Fault::Generator, "recording: /r/x.ivf: cannot be written");
        let lossy = Facts { files_lost: facts.files_lost, ..lossy() };
        check(&lossy, Outcome::Fail, Fault::Unknown, "recording: /r/x.ivf");
    }

    #[test]
    fn an_interrupted_run_is_that_before_anything_else() {
        let facts = Facts { started: 0, joined: 0, received: 0, interrupted: true, ..healthy() };
        let said = "interrupted by a signal: 11 of 11 joined";
        check(&facts, Outcome::Interrupted, Fault::None, said);
        let facts = Facts { received: 0, interrupted: true, ..healthy() };
        check(&facts, Outcome::Interrupted, Fault::None, "interrupted");
        let invalid = Facts { kernel_drops: 500, interrupted: true, ..lossy() };
        check(&invalid, Outcome::Interrupted, Fault::Generator, "our kernel dropped 500");
        let failed = Facts { interrupted: true, ..lost(2, 0, 2) };
        check(&failed, Outcome::Interrupted, Fault::Unknown, "9 of 11 joined");
    }

    #[test]
    fn what_a_fault_may_have_cost_is_held_against_nobody() {
        let ledger = LedgerFacts { packets_sent: 100_000, ..LedgerFacts::default() };
        let signal_only =
            OnPurposeFacts { hit: 2, hit_media: 0, recovered: 2, ..Default::default() };
        let lost = Facts { ledger: Some(ledger), on_purpose: signal_only, ..lossy() };
        check(&lost, Outcome::Pass, Fault::Network, "network: 100 of");
        let on_purpose =
            OnPurposeFacts { hit: 4, hit_media: 2, recovered: 4, ..Default::default() };
        let lost = Facts { on_purpose, ..lost };
        let said =
            "on purpose (--fault) 2 times, which may lose what is on its way; else network: ";
        check(&lost, Outcome::Pass, Fault::Unknown, said);
        let dropped = Some(LedgerFacts { dropped: 1_000, ..ledger });
        check(&Facts { ledger: dropped, ..lost }, Outcome::Pass, Fault::Server, "server: 100 of");
    }

    #[test]
    fn what_an_outage_dropped_is_nobodys_fault_and_fails_nothing() {
        let injected = Some(ImpairCounters { dropped: 5_000, ..ImpairCounters::default() });
        let hit = OnPurposeFacts { hit: 8, hit_media: 8, recovered: 8, unsent: 0 };
        let lost = Facts {
            missing: 5_000,
            unrecovered: 5_000,
            bounded_unrecovered: 5_000,
            injected,
            impaired: false,
            on_purpose: hit,
            ..healthy()
        };
        let said = "5,000 packets were dropped on purpose (--fault)";
        check(&lost, Outcome::Pass, Fault::None, said);
        // What a publisher could not send is lost once at each of its subscribers.
        let unsent = OnPurposeFacts { unsent: 500, ..hit };
        let up = Facts { injected: None, on_purpose: unsent, subscribers_lossy: 10, ..lost };
        let said = "500 datagrams of our publishers did not leave, on purpose (--fault)";
        check(&up, Outcome::Pass, Fault::None, said);
        // Twice as much is not.
        let more = Facts { missing: 10_000, unrecovered: 10_000, ..up };
        let more = Facts { bounded_unrecovered: 10_000, ..more };
        assert_eq!(judge(&more).result, Outcome::Fail);
        let nothing = Facts { received: 0, expected: 0, ..more };
        let said = "kept it; 500 datagrams of our publishers did not leave, on purpose";
        check(&nothing, Outcome::Fail, Fault::Unknown, said);
    }

    #[test]
    fn ways_back_that_nobody_asked_for_are_noted_and_change_nothing() {
        let mut recoveries = RecoveryGroups::default();
        recoveries.resume.recovered = 4;
        recoveries.full_reconnect.recovered = 1_000;
        let facts = Facts { recoveries, ..healthy() };
        let said = "had to come back 1,004 times, and did: 4 by resume, 1,000 by full reconnect";
        check(&facts, Outcome::Pass, Fault::None, said);
        let partly = OnPurposeFacts { hit: 3, hit_media: 3, recovered: 3, ..Default::default() };
        let said = "of all these 3 after something done on purpose";
        check(&Facts { on_purpose: partly, ..facts.clone() }, Outcome::Pass, Fault::None, said);
        let all = OnPurposeFacts { hit: 1_004, recovered: 1_004, ..Default::default() };
        assert!(judge(&Facts { on_purpose: all, ..facts }).reasons.is_empty());
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(group(number), text);
        }
    }
}
