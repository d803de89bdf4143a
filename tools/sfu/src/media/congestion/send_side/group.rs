//! Packets that were sent one after the other, and how long they queued on the way (LiveKit
//! `pkg/sfu/bwe/sendsidebwe/packet_group.go`). Pure.

use super::log::{Fate, Told};
use super::traffic::Traffic;

/// When a group is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    /// Packets that arrived.
    pub(super) packets: u32,
    /// Or sent in more time than this.
    pub(super) us: u64,
}

/// Packets sent one after the other.
#[derive(Debug)]
pub(super) struct Group {
    full: Full,
    is_full: bool,
    numbers: Option<(u32, u32)>,
    /// How long the group before it queued.
    before_us: i64,
    traffic: Traffic,
}

/// Whether a packet is of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    Within,
    /// Of an earlier one.
    Before,
    /// Of a later one, for this one is full.
    Behind,
}

impl Group {
    /// Behind one that queued for so long.
    pub(super) fn new(full: Full, before_us: i64) -> Self {
        Self { full, is_full: false, numbers: None, before_us, traffic: Traffic::default() }
    }

    /// Takes what is told of a packet if it is of this group.
    pub(super) fn add(&mut self, packet: &Told) -> Membership {
        let (first, last) = self.numbers.unwrap_or((packet.number, packet.number));
        if self.is_full && packet.number > last {
            return Membership::Behind;
        }
        if packet.number < first {
            return Membership::Before;
        }
        self.numbers = Some((first, last.max(packet.number)));
        match packet.fate {
            Fate::Lost => self.traffic.lost += 1,
            Fate::Arrived { send_delta_us, recv_delta_us, was_lost } => {
                let since_us = packet.sent_us.saturating_sub_signed(send_delta_us);
                self.traffic.spans(since_us.min(packet.sent_us), packet.sent_us);
                self.traffic.send_us += send_delta_us;
                self.traffic.recv_us += recv_delta_us;
                self.traffic.arrived += 1;
                self.traffic.arrived_bytes += u64::from(packet.bytes);
                self.traffic.lost = self.traffic.lost.saturating_sub(u32::from(was_lost));
                self.is_full |= self.traffic.arrived >= self.full.packets
                    || self.traffic.sent_in_us() > self.full.us;
            }
        }
        Membership::Within
    }

    /// Whether nothing more is to come but what is late.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// How long its last packet queued, with what those before it did.
    pub(super) fn queued_us(&self) -> i64 {
        let more_us = self.traffic.recv_us - self.traffic.send_us;
        if self.before_us + more_us > 0 { self.before_us + more_us } else { more_us.max(0) }
    }

    /// What was sent and arrived.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(number: u32, send_delta_us: i64, recv_delta_us: i64) -> Told {
        let fate = Fate::Arrived { send_delta_us, recv_delta_us, was_lost: false };
        Told { number, sent_us: 10_000 * u64::from(number), bytes: 1_000, fate }
    }

    #[test]
    fn a_group_is_full_by_packets_or_time_and_takes_what_is_late() {
        let mut group = Group::new(Full { packets: 3, us: 500_000 }, 0);
        assert_eq!(group.add(&arrived(10, 10_000, 10_000)), Membership::Within);
        assert_eq!(group.add(&Told { fate: Fate::Lost, ..arrived(11, 0, 0) }), Membership::Within);
        assert_eq!(group.add(&arrived(9, 10_000, 10_000)), Membership::Before);
        group.add(&arrived(12, 20_000, 20_000));
        assert!(!group.is_full());
        group.add(&arrived(13, 10_000, 15_000));
        assert!(group.is_full());
        assert_eq!(group.add(&arrived(14, 10_000, 10_000)), Membership::Behind);
        assert_eq!((group.traffic().arrived, group.traffic().lost), (3, 1));
        assert_eq!((group.traffic().sent_in_us(), group.queued_us()), (40_000, 5_000));
        let fate = Fate::Arrived { send_delta_us: -20_000, recv_delta_us: 1_000, was_lost: true };
        assert_eq!(group.add(&Told { fate, ..arrived(11, 0, 0) }), Membership::Within);
        assert_eq!((group.traffic().arrived, group.traffic().lost), (4, 0));
        let mut slow = Group::new(Full { packets: 30, us: 100_000 }, 0);
        (0..11).for_each(|number| _ = slow.add(&arrived(100 + number, 10_000, 10_000)));
        assert!(slow.is_full());
    }

    #[test]
    fn what_queued_before_queues_on_until_it_is_made_up_for() {
        let full = Full { packets: 2, us: 500_000 };
        let mut group = Group::new(full, 40_000);
        group.add(&arrived(1, 10_000, 15_000));
        assert_eq!(group.queued_us(), 45_000);
        group.add(&arrived(2, 60_000, 20_000));
        assert_eq!(group.queued_us(), 5_000);
        let mut group = Group::new(full, 10_000);
        group.add(&arrived(1, 60_000, 10_000));
        assert_eq!(group.queued_us(), 0, "the queue was empty before");
    }
}
