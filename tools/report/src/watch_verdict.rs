//! What the verdict makes of watch time: nobody could watch is no pass, and who is to blame only as
//! far as it can be proved.

use stampede_core::watch::Cause;

use super::bounds::LOSS_RATE_MAX;
use super::errors::ErrorClass;
use super::facts::{CauseGroup, Facts, WatchFacts};
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
    /// Most of it lay in gaps shorter than an interruption, whose causes are not kept: what is known
    /// of lost packets says more.
    pub(super) stutters: Option<String>,
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
    let stutters =
        (failed && explained_s < missed_s / 2.0).then(|| format!("unknown: {}", stuttering(watch)));
    Blackout { failed, found, stutters }
}

/// This process stood still for long enough to explain what could not be watched: it says nothing
/// about the server.
pub(super) fn own_stall(facts: &Facts, blackout: &Blackout) -> Option<String> {
    let workers = facts.workers.iter().map(|worker| worker.stall_ms_max);
    let stall_ms = workers.fold(facts.publish_late_ms_max, f64::max);
    let [video, audio] = facts.watch.kinds;
    // Of each subscriber no more than the stall takes, and what it takes to come back.
    let missed_s = video.missed_s.max(audio.missed_s) / (facts.watch.subscribers.max(1) as f64);
    let explained = missed_s * 1_000.0 <= 2.0 * stall_ms;
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
    let reason = one.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    match one.cause {
        Cause::OnPurpose => (Fault::None, on_purpose(facts).to_owned()),
        Cause::NotJoined => {
            let fault = if facts.refused() { Fault::Server } else { Fault::Unknown };
            (fault, "they had not joined".to_owned())
        }
        Cause::Disconnected => disconnected(facts, one.reason.as_deref(), &reason),
        Cause::PublisherGone => {
            let fault = publisher_gone(facts, one.reason.as_deref().unwrap_or_default());
            (fault, format!("the publisher was gone without a word{reason}"))
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
        Cause::Late => (Fault::Unknown, "frames came too late to be shown".to_owned()),
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
fn publisher_gone(facts: &Facts, reason: &str) -> Fault {
    match reason {
        // It went silent, as far as the server can tell.
        "SIGNAL_CLOSE" | "CONNECTION_TIMEOUT" | "MEDIA_FAILURE" => Fault::Publisher,
        "SERVER_SHUTDOWN" | "MIGRATION" | "STATE_MISMATCH" => Fault::Server,
        kind => disconnected(facts, Some(kind), "").0,
    }
}

/// A connection ends by the word of the other side, or by none.
fn disconnected(facts: &Facts, kind: Option<&str>, reason: &str) -> (Fault, String) {
    let class = kind.map_or(ErrorClass::Other, |kind| facts.class_of(kind));
    let by_server = matches!(class, ErrorClass::EndedByServer | ErrorClass::Flooded);
    // Between us and a server on this machine there is nothing else that could cut it.
    let signalling = matches!(class, ErrorClass::SignallingLost | ErrorClass::Unanswered);
    if facts.local && class == ErrorClass::Unanswered {
        return (Fault::Server, format!("the server stopped answering them{reason}"));
    }
    if by_server || (facts.local && signalling) {
        return (Fault::Server, format!("the server closed every connection of theirs{reason}"));
    }
    if facts.embedded && facts.ledger.is_none() {
        return (Fault::Server, format!("their connections were lost{reason}: {SFU_SILENT}"));
    }
    (Fault::Unknown, format!("their connections were lost{reason}; server or network"))
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
    let arrived = facts.received + facts.rejected;
    if ledger.packets_sent as f64 > arrived as f64 * (1.0 + LOSS_RATE_MAX) {
        let text = format!(
            "{what}; the embedded SFU sent {} packets, and {} arrived",
            group(ledger.packets_sent),
            group(facts.received)
        );
        return (Fault::Network, text);
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
    use crate::facts::{LedgerFacts, OnPurposeFacts};
    use crate::types::Outcome;

    #[test]
    fn what_was_done_on_purpose_is_called_by_what_did_it() {
        let group = CauseGroup {
            video: true,
            cause: Cause::OnPurpose,
            reason: None,
            subscribers: 3,
            tracks: 3,
            of_tracks: 3,
            total_s: 6.0,
            length_s_p50: 2.0,
            from_s: 20.0,
            back_after_s: Some(2.5),
            not_back: 0,
        };
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
}
