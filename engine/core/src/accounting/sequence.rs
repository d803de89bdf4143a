//! Which sequence numbers of one stream arrived, when, and by which way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::arrived::{Arrived, WINDOW_PACKETS};
use crate::PacketCounters;

/// Most runs of missing sequence numbers whose deadline has not passed. At the maximum the oldest
/// run is given up early: what then arrives of it counts as late.
pub const GAPS_MAX: usize = 512;
/// A stream's first packets may arrive reordered: packets up to this far before the first one
/// received still belong to the stream if they come before the playout deadline.
pub const LOWER_PACKETS_MAX: u64 = 64;

/// The way a packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// On the primary SSRC.
    Primary,
    /// As a repair on the RTX SSRC (RFC 4588), with its original sequence number.
    Rtx,
}

/// What a sequence number is to the ledger at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Nothing was received yet.
    First,
    /// Higher than all before.
    Ahead,
    /// Passed over and not arrived so far.
    Missing,
    /// It arrived already.
    Duplicate,
    /// Its payload came with a later packet (RED); it itself has not arrived.
    Redundant,
    /// Before the beginning of the stream or of the measured window.
    BeforeWindow,
    /// Too far behind to know.
    Stale,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Extended sequence number (RFC 3550 A.1).
    pub sequence: u64,
    /// It is new and in time: hand it on to frames. Late ones and duplicates are not.
    pub usable: bool,
    /// It is the highest so far.
    pub in_order: bool,
    /// It lies in the measured window. Others may still complete frames that later ones refer to.
    pub measured: bool,
}

/// A run of missing sequence numbers.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// Never arrived so far.
    first: u64,
    /// One past the last.
    end: u64,
    /// How many of them are still missing.
    left: u64,
    seen: Instant,
    /// We were not where they were sent to; see [`SequenceLedger::away`].
    ours: bool,
}

/// Most gaps of our own that are remembered once they were given up; what comes late of an older one
/// is late without having been missed.
pub(super) const OURS_MAX: usize = 8;

/// Packets of which it is remembered that redundancy brought their payload. What comes after all of
/// an older one counts as a duplicate.
pub(super) const RED_REPAIRS_MAX: usize = 64;

/// The packets of one SSRC. See [`PacketCounters`] for what is counted.
#[derive(Debug)]
#[repr(C)]
pub struct SequenceLedger {
    /// First counted sequence number and the highest, extended; `None` before the first packet.
    range: Option<(u64, u64)>,
    gaps: VecDeque<Gap>,
    arrived: Arrived,
    /// Packets with payload, and the bytes of it.
    received: u64,
    bytes: u64,
    rare: Option<Box<Rare>>,
    deadline: Duration,
    /// When the stream began, while packets from before its first may still be its own.
    began: Option<Instant>,
}

/// What a stream has no use for of which each packet comes once, with payload.
#[derive(Debug, Default)]
struct Rare {
    /// All but what [`SequenceLedger`] counts itself.
    counted: PacketCounters,
    /// A gap that begins there is ours; see [`SequenceLedger::away`].
    away_from: Option<u64>,
    /// Gaps of ours that were given up, first and one past the last; at most [`OURS_MAX`].
    ours: Vec<(u64, u64)>,
    /// Packets whose payload came by redundancy, and up to when they themselves are in time; at most
    /// [`RED_REPAIRS_MAX`].
    redundant: VecDeque<(u64, Instant)>,
}

impl SequenceLedger {
    /// A ledger with this playout deadline.
    pub fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            range: None,
            began: None,
            arrived: Arrived::default(),
            gaps: VecDeque::new(),
            received: 0,
            bytes: 0,
            rare: None,
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn counted(&mut self) -> &mut PacketCounters {
        &mut self.rare().counted
    }

    fn redundant_of(&self, extended: u64) -> Option<usize> {
        let rare = self.rare.as_deref()?;
        rare.redundant.iter().position(|(sequence, _)| *sequence == extended)
    }

    /// What `sequence` would be if it arrived now. Changes nothing.
    pub fn placement(&self, sequence: u16) -> Placement {
        let Some((first, highest)) = self.range else { return Placement::First };
        let extended = extend(sequence, highest);
        if extended > highest {
            Placement::Ahead
        } else if highest - extended >= WINDOW_PACKETS {
            Placement::Stale
        } else if self.arrived.has(extended) {
            match self.redundant_of(extended) {
                Some(_) => Placement::Redundant,
                None => Placement::Duplicate,
            }
        } else if extended < first {
            Placement::BeforeWindow
        } else {
            Placement::Missing
        }
    }

    /// A packet with payload arrived.
    pub fn media(&mut self, sequence: u16, at: Instant, bytes: usize, via: Via) -> Receipt {
        let placement = self.placement(sequence);
        if placement == Placement::Redundant {
            return self.redundant_arrived(sequence, at, bytes);
        }
        let given_up = placement == Placement::Missing && self.gave_up_ours(sequence);
        let receipt = self.arrive(sequence, at, placement, via);
        let missing = placement == Placement::Missing || self.lowered(placement, &receipt);
        match placement {
            // Its first transmission was the newest packet, and was lost.
            Placement::Ahead if via == Via::Rtx => {
                self.counted().missing += 1;
                self.count_repair(true, via);
            }
            Placement::First | Placement::Ahead => {}
            _ if missing => {
                if given_up {
                    // It came after all, if too late.
                    self.counted().cut_off -= 1;
                    self.counted().missing += 1;
                }
                self.count_repair(receipt.usable, via);
            }
            Placement::Duplicate if via == Via::Rtx => self.counted().rtx_redundant += 1,
            Placement::Duplicate => self.counted().duplicate += 1,
            _ => self.counted().stale += 1,
        }
        if receipt.measured && (receipt.usable || missing) {
            self.received += 1;
            self.bytes += bytes as u64;
        }
        receipt
    }

    /// The payload of this packet came with a later one (RED), which arrives at the same moment and
    /// is not entered yet. What it repaired, if anything: a packet that is missing, or that the later
    /// one will pass over, and is in time.
    pub fn redundant(&mut self, sequence: u16, at: Instant) -> Option<Receipt> {
        let (first, highest) = self.range?;
        let extended = extend(sequence, highest);
        let until = match self.placement(sequence) {
            Placement::Ahead => {
                self.advance(highest, extended, at);
                self.counted().missing += 1;
                at + self.deadline
            }
            Placement::Missing | Placement::BeforeWindow => {
                let until = self.gap_of(extended)?.seen + self.deadline;
                if at > until {
                    return None;
                }
                self.arrived.mark(extended);
                self.fill(extended, at);
                until
            }
            _ => return None,
        };
        let measured = extended >= first;
        let Rare { counted, redundant, .. } = self.rare();
        counted.repaired_by_red += u64::from(measured);
        if redundant.len() >= RED_REPAIRS_MAX {
            redundant.pop_front();
        }
        redundant.push_back((extended, until));
        Some(Receipt { sequence: extended, usable: true, in_order: false, measured })
    }

    /// A packet came after all whose payload redundancy had brought: it brings nothing new. In time
    /// it is the repair itself.
    fn redundant_arrived(&mut self, sequence: u16, at: Instant, bytes: usize) -> Receipt {
        let (first, highest) = self.range.unwrap_or_default();
        let extended = extend(sequence, highest);
        let known = self.redundant_of(extended);
        let until = known.and_then(|place| self.rare().redundant.remove(place));
        let until = until.map(|(_, until)| until);
        let measured = extended >= first;
        if !measured || until.is_none_or(|until| at > until) {
            self.counted().duplicate += 1;
        } else {
            self.counted().repaired_by_red -= 1;
            self.count_repair(true, Via::Primary);
            self.received += 1;
            self.bytes += bytes as u64;
        }
        Receipt { sequence: extended, usable: false, in_order: false, measured }
    }

    /// A packet without payload arrived on the primary SSRC: its sequence number is neither
    /// expected nor missing.
    pub fn padding(&mut self, sequence: u16, at: Instant) -> Receipt {
        let placement = self.placement(sequence);
        let given_up = placement == Placement::Missing && self.gave_up_ours(sequence);
        let receipt = self.arrive(sequence, at, placement, Via::Primary);
        match placement {
            Placement::First | Placement::Ahead => self.counted().padding_only += 1,
            Placement::Missing if given_up => {
                self.counted().cut_off -= 1;
                self.counted().padding_only += 1;
            }
            Placement::Missing => {
                self.counted().missing -= 1;
                self.counted().padding_only += 1;
            }
            Placement::BeforeWindow if self.lowered(placement, &receipt) => {
                self.counted().missing -= 1;
                self.counted().padding_only += 1;
            }
            Placement::Duplicate | Placement::Redundant => self.counted().duplicate += 1,
            Placement::BeforeWindow | Placement::Stale => self.counted().stale += 1,
        }
        receipt
    }

    /// It would be newer than all so far, and not the one after the highest.
    pub fn passes_over(&self, sequence: u16) -> bool {
        let ahead = |highest: u64| sequence.wrapping_sub(highest as u16);
        self.range.is_some_and(|(_, highest)| (2..0x8000).contains(&ahead(highest)))
    }

    /// A packet of redundant audio came that can't be taken apart.
    pub fn red_malformed(&mut self) {
        self.counted().red_malformed += 1;
    }

    /// How many sequence numbers came without payload.
    pub fn padding_only(&self) -> u64 {
        self.rare.as_deref().map_or(0, |rare| rare.counted.padding_only)
    }

    /// A packet with a sequence number that had arrived before came on the primary SSRC.
    pub fn duplicate(&mut self) {
        self.counted().duplicate += 1;
    }

    /// A packet that can't be told from a duplicate was dropped unread.
    pub fn stale(&mut self) {
        self.counted().stale += 1;
    }

    /// An RTX packet brought nothing.
    pub fn rtx_redundant(&mut self) {
        self.counted().rtx_redundant += 1;
    }

    /// Gives up on gaps whose deadline is before `now`. Call it only with a `now` before which no
    /// arrival can come any more.
    pub fn expire_gaps(&mut self, now: Instant) {
        while let Some(gap) = self.gaps.front() {
            if gap.left > 0 && gap.seen + self.deadline >= now {
                break;
            }
            self.give_up_front();
        }
    }

    /// We are not where packets are sent to, from here to the next packet: what is passed over until
    /// then and not repaired was cut off by us, not lost.
    pub fn away(&mut self) {
        self.rare().away_from = self.range.map(|(_, highest)| highest + 1);
    }

    /// It was of a gap of ours, and is counted as cut off.
    fn gave_up_ours(&self, sequence: u16) -> bool {
        let (Some((first, highest)), Some(rare)) = (self.range, &self.rare) else { return false };
        let extended = extend(sequence, highest);
        extended >= first && rare.ours.iter().any(|(from, end)| (*from..*end).contains(&extended))
    }

    fn give_up_front(&mut self) {
        if let Some(gap) = self.gaps.pop_front() {
            self.given_up(gap, gap.end, gap.left);
        }
    }

    /// So many of a gap, all of them before `end`, are not waited for any more.
    fn given_up(&mut self, gap: Gap, end: u64, count: u64) {
        let measured = self.range.is_some_and(|(low, _)| gap.first >= low);
        if !gap.ours || !measured || count == 0 {
            return;
        }
        let Rare { counted, ours, .. } = self.rare();
        counted.cut_off += count;
        counted.missing -= count;
        if ours.len() >= OURS_MAX {
            ours.remove(0);
        }
        ours.push((gap.first, end));
    }

    /// Ends the stream: gaps due before `now` are given up. The numbers still missing whose
    /// deadline has not passed are taken out of expected and missing: we cut them off, nobody lost
    /// them.
    pub fn finish(&mut self, now: Instant) {
        self.expire_gaps(now);
        let pending = self.pending();
        if pending > 0 {
            let counted = self.counted();
            counted.cut_off += pending;
            counted.missing -= pending;
        }
        self.gaps.clear();
    }

    /// When the oldest open gap is given up.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.gaps.front().map(|gap| gap.seen + self.deadline)
    }

    /// Everything below this arrived or was given up; `None` before the first packet.
    pub fn open_floor(&self) -> Option<u64> {
        let (_, highest) = self.range?;
        Some(self.gaps.front().map_or(highest + 1, |gap| gap.first))
    }

    /// The highest sequence number so far, extended.
    pub fn highest(&self) -> Option<u64> {
        self.range.map(|(_, highest)| highest)
    }

    /// This one was passed over, has not arrived, and its deadline has not passed.
    pub fn is_open(&self, sequence: u64) -> bool {
        let Some((_, highest)) = self.range else { return false };
        let in_window = sequence <= highest && highest - sequence < WINDOW_PACKETS;
        let floor = self.gaps.front().map_or(u64::MAX, |gap| gap.first);
        in_window && sequence >= floor && !self.arrived.has(sequence)
    }

    /// Counts from here on only: sequence numbers up to the highest seen are outside the window,
    /// also the missing ones. Those are waited for all the same: frames depend on them.
    pub fn restart_counting(&mut self) {
        (self.received, self.bytes) = (0, 0);
        self.began = None;
        self.rare =
            self.rare.take().filter(|rare| !rare.redundant.is_empty() || rare.away_from.is_some());
        if let Some(rare) = &mut self.rare {
            rare.counted = PacketCounters::default();
            rare.ours.clear();
        }
        if let Some((first, highest)) = &mut self.range {
            *first = *highest + 1;
        }
    }

    /// The counts so far.
    pub fn counters(&self) -> PacketCounters {
        let (first, highest) = self.range.unwrap_or((1, 0));
        let span = highest + 1 - first;
        let pending = self.pending();
        let counted = self.rare.as_deref().map(|rare| rare.counted).unwrap_or_default();
        PacketCounters {
            received: self.received,
            bytes: self.bytes,
            expected: span.saturating_sub(counted.padding_only + counted.cut_off),
            pending,
            unrecovered: counted.missing - counted.repaired - counted.repaired_by_red - pending,
            ..counted
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        let of_rare = |rare: &Rare| {
            let ours = rare.ours.capacity() * size_of::<(u64, u64)>();
            size_of::<Rare>() + ours + rare.redundant.capacity() * size_of::<(u64, Instant)>()
        };
        let gaps = self.gaps.capacity() * size_of::<Gap>();
        gaps + self.arrived.heap_bytes() + self.rare.as_deref().map_or(0, of_rare)
    }

    /// Numbers of the measured window that are missing and may still come in time.
    fn pending(&self) -> u64 {
        let (first, _) = self.range.unwrap_or((1, 0));
        self.gaps.iter().filter(|gap| gap.first >= first).map(|gap| gap.left).sum()
    }

    fn lowered(&self, before: Placement, receipt: &Receipt) -> bool {
        before == Placement::BeforeWindow
            && self.range.is_some_and(|(first, _)| receipt.sequence >= first)
    }

    fn count_repair(&mut self, in_time: bool, via: Via) {
        if in_time {
            self.counted().repaired += 1;
        } else {
            self.counted().late += 1;
        }
        match via {
            Via::Primary => self.counted().reordered += 1,
            Via::Rtx => self.counted().rtx_repairs += 1,
        }
    }

    fn arrive(&mut self, sequence: u16, at: Instant, what: Placement, via: Via) -> Receipt {
        let Some((first, highest)) = self.range else {
            // One lap up, so that earlier ones extend downwards.
            let extended = (1 << 16) | u64::from(sequence);
            self.range = Some((extended, extended));
            self.began = Some(at);
            self.arrived.begin(extended);
            return Receipt { sequence: extended, usable: true, in_order: true, measured: true };
        };
        let extended = extend(sequence, highest);
        let mut receipt =
            Receipt { sequence: extended, usable: false, in_order: false, measured: true };
        match what {
            Placement::Ahead => {
                self.advance(highest, extended, at);
                receipt.usable = true;
                receipt.in_order = via == Via::Primary;
            }
            Placement::Missing => {
                self.arrived.mark(extended);
                receipt.usable = self.fill(extended, at);
            }
            Placement::BeforeWindow if self.may_lower(first, extended, at) => {
                self.lower(first, extended);
                receipt.usable = self.fill(extended, at);
            }
            Placement::BeforeWindow => {
                self.arrived.mark(extended);
                receipt.usable = self.fill(extended, at);
                receipt.measured = false;
            }
            _ => {}
        }
        receipt
    }

    fn may_lower(&self, first: u64, extended: u64, at: Instant) -> bool {
        let recent = self.began.is_some_and(|began| at <= began + self.deadline);
        recent && first - extended <= LOWER_PACKETS_MAX
    }

    /// The stream began at `extended`, not at `first`.
    fn lower(&mut self, first: u64, extended: u64) {
        let (Some(began), Some((low, _))) = (self.began, &mut self.range) else { return };
        *low = extended;
        let count = first - extended;
        self.counted().missing += count;
        self.gaps.push_front(Gap {
            first: extended,
            end: first,
            left: count,
            seen: began,
            ours: false,
        });
        self.arrived.lower(extended, first);
        self.arrived.mark(extended);
    }

    fn advance(&mut self, highest: u64, extended: u64, at: Instant) {
        let skipped = extended - highest - 1;
        self.arrived.advance(highest, extended);
        if let Some((_, highest)) = &mut self.range {
            *highest = extended;
        }
        if skipped > 0 {
            self.counted().missing += skipped;
            self.open_gap(highest + 1, extended, at);
        }
        self.forget_before((extended + 1).saturating_sub(WINDOW_PACKETS));
    }

    fn open_gap(&mut self, first: u64, end: u64, at: Instant) {
        if self.gaps.len() >= GAPS_MAX {
            self.give_up_front();
        }
        let ours = self.rare().away_from.take_if(|from| *from == first).is_some();
        // Stamps may step back a little; deadlines must not, for the oldest gap is in front.
        let seen = self.gaps.back().map_or(at, |last| last.seen.max(at));
        self.gaps.push_back(Gap { first, end, left: end - first, seen, ours });
    }

    /// Gives up on gaps that left the window.
    fn forget_before(&mut self, bottom: u64) {
        while let Some(gap) = self.gaps.front_mut() {
            if gap.left > 0 && gap.end > bottom {
                if gap.first < bottom {
                    let arrived = &self.arrived;
                    let kept = (bottom..gap.end).filter(|&s| !arrived.has(s)).count() as u64;
                    let whole = *gap;
                    gap.first = bottom;
                    gap.left = kept;
                    self.given_up(whole, bottom, whole.left - kept);
                    self.trim_front();
                }
                break;
            }
            self.give_up_front();
        }
    }

    /// The open gap that it belongs to.
    fn gap_of(&mut self, extended: u64) -> Option<&mut Gap> {
        let index = self.gaps.partition_point(|gap| gap.end <= extended);
        self.gaps.get_mut(index).filter(|gap| gap.first <= extended)
    }

    /// A missing packet arrived; true if that was in time.
    fn fill(&mut self, extended: u64, at: Instant) -> bool {
        let Some(gap) = self.gap_of(extended) else { return false };
        gap.left -= 1;
        let seen = gap.seen;
        self.trim_front();
        at <= seen + self.deadline
    }

    /// Keeps the front gap's `first` on a missing one; [`Self::open_floor`] relies on it.
    fn trim_front(&mut self) {
        while let Some(gap) = self.gaps.front_mut() {
            while gap.left > 0 && self.arrived.has(gap.first) {
                gap.first += 1;
            }
            if gap.left > 0 {
                break;
            }
            self.gaps.pop_front();
        }
    }
}

/// RFC 3550 A.1: the extended number nearest to `highest` with these low bits.
fn extend(sequence: u16, highest: u64) -> u64 {
    let ahead = sequence.wrapping_sub(highest as u16);
    if ahead < 0x8000 {
        highest + u64::from(ahead)
    } else {
        (highest + u64::from(ahead)).saturating_sub(0x1_0000)
    }
}
