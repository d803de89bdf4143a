//! The book of recoveries: which participants lost their way to the server, how they came back, and
//! how long nothing could be watched meanwhile.
//!
//! Pure: it is told moments and keeps counts. Costs one entry for each participant that is on its
//! way back, and nothing for those that stand.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use stampede_counters::{RecoveryCounters, RecoveryGroups};
use stampede_report::hist::Samples;
use stampede_report::types::{FaultRow, RecoveriesSection, RecoverySection};
use stampede_scenario::FaultSpec;

use crate::distributions::LiveDistributions;
use crate::joins::ParticipantId;

/// A way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A new websocket; the media connection stands.
    Resume,
    /// A new websocket, and ICE restarted over it.
    IceRestart,
    /// A new session.
    FullReconnect,
    /// The server has moved it to another room.
    Moved,
}

/// Number of ways.
const WAYS: usize = 4;
/// What they are called where only text is seen.
pub(crate) const WAY_NAMES: [&str; WAYS] = ["resume", "ice_restart", "full_reconnect", "moved"];

/// A `--fault`, by its place in the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FaultId(pub usize);

#[derive(Debug, Default)]
struct WaySum {
    counted: RecoveryCounters,
    times: Samples,
}

#[derive(Debug, Default)]
struct FaultSum {
    row: FaultRow,
    signal_only: bool,
    times: Samples,
}

/// Somebody on the way back.
#[derive(Debug)]
struct Absent {
    since: Instant,
    broke_unix_ns: u64,
    last_frame_unix_ns: Option<u64>,
    trying: Option<Way>,
    fault: Option<FaultId>,
}

/// Somebody who is back, but no frame has come yet.
#[derive(Debug)]
struct Back {
    from_unix_ns: u64,
    way: Way,
    fault: Option<FaultId>,
}

/// A path that stands again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stood {
    /// When it was found to be broken.
    pub since: Instant,
    /// It was broken on purpose, by this.
    pub fault: Option<FaultId>,
    /// How it came back; `None` if it needed no try.
    pub way: Option<Way>,
}

/// All recoveries of a run.
#[derive(Debug, Default)]
pub(crate) struct Recoveries {
    ways: [WaySum; WAYS],
    faults: Vec<FaultSum>,
    absent: HashMap<ParticipantId, Absent>,
    back: HashMap<ParticipantId, Back>,
    /// The run has ended.
    closed: bool,
}

impl Recoveries {
    /// Of a run with these faults.
    pub(crate) fn new(faults: &[FaultSpec]) -> Self {
        let sum = |fault: &FaultSpec| FaultSum {
            row: FaultRow { fault: fault.to_string(), ..FaultRow::default() },
            signal_only: fault.kind.is_signal_only(),
            times: Samples::default(),
        };
        Self { faults: faults.iter().map(sum).collect(), ..Self::default() }
    }

    /// This one takes nothing but a websocket away: a server that does not take up the session again
    /// breaks the media itself.
    pub(crate) fn is_signal_only(&self, fault: FaultId) -> bool {
        self.faults.get(fault.0).is_some_and(|sum| sum.signal_only)
    }

    /// A fault was due: done to so many, and impossible for others.
    pub(crate) fn fired(&mut self, fault: FaultId) {
        self.row(Some(fault).filter(|_| !self.closed), |row| row.fired += 1);
    }

    /// It was done to one.
    pub(crate) fn hit(&mut self, fault: FaultId) {
        self.row(Some(fault).filter(|_| !self.closed), |row| row.hit += 1);
    }

    /// It could not be done to one.
    pub(crate) fn missed(&mut self, fault: FaultId) {
        self.row(Some(fault).filter(|_| !self.closed), |row| row.missed += 1);
    }

    /// The server sent one away that this fault had asked for: it is not on its way back.
    pub(crate) fn sent_away(&mut self, id: ParticipantId, fault: FaultId) {
        self.failed(id);
        self.absent.remove(&id);
        self.row(Some(fault), |row| row.sent_away += 1);
    }

    /// A path was found to be broken. Nothing more if it was so already: what counts is the first.
    pub(crate) fn broke(
        &mut self,
        id: ParticipantId,
        since: Instant,
        broke_unix_ns: u64,
        fault: Option<FaultId>,
    ) {
        self.back.remove(&id);
        let absent = Absent { since, broke_unix_ns, last_frame_unix_ns: None, trying: None, fault };
        self.absent.entry(id).or_insert(absent);
    }

    /// True while it is on its way back.
    pub(crate) fn is_absent(&self, id: ParticipantId) -> bool {
        self.absent.contains_key(&id)
    }

    /// By which fault it was broken, if it is.
    pub(crate) fn fault_of(&self, id: ParticipantId) -> Option<FaultId> {
        self.absent.get(&id)?.fault
    }

    /// When the last frame came or went before the path broke.
    pub(crate) fn last_frame(&mut self, id: ParticipantId, at_unix_ns: u64) {
        if let Some(absent) = self.absent.get_mut(&id) {
            // Of the peer that broke, not of one that follows.
            absent.last_frame_unix_ns.get_or_insert(at_unix_ns.min(absent.broke_unix_ns));
        }
    }

    /// A try is made.
    pub(crate) fn tries(&mut self, id: ParticipantId, way: Way) {
        self.failed(id);
        let Some(absent) = self.absent.get_mut(&id).filter(|_| !self.closed) else { return };
        absent.trying = Some(way);
        self.ways[way as usize].counted.tries += 1;
    }

    /// The try under way came to nothing.
    pub(crate) fn failed(&mut self, id: ParticipantId) {
        let trying = self.absent.get_mut(&id).and_then(|absent| absent.trying.take());
        if let Some(way) = trying.filter(|_| !self.closed) {
            self.ways[way as usize].counted.failed += 1;
        }
    }

    /// Session and media connection stand again; `None` if they did before.
    pub(crate) fn stands(&mut self, id: ParticipantId) -> Option<Stood> {
        let absent = self.absent.remove(&id)?;
        let Absent { since, broke_unix_ns, last_frame_unix_ns, trying, fault } = absent;
        if let Some(way) = trying.filter(|_| !self.closed) {
            self.ways[way as usize].counted.recovered += 1;
            self.row(fault, |row| row.recovered += 1);
            let from_unix_ns = last_frame_unix_ns.unwrap_or(broke_unix_ns);
            self.back.insert(id, Back { from_unix_ns, way, fault });
        }
        Some(Stood { since, fault, way: trying })
    }

    /// The first frame after it stood.
    pub(crate) fn frame(&mut self, id: ParticipantId, at_unix_ns: u64) {
        let Some(Back { from_unix_ns, way, fault }) = self.back.remove(&id) else { return };
        let time = Duration::from_nanos(at_unix_ns.saturating_sub(from_unix_ns));
        self.ways[way as usize].times.record(time);
        if let Some(sum) = fault.and_then(|fault| self.faults.get_mut(fault.0)) {
            sum.times.record(time);
        }
    }

    /// It will make no further try.
    pub(crate) fn gave_up(&mut self, id: ParticipantId) {
        self.failed(id);
        self.back.remove(&id);
        if let Some(absent) = self.absent.remove(&id)
            && !self.closed
        {
            self.row(absent.fault, |row| row.failed += 1);
        }
    }

    /// It was told to leave.
    pub(crate) fn left(&mut self, id: ParticipantId) {
        self.back.remove(&id);
        let Some(Absent { trying, fault, .. }) = self.absent.remove(&id) else { return };
        if self.closed {
            return;
        }
        if let Some(way) = trying {
            self.ways[way as usize].counted.unfinished += 1;
        }
        self.row(fault, |row| row.unfinished += 1);
    }

    /// The run has ended, before anybody is told to leave. Gives out who is on the way back after
    /// something that was done on purpose, and since when.
    pub(crate) fn close(&mut self) -> Vec<(ParticipantId, Instant)> {
        let absent: Vec<_> =
            self.absent.iter().map(|(id, one)| (*id, one.since, one.fault.is_some())).collect();
        absent.iter().for_each(|(id, ..)| self.left(*id));
        self.closed = true;
        let on_purpose = absent.into_iter().filter(|(.., on_purpose)| *on_purpose);
        on_purpose.map(|(id, since, _)| (id, since)).collect()
    }

    fn row(&mut self, fault: Option<FaultId>, change: impl FnOnce(&mut FaultRow)) {
        if let Some(sum) = fault.and_then(|fault| self.faults.get_mut(fault.0)) {
            change(&mut sum.row);
        }
    }

    /// Tries so far.
    pub(crate) fn counted(&self) -> RecoveryGroups {
        let [resume, ice_restart, full_reconnect, moved] =
            std::array::from_fn(|way| self.ways[way].counted);
        RecoveryGroups { resume, ice_restart, full_reconnect, moved }
    }

    /// The report's section.
    pub(crate) fn section(&self) -> RecoveriesSection {
        let [resume, ice_restart, full_reconnect, moved] = std::array::from_fn(|way| {
            let WaySum { counted, times } = &self.ways[way];
            RecoverySection { counted: *counted, ms: times.as_ms() }
        });
        RecoveriesSection { resume, ice_restart, full_reconnect, moved }
    }

    /// Adds how long they took.
    pub(crate) fn put(&self, to: &mut LiveDistributions) {
        for (name, way) in WAY_NAMES.iter().zip(&self.ways) {
            to.put(format!("recovery/{name}"), way.times.histogram());
        }
    }

    /// A row for each fault.
    pub(crate) fn faults(&self) -> Vec<FaultRow> {
        let row = |sum: &FaultSum| FaultRow { ms: sum.times.as_ms(), ..sum.row.clone() };
        self.faults.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const ID: ParticipantId = ParticipantId(7);
    const FAULT: FaultId = FaultId(0);

    #[track_caller]
    fn assert_balanced(book: &Recoveries) {
        for sum in &book.ways {
            let RecoveryCounters { tries, recovered, failed, unfinished } = sum.counted;
            assert_eq!(tries, recovered + failed + unfinished, "{:?}", sum.counted);
        }
    }

    #[test]
    fn a_recovery_lasts_from_the_last_frame_to_the_first_after_it_stands() {
        let (mut book, at) = (Recoveries::default(), Instant::now());
        book.broke(ID, at, 5_000 * MS, None);
        book.last_frame(ID, 4_000 * MS);
        book.tries(ID, Way::Resume);
        book.tries(ID, Way::FullReconnect);
        // The new peer's word on its last frame is not asked for.
        book.last_frame(ID, 4_500 * MS);
        book.broke(ID, at, 6_000 * MS, None);
        let way = Some(Way::FullReconnect);
        assert_eq!(book.stands(ID), Some(Stood { since: at, fault: None, way }));
        assert_eq!(book.stands(ID), None);
        book.frame(ID, 7_500 * MS);
        book.frame(ID, 9_000 * MS);
        let section = book.section();
        assert_eq!((section.resume.counted.failed, section.resume.ms), (1, None));
        let full = section.full_reconnect;
        assert_eq!((full.counted.tries, full.counted.recovered), (1, 1));
        let ms = full.ms.unwrap();
        assert_eq!((ms.count, ms.max.round()), (1, 3_500.0));
        assert_balanced(&book);
    }

    #[test]
    fn frames_that_still_came_do_not_make_a_recovery_shorter_than_it_was() {
        let mut book = Recoveries::default();
        book.broke(ID, Instant::now(), 5_000 * MS, None);
        book.last_frame(ID, 5_030 * MS);
        book.tries(ID, Way::Resume);
        book.stands(ID);
        book.frame(ID, 5_060 * MS);
        assert_eq!(book.section().resume.ms.unwrap().max.round(), 60.0);
    }

    #[test]
    fn tries_balance_however_they_end() {
        let mut book = Recoveries::new(&["signal_drop".parse().unwrap()]);
        let at = Instant::now();
        for number in 0..4 {
            let id = ParticipantId(number);
            book.hit(FAULT);
            book.broke(id, at, 0, Some(FAULT));
            book.tries(id, Way::Resume);
        }
        book.gave_up(ParticipantId(0));
        book.left(ParticipantId(1));
        book.stands(ParticipantId(2));
        book.missed(FAULT);
        book.close();
        // What comes now is not of the run.
        book.stands(ParticipantId(3));
        book.gave_up(ParticipantId(3));
        assert_balanced(&book);
        let row = &book.faults()[0];
        assert_eq!((row.hit, row.missed, row.recovered), (4, 1, 1));
        assert_eq!((row.failed, row.unfinished), (1, 2));
        assert!(row.ms.is_none() && book.absent.is_empty());
        assert_eq!(book.counted().resume.tries, 4);
    }
}
