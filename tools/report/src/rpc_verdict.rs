//! What calls between participants say of a run (docs/measurement.md, "RPC").

use super::bounds::EXPLAINS;
use super::data_verdict::Judged;
use super::facts::{Facts, RpcFacts};
use super::show::group;
use super::types::Fault;
use stampede_counters::{RpcCounters, RpcErrorCounters};

/// Share of the calls that connections broken on purpose may lose.
const EXCUSED_BY_FAULTS: f64 = 0.1;
/// The SFU's ledger is of all data. Where there is more of it than calls, it is taken for an account
/// of them while it has no more than so many dropped messages for each call without an answer.
const MESSAGES_A_CALL: u64 = 10;

pub(crate) fn judge(facts: &Facts) -> Judged {
    let mut judged = Judged::default();
    let Some(rpc) = &facts.rpc else { return judged };
    let counted = &rpc.counted;
    let not_called = group(counted.not_called);
    // What an interrupted run had no time for is not missed.
    if counted.called == 0 && !facts.interrupted {
        let why = match counted.not_called {
            0 => "no connection of theirs stood for long enough".to_owned(),
            _ => format!(
                "{not_called} calls were due and not made: the server told of nobody whom they were \
                 to call, or no channel opened"
            ),
        };
        judged.failed = true;
        judged.found.push((Fault::Unknown, format!("unknown: our callers called nobody: {why}")));
    }
    let known = counted.answered + counted.failed();
    if counted.called > 0 && known == 0 && !facts.interrupted {
        judged.failed = true;
        let reason = format!(
            "unknown: none of {} calls was answered before who called or was called left",
            group(counted.called)
        );
        judged.found.push((Fault::Unknown, reason));
    }
    if counted.failed() > 0 {
        judged.failed |= !is_excused(facts, counted);
        judged.found.push(failures(facts, rpc));
    }
    // Of least weight: it is no failure of a call.
    if counted.not_called > 0 && (counted.called > 0 || facts.interrupted) {
        let reason = format!(
            "unknown: {not_called} calls were due and not made: nobody was there to be called, the \
             channel was not open or full, the connection was lost, or too many calls were open"
        );
        judged.found.push((Fault::Unknown, reason));
    }
    judged
}

/// Errors that who was called gave as its answer: all but ours for a request of which a part was
/// missing.
fn said(errors: &RpcErrorCounters) -> u64 {
    errors.sum() - errors.application_error
}

/// Calls of which something did not come through.
fn silent(counted: &RpcCounters) -> u64 {
    counted.failed() - said(&counted.errors)
}

/// Whether what was broken on purpose explains it: what was on its way between those whom it hit,
/// never a large part, and no answer that came and is an error.
fn is_excused(facts: &Facts, counted: &RpcCounters) -> bool {
    let known = counted.answered + counted.failed();
    let of_known = || counted.failed() as f64 / known.max(1) as f64;
    let few = counted.failure_rate().unwrap_or_else(of_known) <= EXCUSED_BY_FAULTS;
    facts.on_purpose.hit_media > 0 && few && said(&counted.errors) == 0
}

/// `2 unsupported method (1400), …`.
fn by_code(errors: &RpcErrorCounters) -> String {
    let parts = [
        (errors.unsupported_method, "unsupported method (1400)"),
        (errors.request_too_large, "request too large (1402)"),
        (errors.unsupported_version, "unsupported version (1404)"),
        (errors.application_error, "application error (1500)"),
        (errors.response_too_large, "response too large (1504)"),
        (errors.other_error, "of other codes"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, what)| format!("{} {what}", group(count))).collect::<Vec<_>>().join(", ")
}

/// Why calls failed.
fn failures(facts: &Facts, rpc: &RpcFacts) -> (Fault, String) {
    let counted = &rpc.counted;
    let mut parts = Vec::new();
    for (count, what) in [
        (counted.ack_timeouts, "not acknowledged"),
        (counted.response_timeouts, "not answered in time"),
        (counted.errors.sum(), "answered with an error"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", group(count)));
        }
    }
    let known = counted.answered + counted.failed();
    let (failed, parts) = (group(counted.failed()), parts.join(", "));
    let mut what = format!("{failed} of {} calls failed: {parts}", group(known));
    if counted.errors.sum() > 0 {
        what += &format!(": {}", by_code(&counted.errors));
    }
    if is_excused(facts, counted) {
        let reason = format!(
            "unknown: {what}; the connections of participants were broken on purpose (--fault) {} \
             times, which may lose what is on its way",
            group(facts.on_purpose.hit_media)
        );
        return (Fault::Unknown, reason);
    }
    let silent = silent(counted);
    if silent == 0 {
        let whose = match counted.errors.request_too_large == counted.failed() {
            // A client of protocol 0 is not even asked.
            true => "the payload is too long for who was called",
            false => "who was called said so",
        };
        return (Fault::Unknown, format!("unknown: {what}; {whose}"));
    }
    let explains = |count: u64| count > 0 && count as f64 >= EXPLAINS * silent as f64;
    let own = counted.unanswered + counted.dropped;
    if explains(own) {
        let own = group(own);
        let reason = format!(
            "generator: {what}; our own participants dropped {own} requests or answers, for which \
             they had no room"
        );
        return (Fault::Generator, reason);
    }
    let dropped = rpc.ledger.map_or(0, |ledger| ledger.withheld + ledger.unsent + ledger.dropped);
    let of_calls = facts.data.is_none() || dropped <= MESSAGES_A_CALL.saturating_mul(silent);
    if explains(dropped) && of_calls {
        let dropped = group(dropped);
        let reason = format!("server: {what}; the embedded SFU did not pass on {dropped} messages");
        return (Fault::Server, reason);
    }
    let own = match own {
        0 => String::new(),
        own => format!("; our own participants dropped {} requests or answers", group(own)),
    };
    (Fault::Unknown, format!("unknown: {what}{own}; who was called, or the server, dropped them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{DataLedgerFacts, OnPurposeFacts};
    use stampede_counters::RpcCounters;

    fn facts(counted: RpcCounters, ledger: Option<DataLedgerFacts>) -> Facts {
        Facts { rpc: Some(RpcFacts { counted, ledger }), ..Facts::default() }
    }

    #[test]
    fn calls_without_an_answer_are_no_pass() {
        assert_eq!(judge(&Facts::default()), Judged::default());
        let good = RpcCounters { called: 100, answered: 97, cut_off: 3, ..RpcCounters::default() };
        assert_eq!(judge(&facts(good, None)), Judged::default());
        let cut = RpcCounters { called: 30, cut_off: 30, ..RpcCounters::default() };
        let judged = judge(&facts(cut, None));
        assert!(judged.failed && judged.found[0].1.contains("none of 30 calls"), "{judged:?}");
        assert!(!judge(&Facts { interrupted: true, ..facts(cut, None) }).failed);
        let lost = RpcCounters { answered: 95, ack_timeouts: 2, ..good };
        let judged = judge(&facts(lost, None));
        assert!(judged.failed);
        let (fault, reason) = &judged.found[0];
        assert_eq!(*fault, Fault::Unknown);
        assert!(reason.contains("2 of 97 calls failed: 2 not acknowledged"), "{reason}");
        let ledger = DataLedgerFacts { withheld: 2, ..DataLedgerFacts::default() };
        let judged = judge(&facts(lost, Some(ledger)));
        assert!(judged.failed && judged.found[0].0 == Fault::Server);
        let mut refused = good;
        refused.errors.unsupported_method = 1;
        let judged = judge(&facts(refused, Some(ledger)));
        assert!(judged.failed && judged.found[0].0 == Fault::Unknown);
        let reason = &judged.found[0].1;
        assert!(reason.contains("1 answered with an error: 1 unsupported method (1400)"));
        assert!(reason.ends_with("who was called said so"), "{reason}");
        let on_purpose = OnPurposeFacts { hit_media: 2, ..OnPurposeFacts::default() };
        assert!(judge(&Facts { on_purpose, ..facts(refused, None) }).failed, "no fault says so");
        // A request of which a part was lost.
        let mut broken = good;
        broken.errors.application_error = 2;
        assert_eq!(judge(&facts(broken, Some(ledger))).found[0].0, Fault::Server);
        let on_purpose = OnPurposeFacts { hit_media: 2, ..OnPurposeFacts::default() };
        assert!(!judge(&Facts { on_purpose, ..facts(broken, None) }).failed);
        // Broken on purpose: a few, never most.
        let on_purpose = OnPurposeFacts { hit_media: 2, ..OnPurposeFacts::default() };
        let judged = judge(&Facts { on_purpose, ..facts(lost, None) });
        assert!(!judged.failed && judged.found[0].1.contains("on purpose"));
        let most = RpcCounters { answered: 20, response_timeouts: 77, ..good };
        let on_purpose = OnPurposeFacts { hit_media: 2, ..OnPurposeFacts::default() };
        assert!(judge(&Facts { on_purpose, ..facts(most, None) }).failed);
    }

    #[test]
    fn what_we_dropped_ourselves_is_ours_and_what_other_data_lost_is_nobodys() {
        let lost = RpcCounters {
            called: 100,
            answered: 98,
            response_timeouts: 2,
            unanswered: 2,
            ..RpcCounters::default()
        };
        let ledger = Some(DataLedgerFacts { withheld: 2_000, ..DataLedgerFacts::default() });
        let judged = judge(&facts(lost, ledger));
        assert!(judged.failed && judged.found[0].0 == Fault::Generator);
        let lost = RpcCounters { unanswered: 0, ..lost };
        assert_eq!(judge(&facts(lost, ledger)).found[0].0, Fault::Server);
        let with_data =
            Facts { data: Some(crate::facts::DataFacts::default()), ..facts(lost, ledger) };
        assert!(judge(&with_data).failed);
        assert_eq!(judge(&with_data).found[0].0, Fault::Unknown);
        let ledger = Some(DataLedgerFacts { withheld: 20, ..DataLedgerFacts::default() });
        let with_data =
            Facts { data: Some(crate::facts::DataFacts::default()), ..facts(lost, ledger) };
        assert_eq!(judge(&with_data).found[0].0, Fault::Server);
    }

    #[test]
    fn nobody_called_is_no_pass() {
        let judged = judge(&facts(RpcCounters::default(), None));
        assert!(judged.failed && judged.found[0].1.contains("no connection"));
        // Some that were not made are told.
        let some =
            RpcCounters { called: 90, answered: 90, not_called: 4, ..RpcCounters::default() };
        let judged = judge(&facts(some, None));
        assert!(!judged.failed && judged.found[0].1.contains("4 calls were due and not made"));
        let due = RpcCounters { not_called: 9, ..RpcCounters::default() };
        assert!(judge(&facts(due, None)).found[0].1.contains("9 calls were due"));
        let interrupted = Facts { interrupted: true, ..facts(due, None) };
        assert!(!judge(&interrupted).failed);
    }
}
