//! What the server's own sender reports prove about missing packets.
//!
//! A sender report (RFC 3550 §6.4.1) says how many packets of a stream were sent so far. Between
//! two of them the sequence numbers we passed over and the packets the server says it sent can be
//! set against each other: if it sent as many, what is missing was lost behind it; if it sent
//! fewer, it never sent the rest. Whether padding is in the count is the sender's own business, so
//! each claim is made only where it holds either way, and only beyond what may be under way when a
//! report arrives.

use stampede_core::{SenderWindow, StreamReport};

use super::bounds::EXPLAINS;
use super::show::group;
use super::types::Fault;

/// Packets that may have been sent or received between the count and the report's arrival.
const UNDER_WAY_PACKETS: u64 = 5;
/// How much of all missing packets must lie between sender reports for them to tell anything.
const COVERED_MIN: f64 = 0.5;

/// Sums over streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderFacts {
    /// Received streams.
    pub streams: u64,
    /// Of them with two sender reports in the measured window.
    pub covered: u64,
    /// Packets those reports say were sent.
    pub sent: u64,
    /// Packets missing between them.
    pub missing: u64,
    /// Of these certainly never sent.
    pub never_sent: u64,
    /// Of these certainly sent.
    pub lost_behind: u64,
}

impl SenderFacts {
    /// Of these streams.
    pub fn of<'a>(streams: impl Iterator<Item = &'a StreamReport>) -> Self {
        let mut sum = Self::default();
        for stream in streams.filter(|stream| stream.packets.received > 0) {
            sum.streams += 1;
            if let Some(window) = &stream.sender_window {
                sum.add(window);
            }
        }
        sum
    }

    fn add(&mut self, window: &SenderWindow) {
        self.covered += 1;
        self.sent += window.sent;
        self.missing += window.missing;
        // More sent than sequence numbers: retransmissions are in the count, which then says
        // nothing about first ones.
        if window.sent > window.span + UNDER_WAY_PACKETS {
            return;
        }
        let unsent_max = window.span.saturating_sub(window.sent) + UNDER_WAY_PACKETS;
        let unsent_min = (window.span.saturating_sub(window.padding_only))
            .saturating_sub(window.sent + UNDER_WAY_PACKETS);
        self.never_sent += unsent_min.min(window.missing);
        self.lost_behind += window.missing.saturating_sub(unsent_max);
    }

    /// Whose fault, if the reports prove one; `missing` is of the whole window.
    pub fn proof(&self, missing: u64) -> Option<(Fault, String)> {
        if self.covered == 0 || (self.missing as f64) < COVERED_MIN * missing as f64 {
            return None;
        }
        let explains = |count: u64| count > 0 && count as f64 >= EXPLAINS * self.missing as f64;
        let reports = format!(
            "sender reports on {} of {} streams cover {} of the missing packets",
            group(self.covered),
            group(self.streams),
            group(self.missing)
        );
        if explains(self.never_sent) {
            let never = group(self.never_sent);
            let reason = format!("the server's {reports} and say that it never sent {never}");
            return Some((Fault::Server, reason));
        }
        if explains(self.lost_behind) {
            let sent = group(self.lost_behind);
            let reason = format!("the server's {reports} and say that it sent at least {sent}");
            return Some((Fault::Network, reason));
        }
        None
    }

    /// What would have to be known, where nothing is proven.
    pub fn wanting(&self) -> String {
        if self.covered == 0 {
            return "two sender reports of the server in the measured window, or its own count of \
                    packets sent, would tell which (a longer --duration brings them)"
                .to_owned();
        }
        format!(
            "its sender reports on {} of {} streams cover {} missing packets and prove {} never \
             sent and {} sent; its own count of packets sent would tell more",
            group(self.covered),
            group(self.streams),
            group(self.missing),
            group(self.never_sent),
            group(self.lost_behind)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(windows: &[(u64, u64, u64, u64)]) -> SenderFacts {
        let mut sum = SenderFacts { streams: windows.len() as u64, ..SenderFacts::default() };
        for &(sent, span, padding_only, missing) in windows {
            sum.add(&SenderWindow { sent, span, padding_only, missing });
        }
        sum
    }

    #[test]
    fn as_many_sent_as_sequence_numbers_means_that_the_missing_ones_were_lost_behind() {
        let facts = facts(&[(14_000, 14_000, 0, 140), (14_002, 14_000, 0, 150)]);
        assert_eq!((facts.lost_behind, facts.never_sent), (135 + 145, 0));
        let (fault, reason) = facts.proof(300).unwrap();
        assert_eq!(fault, Fault::Network);
        assert!(reason.contains("2 of 2 streams") && reason.contains("at least 280"), "{reason}");
    }

    #[test]
    fn fewer_sent_than_sequence_numbers_means_that_the_rest_was_never_sent() {
        let facts = facts(&[(13_860, 14_000, 0, 140)]);
        assert_eq!((facts.lost_behind, facts.never_sent), (0, 135));
        assert_eq!(facts.proof(150).unwrap().0, Fault::Server);
    }

    #[test]
    fn padding_that_may_or_may_not_be_counted_proves_nothing() {
        // 140 fewer sent, but 140 were padding: sent without being counted, or not at all.
        let facts = facts(&[(13_860, 14_000, 140, 140)]);
        assert_eq!((facts.lost_behind, facts.never_sent), (0, 0));
        assert_eq!(facts.proof(140), None);
    }

    #[test]
    fn counted_retransmissions_few_packets_and_short_windows_prove_nothing() {
        assert_eq!(facts(&[(15_000, 14_000, 0, 140)]).proof(140), None);
        assert_eq!(facts(&[(14_000, 14_000, 0, 4)]).proof(4), None);
        assert_eq!(facts(&[(14_000, 14_000, 0, 140)]).proof(1_000), None, "covers too little");
        assert_eq!(facts(&[]).proof(10), None);
        assert!(facts(&[]).wanting().contains("two sender reports"));
    }
}
