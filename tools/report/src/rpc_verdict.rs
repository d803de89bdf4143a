//! What calls between participants say of a run (docs/measurement.md, "RPC").

use super::bounds::EXPLAINS;
use super::data_verdict::Judged;
use super::facts::{Facts, RpcFacts};
use super::show::group;
use super::types::Fault;

/// Share of the calls that connections broken on purpose may lose.
const EXCUSED_BY_FAULTS: f64 = 0.1;

pub(crate) fn judge(facts: &Facts) -> Judged {
    let mut judged = Judged::default();
    let Some(rpc) = &facts.rpc else { return judged };
    let counted = &rpc.counted;
    // What an interrupted run had no time for is not missed.
    if counted.called == 0 && !facts.interrupted {
        let why = match counted.not_called {
            0 => {
                "the server told of nobody whom they were to call, or no channel opened".to_owned()
            }
            due => format!("{} calls were due and not made", group(due)),
        };
        judged.failed = true;
        judged.found.push((Fault::Unknown, format!("unknown: our callers called nobody: {why}")));
    }
    if counted.failed() > 0 {
        judged.failed |= !is_excused(facts, rpc);
        judged.found.push(failures(facts, rpc));
    }
    judged
}

/// Whether what was broken on purpose explains it: what was on its way between those whom it hit,
/// never a large part.
fn is_excused(facts: &Facts, rpc: &RpcFacts) -> bool {
    let few = rpc.counted.failure_rate().is_none_or(|failed| failed <= EXCUSED_BY_FAULTS);
    facts.on_purpose.hit_media > 0 && few
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
    let what = format!("{failed} of {} calls failed: {parts}", group(known));
    if is_excused(facts, rpc) {
        let reason = format!(
            "unknown: {what}; the connections of participants were broken on purpose (--fault) {} \
             times, which may lose what is on its way",
            group(facts.on_purpose.hit_media)
        );
        return (Fault::Unknown, reason);
    }
    let silent = counted.ack_timeouts + counted.response_timeouts;
    let dropped = rpc.ledger.map(|ledger| ledger.withheld + ledger.unsent + ledger.dropped);
    if let Some(dropped) = dropped.filter(|dropped| silent > 0 && *dropped > 0)
        && dropped as f64 >= EXPLAINS * silent as f64
    {
        let dropped = group(dropped);
        let reason = format!("server: {what}; the embedded SFU did not pass on {dropped} messages");
        return (Fault::Server, reason);
    }
    (Fault::Unknown, format!("unknown: {what}; who was called, or the server, dropped them"))
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
        // Broken on purpose: a few, never most.
        let on_purpose = OnPurposeFacts { hit_media: 2, ..OnPurposeFacts::default() };
        let judged = judge(&Facts { on_purpose, ..facts(lost, None) });
        assert!(!judged.failed && judged.found[0].1.contains("on purpose"));
        let most = RpcCounters { answered: 20, response_timeouts: 77, ..good };
        let on_purpose = OnPurposeFacts { hit_media: 2, ..OnPurposeFacts::default() };
        assert!(judge(&Facts { on_purpose, ..facts(most, None) }).failed);
    }

    #[test]
    fn nobody_called_is_no_pass() {
        let judged = judge(&facts(RpcCounters::default(), None));
        assert!(judged.failed && judged.found[0].1.contains("told of nobody"));
        let due = RpcCounters { not_called: 9, ..RpcCounters::default() };
        assert!(judge(&facts(due, None)).found[0].1.contains("9 calls were due"));
        let interrupted = Facts { interrupted: true, ..facts(due, None) };
        assert!(!judge(&interrupted).failed);
    }
}
