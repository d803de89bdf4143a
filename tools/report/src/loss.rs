//! Who lost packets, and who made them late: whoever the counters prove it of.

use super::bounds::EXPLAINS;
use super::facts::{Facts, LedgerFacts};
use super::show::group;
use super::types::Fault;

/// What drops packets in this process, which is nobody's fault.
pub(super) fn on_purpose_by(facts: &Facts) -> &'static str {
    match (facts.impaired, facts.on_purpose.hit_media > 0) {
        (true, true) => "on purpose (--impair or a cohort's impair, and --fault)",
        (false, true) => "on purpose (--fault)",
        (_, false) => "on purpose (--impair, or a cohort's impair)",
    }
}

/// Packets that were dropped here: nobody's fault.
pub(super) fn dropped_on_purpose(facts: &Facts) -> u64 {
    facts.injected.map_or(0, |injected| injected.dropped)
}

/// Packets that were lost by what was done here, at most: what was dropped, and what of our
/// publishers' did not leave, which each subscriber lacks that lost any.
pub(super) fn lost_on_purpose(facts: &Facts) -> u64 {
    let unsent = facts.on_purpose.unsent.saturating_mul(facts.subscribers_lossy);
    dropped_on_purpose(facts).saturating_add(unsent)
}

/// What was lost by what was done here, in words.
pub(super) fn dropped_in_words(facts: &Facts) -> String {
    let mut parts = Vec::new();
    let dropped = dropped_on_purpose(facts);
    if dropped > 0 {
        parts.push(format!("{} packets were dropped {}", group(dropped), on_purpose_by(facts)));
    }
    let unsent = facts.on_purpose.unsent;
    if unsent > 0 {
        let what = "datagrams of our publishers did not leave, on purpose (--fault)";
        parts.push(format!("{} {what}", group(unsent)));
    }
    parts.join("; ")
}

/// Who lost packets for good. Where participants' media connections were broken on purpose, what was
/// on its way then did not arrive either, and nobody counts how much that was.
pub(super) fn loss(facts: &Facts) -> (Fault, String) {
    let (fault, reason) = loss_as_counted(facts);
    let hit = facts.on_purpose.hit_media;
    if hit == 0 || !matches!(fault, Fault::Network | Fault::Publisher) {
        return (fault, reason);
    }
    let reason = format!(
        "unknown: the media connections of participants were broken on purpose (--fault) {} times, \
         which may lose what is on its way; else {reason}",
        group(hit)
    );
    (Fault::Unknown, reason)
}

fn loss_as_counted(facts: &Facts) -> (Fault, String) {
    let mut what = format!(
        "{} of {} packets were lost for good at {} ({} were missing at first, {} repaired)",
        group(facts.unrecovered),
        group(facts.expected),
        subscribers(facts.subscribers_lossy),
        group(facts.missing),
        group(facts.repaired)
    );
    let on_purpose = lost_on_purpose(facts);
    if on_purpose > 0 {
        let reason = format!("{what}; {}", dropped_in_words(facts));
        if on_purpose as f64 >= EXPLAINS * lost_at_first(facts) as f64 {
            return (Fault::None, reason);
        }
        what = reason;
    }
    if let Some(ledger) = facts.ledger {
        return loss_by_ledger(facts, ledger, &what);
    }
    if facts.upstream_lost > 0 {
        let upstream = format!(
            "the server's receiver reports say that {} packets were lost on the way up",
            group(facts.upstream_lost)
        );
        if lost_upstream(facts) as f64 >= EXPLAINS * not_on_purpose(facts).unrecovered as f64 {
            return (Fault::Publisher, format!("publisher: {what}; {upstream}"));
        }
        what = format!("{what}; {upstream}, which explains only a part");
    }
    // Sender reports know nothing of what we dropped ourselves.
    if on_purpose == 0
        && let Some((fault, proof)) = facts.senders.proof(facts.missing)
        // A server can't send what it never got.
        && (fault != Fault::Server || upstream_is_known(facts))
    {
        let whose = if fault == Fault::Server { "server" } else { "network" };
        return (fault, format!("{whose}: {what}; {proof}; {}", alibi(facts)));
    }
    let reason = format!(
        "unknown: {what}; {}, so server or network; {}",
        alibi(facts),
        facts.senders.wanting()
    );
    (Fault::Unknown, reason)
}

/// The server's receiver reports cover what was published, but for a little at the end.
fn upstream_is_known(facts: &Facts) -> bool {
    facts.published > 0 && facts.upstream_reported as f64 >= EXPLAINS * facts.published as f64
}

/// Packets lost in first transmission: what was only overtaken is missing, and was never lost. What
/// was held back on purpose may have been repaired before it came, and is a duplicate then.
fn lost_at_first(facts: &Facts) -> u64 {
    let held_back = facts.injected.map_or(0, |injected| injected.reordered)
        + facts.ledger.map_or(0, |ledger| ledger.reordered);
    facts.missing.saturating_sub(facts.reordered.max(held_back))
}

/// Packets of which the first transmission was lost somewhere: on the way behind the server, or on the
/// way up to it, where what publishers send again comes late to subscribers as if it had been overtaken.
fn not_there_at_first(facts: &Facts) -> u64 {
    let sent_again = facts.sent_again.saturating_mul(facts.subscribers_joined);
    let overtaken = facts.missing - lost_at_first(facts);
    let on_purpose = lost_on_purpose(facts);
    (facts.missing - overtaken.saturating_sub(sent_again)).saturating_sub(on_purpose)
}

/// Loss that was not done here.
struct NotOnPurpose {
    lost_at_first: u64,
    unrecovered: u64,
}

fn not_on_purpose(facts: &Facts) -> NotOnPurpose {
    let on_purpose = lost_on_purpose(facts);
    NotOnPurpose {
        lost_at_first: lost_at_first(facts).saturating_sub(on_purpose),
        unrecovered: facts.unrecovered.saturating_sub(on_purpose),
    }
}

/// Packets lost for good that losses upstream can explain: each is one at every subscriber that
/// lost any; those that came late by retransmission are repaired there too.
fn lost_upstream(facts: &Facts) -> u64 {
    let upstream = facts.upstream_lost.max(facts.ledger.map_or(0, |ledger| ledger.upstream_lost));
    upstream.saturating_mul(facts.subscribers_lossy)
}

/// Shares of what was lost, by who lost it: the SFU, publishers' ways to it, the ways behind it.
#[derive(Debug, Clone, Copy)]
struct Parts {
    inside: f64,
    above: f64,
    behind: f64,
}

impl Parts {
    fn new(inside: f64, above: f64) -> Self {
        Self { inside, above, behind: 1.0 - inside - above }
    }

    /// This part of it, and of `other` the rest.
    fn mixed(self, share: f64, other: Self) -> Self {
        let mix = |own: f64, other: f64| own * share + other * (1.0 - share);
        Self::new(mix(self.inside, other.inside), mix(self.above, other.above))
    }

    /// Whose is the largest, its name and its share; of equals the first.
    fn largest(self) -> (Fault, &'static str, f64) {
        let suspects = [
            (Fault::Server, "server", self.inside),
            (Fault::Publisher, "publisher", self.above),
            (Fault::Network, "network", self.behind),
        ];
        let most = self.inside.max(self.above).max(self.behind);
        suspects.into_iter().find(|(.., part)| *part >= most).unwrap_or(suspects[2])
    }
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// Of packets that never came.
fn never_came(facts: &Facts, ledger: LedgerFacts) -> Parts {
    let lost = not_on_purpose(facts);
    // What the SFU had no room for when it came is lost upstream like what never came.
    let upstream = facts.upstream_lost.max(ledger.upstream_lost);
    let at_its_door = upstream.min(ledger.receive_drops);
    let each = |packets: u64| packets.saturating_mul(facts.subscribers_lossy).min(lost.unrecovered);
    // The SFU drops first transmissions. What was lost upstream for good is set against what is
    // lost for good: the rest came up late, and so was missing at first and repaired.
    let inside = share(lost_in_sending(ledger), lost.lost_at_first);
    Parts::new(
        inside + share(each(at_its_door), lost.unrecovered),
        share(each(upstream - at_its_door), lost.unrecovered),
    )
}

/// Of packets that were not there in time, and came: whose first transmission was lost, and where.
fn came_late(facts: &Facts, ledger: LedgerFacts) -> Parts {
    let lost = not_there_at_first(facts);
    let upstream = facts.sent_again + facts.upstream_lost.max(ledger.upstream_lost);
    let at_its_door = upstream.min(ledger.receive_drops);
    let each = |packets: u64| packets.saturating_mul(facts.subscribers_joined).min(lost);
    let inside = share(lost_in_sending(ledger), lost) + share(each(at_its_door), lost);
    Parts::new(inside, share(each(upstream - at_its_door), lost))
}

/// First transmissions that the SFU did not get as far as its kernel, or that did not take them.
fn lost_in_sending(ledger: LedgerFacts) -> u64 {
    ledger.dropped + ledger.lost_inside.saturating_sub(ledger.receive_drops)
}

/// Whose fault it is that frames came late, where packets of them were lost at first: that is why.
pub(super) fn late(facts: &Facts) -> Option<(Fault, String)> {
    let lost = not_there_at_first(facts);
    if lost == 0 {
        return None;
    }
    let what = format!("{} packets were lost at first", group(lost));
    if let Some(ledger) = facts.ledger {
        return Some((came_late(facts, ledger).largest().0, what));
    }
    let upstream =
        (facts.sent_again + facts.upstream_lost).saturating_mul(facts.subscribers_joined);
    (upstream as f64 >= EXPLAINS * lost as f64).then(|| {
        let again = group(facts.sent_again);
        (Fault::Publisher, format!("{what}; the server had to ask publishers again for {again}"))
    })
}

/// Who lost packets for good, with the embedded SFU's own account of what it sent: whoever lost
/// the largest part.
fn loss_by_ledger(facts: &Facts, ledger: LedgerFacts, what: &str) -> (Fault, String) {
    let upstream = facts.upstream_lost.max(ledger.upstream_lost);
    let late = share(facts.late.min(facts.unrecovered), facts.unrecovered);
    let lost = came_late(facts, ledger).mixed(late, never_came(facts, ledger));
    let mut parts = Vec::new();
    if ledger.dropped > 0 {
        parts.push(format!(
            "the embedded SFU dropped {} packets and {} retransmissions on purpose (its ledger)",
            group(ledger.dropped),
            group(ledger.retransmits_dropped)
        ));
    }
    if ledger.lost_inside > 0 {
        parts.push(format!(
            "the embedded SFU itself lost {} packets (send errors, full queues; its ledger)",
            group(ledger.lost_inside)
        ));
    }
    if facts.late > 0 {
        parts.push(format!("{} of them came after the deadline", group(facts.late)));
    }
    if upstream > 0 && facts.subscribers_lossy > 0 {
        parts.push(format!(
            "the server's receiver reports say that {} packets were lost on the way up ({} never \
             reached the embedded SFU)",
            group(facts.upstream_lost),
            group(ledger.upstream_lost)
        ));
    }
    parts.push(format!(
        "the embedded SFU handed {} to its kernel (its ledger)",
        group(ledger.packets_sent)
    ));
    let (fault, whose, explained) = lost.largest();
    let mainly = if explained < EXPLAINS { ", mainly" } else { "" };
    (fault, format!("{whose}{mainly}: {what}; {}; {}", parts.join("; "), alibi(facts)))
}

fn subscribers(count: u64) -> String {
    match count {
        1 => "1 subscriber".to_owned(),
        count => format!("{} subscribers", group(count)),
    }
}

/// Why it was not us.
fn alibi(facts: &Facts) -> String {
    let drops = match facts.kernel_drops {
        0 => "none".to_owned(),
        drops => format!("{} of {}", kernel_drops(facts), group(facts.datagrams_in + drops)),
    };
    let busiest = facts.workers.iter().map(|worker| worker.busy_ratio).reduce(f64::max);
    let busiest = busiest.map_or(String::new(), |ratio| {
        format!(", our workers were busy {:.0} % at most", ratio * 100.0)
    });
    format!("our kernel dropped {drops}{busiest}")
}

pub(super) fn kernel_drops(facts: &Facts) -> String {
    let about = if facts.drops_estimated { "about " } else { "" };
    format!("{about}{}", group(facts.kernel_drops))
}
