//! What data messages say of a run (docs/measurement.md, "Data").

use super::bounds::EXPLAINS;
use super::facts::{DataFacts, Facts};
use super::show::group;
use super::types::Fault;
use stampede_counters::MessageCounters;

/// Share of the messages that connections broken on purpose may lose.
const EXCUSED_BY_FAULTS: f64 = 0.1;

/// What is wrong with data, and whether the run fails by it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Judged {
    pub(crate) failed: bool,
    pub(crate) found: Vec<(Fault, String)>,
}

pub(crate) fn judge(facts: &Facts) -> Judged {
    let mut judged = Judged::default();
    let Some(data) = &facts.data else { return judged };
    let kinds = data.counted.named();
    // What an interrupted run had no time for is not missed.
    let silent = |kinds: &[(&str, &MessageCounters)]| {
        !facts.interrupted && kinds.iter().all(|(_, counted)| counted.sent == 0)
    };
    if silent(&kinds) {
        let not_sent: u64 = kinds.iter().map(|(_, counted)| counted.not_sent).sum();
        let why = match not_sent {
            0 => "no data channel of theirs opened".to_owned(),
            _ => format!("{} messages were due and not sent", group(not_sent)),
        };
        let reason = format!("unknown: our data publishers sent nothing: {why}");
        judged.failed = true;
        judged.found.push((Fault::Unknown, reason));
    } else if data.counted.track.not_sent > 0 && silent(&[("track", &data.counted.track)]) {
        let reason = format!(
            "unknown: no frame of a data track was sent, and {} were due: the server took no data \
             track, or their channel did not open",
            group(data.counted.track.not_sent)
        );
        judged.failed = true;
        judged.found.push((Fault::Unknown, reason));
    }
    for (name, counted) in kinds {
        let none = counted.received + counted.expected + counted.unexpected == 0;
        if counted.sent > 0 && none && data.receivers > 0 && !facts.interrupted {
            judged.failed = true;
            let reason = format!(
                "unknown: of {} {name} data messages none came to anybody, and none was expected: \
                 no data channel of a receiver opened",
                group(counted.sent)
            );
            judged.found.push((Fault::Unknown, reason));
        }
        if counted.lost > 0 {
            // Some may be lost of what may be lost, never all.
            judged.failed |= counted.received == 0 && counted.decided > 0;
            judged.failed |= name == "reliable" && !is_excused(facts, counted);
            judged.found.push(loss(facts, data, name, counted));
        }
    }
    judged
}

/// Whether what was broken on purpose explains the loss: what was on its way between those whom it
/// hit, never a large part.
fn is_excused(facts: &Facts, counted: &MessageCounters) -> bool {
    let hit = facts.on_purpose.hit_media > 0;
    hit && counted.loss_rate().is_none_or(|lost| lost <= EXCUSED_BY_FAULTS)
}

/// Who lost messages of this kind.
fn loss(facts: &Facts, data: &DataFacts, name: &str, counted: &MessageCounters) -> (Fault, String) {
    let what = format!(
        "{} of {} {name} data messages never came",
        group(counted.lost),
        group(counted.decided)
    );
    if is_excused(facts, counted) {
        let reason = format!(
            "unknown: {what}; the connections of participants were broken on purpose (--fault) {} \
             times, which may lose what is on its way",
            group(facts.on_purpose.hit_media)
        );
        return (Fault::Unknown, reason);
    }
    let Some(ledger) = data.ledger else {
        let why = match name {
            "reliable" => {
                "a channel whose connection stands loses nothing: the server dropped them"
            }
            _ => "lost on their way, or dropped by the server",
        };
        return (Fault::Unknown, format!("unknown: {what}; {why}"));
    };
    let mut parts = Vec::new();
    for (count, what) in [
        (ledger.withheld, "dropped on purpose"),
        (ledger.unsent, "not sent, as the channels were not open or full"),
        (ledger.dropped, "dropped inside, for too many waited"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", group(count)));
        }
    }
    // Its counts are of all kinds, and of a frame's packets one by one.
    let dropped = ledger.withheld + ledger.unsent + ledger.dropped;
    let lost: u64 = data.counted.named().iter().map(|(_, of)| of.lost).sum();
    // What is dropped inside is dropped for everybody it was for, and counted once.
    if ledger.dropped > 0 || dropped as f64 >= EXPLAINS * lost as f64 {
        let reason = format!("server: {what}; the embedded SFU's ledger: {}", parts.join(", "));
        return (Fault::Server, reason);
    }
    let own = match parts.is_empty() {
        true => "dropped none".to_owned(),
        false => format!("has {}, which explains only a part", parts.join(", ")),
    };
    let may_lose = name != "reliable";
    let (whose, word) =
        if may_lose { (Fault::Network, "network") } else { (Fault::Unknown, "unknown") };
    (whose, format!("{word}: {what}; the embedded SFU {own} (its ledger)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{DataLedgerFacts, OnPurposeFacts};
    use stampede_counters::DataCounters;

    fn facts(reliable_lost: u64, lossy_lost: u64, ledger: Option<DataLedgerFacts>) -> Facts {
        let messages = |lost| MessageCounters {
            sent: 100,
            expected: 1_100,
            decided: 1_000,
            received: 1_100 - lost,
            lost,
            ..MessageCounters::default()
        };
        let (reliable, lossy) = (messages(reliable_lost), messages(lossy_lost));
        let counted = DataCounters { reliable, lossy, ..DataCounters::default() };
        Facts { data: Some(DataFacts { counted, receivers: 10, ledger }), ..Facts::default() }
    }

    #[test]
    fn reliable_messages_that_are_lost_are_no_pass_and_lossy_ones_are_told() {
        assert_eq!(judge(&facts(0, 0, None)), Judged::default());
        assert_eq!(judge(&Facts::default()), Judged::default());
        let judged = judge(&facts(3, 0, None));
        assert!(judged.failed);
        let (fault, reason) = &judged.found[0];
        assert_eq!(*fault, Fault::Unknown);
        assert!(reason.contains("3 of 1,000 reliable data messages never came"), "{reason}");
        let judged = judge(&facts(0, 30, None));
        assert!(!judged.failed && judged.found.len() == 1);
        // What may be lost may not all be lost.
        let mut all = facts(0, 1_100, None);
        assert!(judge(&all).failed);
        all.on_purpose = OnPurposeFacts { hit_media: 2, ..OnPurposeFacts::default() };
        assert!(judge(&all).failed);
        // Broken on purpose.
        let on_purpose = OnPurposeFacts { hit_media: 2, ..OnPurposeFacts::default() };
        let judged = judge(&Facts { on_purpose, ..facts(3, 0, None) });
        assert!(!judged.failed && judged.found[0].1.contains("on purpose"));
    }

    #[test]
    fn the_embedded_sfus_own_account_says_who() {
        let ledger = DataLedgerFacts { withheld: 30, ..DataLedgerFacts::default() };
        let judged = judge(&facts(12, 18, Some(ledger)));
        assert!(judged.failed);
        assert!(judged.found.iter().all(|(fault, _)| *fault == Fault::Server));
        assert!(judged.found[0].1.contains("30 dropped on purpose"), "{judged:?}");
        let judged = judge(&facts(0, 18, Some(DataLedgerFacts::default())));
        assert_eq!(judged.found[0].0, Fault::Network);
        assert!(judged.found[0].1.contains("the embedded SFU dropped none"));
    }

    #[test]
    fn nothing_sent_and_nothing_expected_are_no_pass() {
        let silent = |sent, not_sent| {
            let reliable = MessageCounters { sent, not_sent, ..MessageCounters::default() };
            let counted = DataCounters { reliable, ..DataCounters::default() };
            let data = Some(DataFacts { counted, receivers: 3, ledger: None });
            judge(&Facts { data, ..Facts::default() })
        };
        assert!(silent(0, 0).failed && silent(0, 0).found[0].1.contains("no data channel"));
        assert!(silent(0, 7).found[0].1.contains("7 messages were due"));
        assert!(silent(5, 0).failed && silent(5, 0).found[0].1.contains("of 5 reliable"));
    }
}
