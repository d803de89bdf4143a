//! What the verdict makes of watch time: nobody could watch is no pass, and who is to blame only as
//! far as it can be proved.

use stampede_core::watch::Cause;

use super::bounds::LOSS_RATE_MAX;
use super::errors::ErrorClass;
use super::facts::{CauseGroup, Facts, LedgerFacts, WatchFacts};
use super::loss::late;
use super::show::group;
use super::types::Fault;
use super::watch::Missed;

/// Most causes that are told, what took most time first.
const GROUPS_MAX: usize = 4;

/// An own stall below this makes no gap: a frame covers about as much.
const OWN_STALL_MS_MIN: f64 = 150.0;

/// What watch time says of a run.
pub(super) struct Blackout {
    /// More than 1 % of the expected time of video or audio could not be watched.
    pub(super) failed: bool,
    /// Whose fault each cause is, and what happened, what took most time first.
    pub(super) found: Vec<(Fault, String)>,
    /// Most of it lay in gaps shorter than an interruption; what is known of lost packets says more.
    pub(super) stutters: Option<(Fault, String)>,
}

/// Judges it; `loss` is whose fault lost packets are.
pub(super) fn judge(facts: &Facts, loss: Fault) -> Blackout {
    let watch = &facts.watch;
    let failed = watch.kinds.iter().any(Missed::is_too_much);
    let found: Vec<(Fault, String)> = watch
        .groups
        .iter()
        .take(GROUPS_MAX)
        .map(|one| {
            let (fault, proof) = blame(facts, one, loss);
            (fault, format!("{}{}", whose(fault), account(watch, one, &proof)))
        })
        .collect();
    let explained_s: f64 = watch
        .groups
        .iter()
        .take(GROUPS_MAX)
        .filter(|one| one.cause != Cause::OnPurpose)
        .map(|one| one.total_s)
        .sum();
    let missed_s: f64 = watch.kinds.iter().map(|kind| kind.missed_s).sum();
    let stutters = (failed && explained_s < missed_s / 2.0).then(|| stutters(facts, loss));
    Blackout { failed, found, stutters }
}

/// This process stood still for long enough to explain what could not be watched: it says nothing
/// about the server.
pub(super) fn own_stall(facts: &Facts, blackout: &Blackout) -> Option<String> {
    let workers = facts.workers.iter().map(|worker| worker.stall_ms_max);
    let stall_ms = workers.fold(facts.publish_late_ms_max, f64::max);
    // Of each subscriber no more than the stall takes, and what it takes to come back.
    let explained = missed_s(facts) * 1_000.0 <= 2.0 * stall_ms;
    (blackout.failed && stall_ms >= OWN_STALL_MS_MIN && explained).then(|| {
        format!(
            "generator: this process once stood still for {stall_ms:.0} ms, and as much could not \
             be watched; this machine had no CPU for it"
        )
    })
}

fn whose(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "",
        Fault::Generator => "generator: ",
        Fault::Network => "network: ",
        Fault::Server => "server: ",
        Fault::Publisher => "publisher: ",
        Fault::Unknown => "unknown: ",
    }
}

fn account(watch: &WatchFacts, one: &CauseGroup, proof: &str) -> String {
    let kind = if one.video { "video" } else { "audio" };
    let back = match (one.back_after_s, one.not_back) {
        (Some(back_s), _) => format!("back after {back_s:.1} s"),
        (None, 0) => "each time it came back".to_owned(),
        (None, not_back) if not_back == one.subscribers => "and not back by the end".to_owned(),
        (None, not_back) => format!("and not back by the end for {}", group(not_back)),
    };
    let what = match one.tracks == one.of_tracks {
        true => if one.video { "saw nothing" } else { "heard nothing" }.to_owned(),
        false => {
            format!("missed {} of {} {kind} tracks", group(one.tracks), group(one.of_tracks))
        }
    };
    format!(
        "{} of {} subscribers {what} for {:.1} s (p50) from {:.1} s on: {proof}; {back}",
        group(one.subscribers),
        group(watch.subscribers),
        one.length_s_p50,
        one.from_s
    )
}

/// Whose fault short gaps are: that of the cause that took most of them.
fn stutters(facts: &Facts, loss: Fault) -> (Fault, String) {
    let what = stuttering(&facts.watch);
    let short = Cause::ALL.into_iter().zip(facts.watch.short_gaps_s);
    let short = short.filter(|(cause, _)| *cause != Cause::OnPurpose);
    let most = short.reduce(|most, one| if one.1 > most.1 { one } else { most });
    let Some((cause, total_s)) = most.filter(|(_, total_s)| *total_s > 0.0) else {
        return (Fault::Unknown, format!("unknown: {what}"));
    };
    let missed_s = missed_s(facts);
    let one = CauseGroup {
        video: true,
        cause,
        reason: None,
        subscribers: facts.watch.subscribers,
        tracks: 0,
        of_tracks: 0,
        total_s,
        length_s_p50: missed_s,
        from_s: 0.0,
        back_after_s: None,
        not_back: 0,
    };
    let (fault, proof) = blame(facts, &one, loss);
    (fault, format!("{}{what}: {proof}", whose(fault)))
}

/// What a subscriber missed on average, of video or of audio.
fn missed_s(facts: &Facts) -> f64 {
    let [video, audio] = facts.watch.kinds;
    video.missed_s.max(audio.missed_s) / (facts.watch.subscribers.max(1) as f64)
}

/// The embedded SFU had no time left.
pub(super) fn full(full_s: f64) -> String {
    format!("a worker of the embedded SFU had no time left for {full_s:.1} s (its ledger)")
}

/// What was missed was missed in short gaps.
fn stuttering(watch: &WatchFacts) -> String {
    let missed = watch.kinds.iter().zip(["video", "audio"]).filter(|(kind, _)| kind.missed_s > 0.0);
    let parts = missed.map(|(kind, name)| format!("{:.1} % of the {name}", kind.percent()));
    let parts: Vec<String> = parts.collect();
    format!(
        "{} that was expected could not be watched, in gaps shorter than an interruption",
        parts.join(" and ")
    )
}

/// Whose fault a cause is, and what happened in words.
fn blame(facts: &Facts, one: &CauseGroup, loss: Fault) -> (Fault, String) {
    let (fault, what) = blame_by_cause(facts, one, loss);
    match facts.sfu_full_s(one.length_s_p50) {
        // An SFU without time left is late, and drops, and does not answer.
        Some(full_s) if fault == Fault::Unknown => {
            (Fault::Server, format!("{what}; {}", full(full_s)))
        }
        _ => (fault, what),
    }
}

fn blame_by_cause(facts: &Facts, one: &CauseGroup, loss: Fault) -> (Fault, String) {
    let reason = one.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    match one.cause {
        Cause::OnPurpose => (Fault::None, on_purpose(facts).to_owned()),
        Cause::NotJoined => {
            let fault = if facts.refused() { Fault::Server } else { Fault::Unknown };
            (fault, "they had not joined".to_owned())
        }
        Cause::Disconnected => disconnected(facts, one, &reason),
        Cause::PublisherGone => {
            let (fault, proof) = publisher_gone(facts, one, &reason);
            (fault, format!("the publisher was gone without a word{reason}{proof}"))
        }
        Cause::Loss => (loss, "packets were lost for good".to_owned()),
        Cause::NoKeyframe => {
            let fault = if facts.ledger.is_some() { Fault::Server } else { Fault::Unknown };
            let asked = group(facts.tracks.plis);
            let text = format!(
                "frames came, and nothing that decoding could begin with; {asked} keyframes were \
                 asked for"
            );
            (fault, text)
        }
        Cause::Late => {
            let what = "frames came too late to be shown";
            match late(facts) {
                Some((fault, proof)) => (fault, format!("{what}; {proof}")),
                None => (Fault::Unknown, what.to_owned()),
            }
        }
        Cause::Silent => silent(facts),
    }
}

/// What was done on purpose: what breaks connections, or what drops packets.
fn on_purpose(facts: &Facts) -> &'static str {
    match (facts.on_purpose.hit > 0, facts.impaired) {
        (false, _) => "packets were dropped on purpose (--impair, or a cohort's impair)",
        (true, false) => {
            "their connections, or their publishers', were broken on purpose (--fault)"
        }
        (true, true) => {
            "connections were broken (--fault) or packets dropped (--impair, or a cohort's impair) \
             on purpose"
        }
    }
}

/// A foreign publisher's departure has the server's name of the reason (`DisconnectReason`), one of
/// this run's the kind of its own error.
fn publisher_gone(facts: &Facts, one: &CauseGroup, reason: &str) -> (Fault, String) {
    match one.reason.as_deref().unwrap_or_default() {
        // It went silent, as far as the server can tell.
        "SIGNAL_CLOSE" | "CONNECTION_TIMEOUT" | "MEDIA_FAILURE" => {
            (Fault::Publisher, String::new())
        }
        "SERVER_SHUTDOWN" | "MIGRATION" | "STATE_MISMATCH" => (Fault::Server, String::new()),
        _ => match disconnected(facts, one, reason) {
            // The same of one of this run's: its way to a server that was there.
            (Fault::Network, proof) => (Fault::Publisher, format!("; {proof}")),
            (fault, _) => (fault, String::new()),
        },
    }
}

/// A connection ends by the word of the other side, or by none.
fn disconnected(facts: &Facts, one: &CauseGroup, reason: &str) -> (Fault, String) {
    let class = one.reason.as_deref().map_or(ErrorClass::Other, |kind| facts.class_of(kind));
    let by_server = matches!(class, ErrorClass::EndedByServer | ErrorClass::Flooded);
    // Between us and a server on this machine there is nothing else that could cut it.
    let signalling = matches!(class, ErrorClass::SignallingLost | ErrorClass::Unanswered);
    if facts.local && class == ErrorClass::Unanswered {
        return (Fault::Server, format!("the server stopped answering them{reason}"));
    }
    if class == ErrorClass::NobodyListens {
        let text = format!("their connections were lost{reason}: nobody listened there any more");
        return (Fault::Server, text);
    }
    if by_server || (facts.local && signalling) {
        return (Fault::Server, format!("the server closed every connection of theirs{reason}"));
    }
    let what = format!("their connections were lost{reason}");
    match facts.ledger {
        None if facts.embedded => (Fault::Server, format!("{what}: {SFU_SILENT}")),
        Some(ledger) if !facts.local => cut_off(facts, one, ledger, what),
        _ => (Fault::Unknown, format!("{what}; server or network")),
    }
}

/// Connections to an embedded SFU were lost that was there all the time: who was cut off from whom.
fn cut_off(facts: &Facts, one: &CauseGroup, ledger: LedgerFacts, what: String) -> (Fault, String) {
    if ledger.read_too_slowly > 0 || facts.sfu_full_s(one.length_s_p50).is_some() {
        return (Fault::Unknown, format!("{what}; server or network"));
    }
    if ledger.fell_silent > 0 {
        let silent = group(ledger.fell_silent);
        let text = format!(
            "{what}; the embedded SFU was there, and to it clients fell silent ({silent} times)"
        );
        return (Fault::Network, text);
    }
    match not_arrived(facts, ledger) {
        Some(proof) => (Fault::Network, format!("{what}; {proof}")),
        None => (Fault::Unknown, format!("{what}; server or network")),
    }
}

/// The embedded SFU sent more than arrived.
fn not_arrived(facts: &Facts, ledger: LedgerFacts) -> Option<String> {
    let arrived = facts.received + facts.rejected;
    (ledger.packets_sent as f64 > arrived as f64 * (1.0 + LOSS_RATE_MAX)).then(|| {
        format!(
            "the embedded SFU sent {} packets, and {} arrived",
            group(ledger.packets_sent),
            group(facts.received)
        )
    })
}

const SFU_SILENT: &str = "the embedded SFU did not answer any more";

/// Nothing came, and signalling stood.
fn silent(facts: &Facts) -> (Fault, String) {
    let what = "nothing came, though signalling stood";
    let Some(ledger) = facts.ledger else {
        if facts.embedded {
            return (Fault::Server, format!("{what}; {SFU_SILENT}"));
        }
        return (Fault::Unknown, format!("{what}; server or network"));
    };
    if ledger.dropped > 0 {
        let dropped = group(ledger.dropped);
        let proof =
            format!("{what}; the embedded SFU's ledger says that it dropped {dropped} packets");
        return (Fault::Server, proof);
    }
    if let Some(unsent) = facts.tracks.unsent.filter(|unsent| *unsent > 0) {
        let unsent = group(unsent);
        let proof = format!("{what}; the embedded SFU never sent anything on {unsent} tracks");
        return (Fault::Server, proof);
    }
    if let Some(proof) = not_arrived(facts, ledger) {
        return (Fault::Network, format!("{what}; {proof}"));
    }
    if ledger.upstream_lost > 0 {
        let lost = group(ledger.upstream_lost);
        return (
            Fault::Publisher,
            format!("{what}; {lost} packets never reached the embedded SFU"),
        );
    }
    (Fault::Unknown, format!("{what}; the embedded SFU had nothing to send, or sent nothing"))
}

#[cfg(test)]
mod tests {
    use stampede_counters::ImpairCounters;

    use super::*;
    use crate::errors::ErrorFact;
    use crate::facts::OnPurposeFacts;
    use crate::types::Outcome;

    #[test]
    fn what_was_done_on_purpose_is_called_by_what_did_it() {
        let group = gap(Cause::OnPurpose, None);
        let watch = WatchFacts { subscribers: 3, groups: vec![group], ..WatchFacts::default() };
        let said = |hit, impaired: bool| {
            let facts = Facts {
                watch: watch.clone(),
                on_purpose: OnPurposeFacts { hit, hit_media: hit, ..Default::default() },
                injected: impaired.then(ImpairCounters::default),
                impaired,
                ..Facts::default()
            };
            let [(fault, text)] = <[_; 1]>::try_from(judge(&facts, Fault::Unknown).found).unwrap();
            assert_eq!(fault, Fault::None, "{text}");
            text
        };
        let (faults, impair) = (said(3, false), said(0, true));
        assert_eq!(
            faults,
            "3 of 3 subscribers saw nothing for 2.0 s (p50) from 20.0 s on: their connections, or \
             their publishers', were broken on purpose (--fault); back after 2.5 s"
        );
        let mut one = watch.groups[0].clone();
        one.of_tracks = 4;
        let text = account(&watch, &one, "why");
        assert!(
            text.starts_with("3 of 3 subscribers missed 3 of 4 video tracks for 2.0 s"),
            "{text}"
        );
        assert!(impair.contains("packets were dropped on purpose (--impair, "), "{impair}");
        assert!(said(3, true).contains("broken (--fault) or packets dropped (--impair"));
    }

    #[test]
    fn lost_packets_are_put_down_to_who_lost_them_also_where_short_gaps_are_many() {
        let missed = Missed { expected_s: 100.0, missed_s: 5.0 };
        let watch = WatchFacts { kinds: [missed, Missed::default()], ..WatchFacts::default() };
        let run = |unrecovered| Facts {
            joined: 3,
            started: 3,
            received: 900,
            expected: 1_000,
            missing: 100,
            repaired: 100 - unrecovered,
            unrecovered,
            bounded_unrecovered: unrecovered,
            bounded_expected: 1_000,
            ledger: Some(LedgerFacts { packets_sent: 1_000, ..LedgerFacts::default() }),
            watch: watch.clone(),
            ..Facts::default()
        };
        let verdict = crate::judge::judge(&run(50));
        assert_eq!((verdict.result, verdict.fault), (Outcome::Fail, Fault::Network));
        assert!(verdict.reasons[0].starts_with("network: 50 of 1,000 packets"), "{verdict:?}");
        assert!(verdict.reasons[1].starts_with("unknown: 5.0 % of the video"), "{verdict:?}");
        // Everything came, so what they were is not known.
        let verdict = crate::judge::judge(&run(0));
        assert_eq!((verdict.result, verdict.fault), (Outcome::Fail, Fault::Unknown));
    }

    #[test]
    fn only_what_was_missed_is_named_of_short_gaps() {
        let missed = |missed_s| Missed { expected_s: 100.0, missed_s };
        let said = |video, audio| {
            let kinds = [missed(video), missed(audio)];
            stuttering(&WatchFacts { kinds, ..WatchFacts::default() })
        };
        assert!(said(0.0, 1.25).starts_with("1.2 % of the audio that was expected"));
        assert!(said(5.0, 1.25).starts_with("5.0 % of the video and 1.2 % of the audio that was"));
    }

    fn gap(cause: Cause, reason: Option<&str>) -> CauseGroup {
        CauseGroup {
            video: true,
            cause,
            reason: reason.map(str::to_owned),
            subscribers: 3,
            tracks: 3,
            of_tracks: 3,
            total_s: 6.0,
            length_s_p50: 2.0,
            from_s: 20.0,
            back_after_s: Some(2.5),
            not_back: 0,
        }
    }

    /// An embedded SFU that was there all the time, and a gap.
    fn embedded(ledger: LedgerFacts, one: &CauseGroup) -> (Fault, String) {
        let error =
            |kind: &str, class| ErrorFact { kind: kind.to_owned(), class, ..ErrorFact::default() };
        let facts = Facts {
            embedded: true,
            received: 1_000,
            errors: vec![
                error("signal_lost", ErrorClass::SignallingLost),
                error("server_asked_resume", ErrorClass::MediaLost),
                error("refused", ErrorClass::NobodyListens),
            ],
            ledger: Some(LedgerFacts { packets_sent: 1_000, ..ledger }),
            ..Facts::default()
        };
        blame(&facts, one, Fault::Unknown)
    }

    #[test]
    fn an_sfu_without_time_left_is_named_where_that_explains_it() {
        let full = |full_s| LedgerFacts { full_s, ..LedgerFacts::default() };
        let disconnected = gap(Cause::Disconnected, Some("signal_lost"));
        for one in [gap(Cause::Late, None), gap(Cause::Silent, None), disconnected] {
            let (fault, said) = embedded(full(1.0), &one);
            assert_eq!(fault, Fault::Server, "{said}");
            assert!(
                said.ends_with("embedded SFU had no time left for 1.0 s (its ledger)"),
                "{said}"
            );
            assert_eq!(embedded(full(0.9), &one).0, Fault::Unknown, "{one:?}");
            assert_eq!(embedded(full(0.0), &one).0, Fault::Unknown, "{one:?}");
        }
        // Gaps shorter than an interruption.
        let missed = Missed { expected_s: 100.0, missed_s: 5.0 };
        let facts = |full_s| Facts {
            ledger: Some(full(full_s)),
            watch: WatchFacts {
                subscribers: 2,
                kinds: [missed, Missed::default()],
                short_gaps_s: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0],
                groups: Vec::new(),
            },
            ..Facts::default()
        };
        let stutters = |full_s| judge(&facts(full_s), Fault::Unknown).stutters.unwrap();
        assert_eq!(stutters(1.25).0, Fault::Server);
        assert_eq!(stutters(1.2).0, Fault::Unknown);
    }

    #[test]
    fn a_way_to_an_sfu_that_was_there_is_the_network_s_or_a_publisher_s() {
        let silent = |fell_silent| LedgerFacts { fell_silent, ..LedgerFacts::default() };
        for kind in ["signal_lost", "ping_timeout", "server_asked_resume"] {
            let (own, others) =
                (gap(Cause::Disconnected, Some(kind)), gap(Cause::PublisherGone, Some(kind)));
            let (fault, said) = embedded(silent(1), &own);
            assert_eq!(fault, Fault::Network, "{said}");
            assert!(said.contains("to it clients fell silent (1 times)"), "{said}");
            assert_eq!(embedded(silent(1), &others).0, Fault::Publisher);
            assert_eq!(embedded(silent(0), &own).0, Fault::Unknown);
            // It may have closed them itself.
            let slow = LedgerFacts { read_too_slowly: 1, ..silent(1) };
            assert_eq!(embedded(slow, &own).0, Fault::Unknown);
        }
        let sent = LedgerFacts { packets_sent: 1_011, ..LedgerFacts::default() };
        let facts = Facts { received: 1_000, ledger: Some(sent), ..Facts::default() };
        let lost = gap(Cause::Disconnected, None);
        assert_eq!(blame(&facts, &lost, Fault::Unknown).0, Fault::Network);
        let local = Facts { local: true, ..facts };
        assert_eq!(blame(&local, &lost, Fault::Unknown).0, Fault::Unknown);
    }

    #[test]
    fn a_server_at_whose_address_nobody_listens_any_more_is_named() {
        for cause in [Cause::Disconnected, Cause::PublisherGone] {
            let (fault, said) = embedded(LedgerFacts::default(), &gap(cause, Some("refused")));
            assert_eq!(fault, Fault::Server, "{said}");
        }
    }

    #[test]
    fn frames_that_came_late_are_put_down_to_who_lost_them_at_first() {
        let late = |facts: &Facts| blame(facts, &gap(Cause::Late, None), Fault::Unknown).0;
        let facts = Facts {
            missing: 100,
            repaired: 100,
            subscribers_joined: 4,
            ledger: Some(LedgerFacts { packets_sent: 1_000, ..LedgerFacts::default() }),
            ..Facts::default()
        };
        assert_eq!(late(&facts), Fault::Network);
        // Once at each subscriber.
        assert_eq!(late(&Facts { sent_again: 20, ..facts.clone() }), Fault::Publisher);
        assert_eq!(late(&Facts { sent_again: 10, ..facts.clone() }), Fault::Network);
        let dropped = LedgerFacts { dropped: 60, ..LedgerFacts::default() };
        assert_eq!(late(&Facts { ledger: Some(dropped), ..facts.clone() }), Fault::Server);
        // Without a ledger only what publishers know is proven.
        let foreign = Facts { ledger: None, sent_again: 25, ..facts.clone() };
        assert_eq!(late(&foreign), Fault::Publisher);
        assert_eq!(late(&Facts { sent_again: 22, ..foreign }), Fault::Unknown);
        // Overtaken, and never lost.
        assert_eq!(late(&Facts { reordered: 100, ..facts.clone() }), Fault::Unknown);
        // Sent again on the way up, so that they came in the wrong order.
        assert_eq!(late(&Facts { reordered: 100, sent_again: 25, ..facts }), Fault::Publisher);
    }
}
