//! Data messages: who sends which, how many and how large.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use stampede_core::data::{DataKind, DataRole, DataRoom, DataSends, SENDERS_MAX};
use stampede_report::Failure;

use crate::cohort_spec::check_counts_of;
use crate::shape::Shape;
use crate::{CohortSpec, DataDraft, DataKinds, DataTrackSubscribe};

/// Messages of each kind that a data publisher sends in a second.
const RATE: f64 = 10.0;
/// Their payload.
const BYTES: usize = 256;

/// Data messages that are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSpec {
    /// Who sends them, per room; those of cohorts besides.
    pub publishers: u32,
    /// Messages of each kind that one of them sends in a second.
    pub rate: f64,
    /// Bytes of a message.
    pub bytes: usize,
    /// How they travel.
    pub kinds: DataKinds,
    /// How subscribers get data tracks.
    pub subscribe: DataTrackSubscribe,
}

impl DataSpec {
    /// Checks what was asked for; `None` where no data is sent, by nobody of these rooms or cohorts.
    ///
    /// # Errors
    /// The first contradiction, exit code 104.
    pub(crate) fn new(draft: &DataDraft, shape: &Shape) -> Result<Option<Self>, Failure> {
        let cohorts = &shape.cohorts;
        let most = shape.rooms.iter().map(|room| room.data_publishers).max().unwrap_or(0);
        if most == 0 && !cohorts.iter().any(|cohort| cohort.data.sends()) {
            let given =
                |draft: &DataDraft| draft.how().or(draft.subscribe.map(|_| "data-track-subscribe"));
            let of_cohort = || cohorts.iter().find_map(|cohort| given(&cohort.data));
            return match given(draft).or_else(of_cohort) {
                Some(flag) => Err(Failure::config(format!(
                    "--{flag} is given but nobody sends data: add --data-publishers 1"
                ))),
                None => Ok(None),
            };
        }
        let of_cohorts: u64 =
            cohorts.iter().map(|cohort| u64::from(cohort.data.publishers.unwrap_or(0))).sum();
        let all = u64::from(most) + of_cohorts;
        if all > SENDERS_MAX as u64 {
            return Err(Failure::config(format!(
                "--data-publishers: {all} send data, and {SENDERS_MAX} is the most for one room, \
                 because everybody in it keeps account of each; use more --rooms"
            )));
        }
        check_members(shape)?;
        let spec = Self {
            publishers: draft.publishers.unwrap_or(0),
            rate: draft.rate.unwrap_or(RATE),
            bytes: draft.bytes.unwrap_or(BYTES),
            kinds: draft.kinds.unwrap_or(DataKinds::BOTH),
            subscribe: draft.subscribe.unwrap_or(DataTrackSubscribe::usual(shape.subscribe_mode)),
        };
        let mut asked = cohorts.iter().map(|cohort| cohort.data.subscribe).chain([draft.subscribe]);
        let tracks = spec.kinds_sent(shape).has(DataKind::Track);
        match asked.any(|asked| asked.is_some()) && !tracks {
            true => Err(Failure::config(
                "--data-track-subscribe is given but no data tracks are published: add --data-kind \
                 track",
            )),
            false => Ok(Some(spec)),
        }
    }

    /// Checks that who subscribes to data tracks by itself is told of all who send some; `all_hide`:
    /// the tokens of the whole run hide who joins with them.
    ///
    /// # Errors
    /// Somebody is hidden, exit code 104.
    pub(crate) fn check_hidden(self, shape: &Shape, all_hide: bool) -> Result<(), Failure> {
        let tracks = |own: Self| own.kinds.has(DataKind::Track);
        let of_run = shape.sends_data() && tracks(self);
        // Those of the run who send may be in a cohort too, if they receive.
        let both = of_run && shape.participants() > 0;
        let hidden_cohort = |cohort: &CohortSpec| {
            let own = self.of_cohort(cohort);
            let sends = own.publishers > 0 && tracks(own);
            (all_hide || shape.hidden || cohort.hides()) && sends || cohort.hides() && both
        };
        let cohorts = &shape.cohorts;
        let hidden = all_hide && of_run || cohorts.iter().any(hidden_cohort);
        let of_cohorts = cohorts.iter().map(|cohort| self.of_cohort(cohort).subscribe);
        let mut gets = of_cohorts.chain([self.subscribe]);
        match hidden && gets.any(|subscribe| subscribe == DataTrackSubscribe::Manual) {
            true => Err(Failure::config(
                "--data-track-subscribe manual: nobody is told of participants that are hidden \
                 (--hidden, or the grant hidden=true), so nobody subscribes to their data tracks: \
                 take auto, or leave one of them out",
            )),
            false => Ok(()),
        }
    }

    /// What those of a cohort send, and how its subscribers get data tracks: what it does not say is
    /// as the run has it.
    pub(crate) fn of_cohort(self, cohort: &CohortSpec) -> Self {
        let DataDraft { publishers, rate, bytes, kinds, subscribe } = cohort.data;
        Self {
            publishers: publishers.unwrap_or(0),
            rate: rate.unwrap_or(self.rate),
            bytes: bytes.unwrap_or(self.bytes),
            kinds: kinds.unwrap_or(self.kinds),
            subscribe: subscribe.unwrap_or(self.subscribe),
        }
    }

    /// The kinds that somebody sends.
    fn kinds_sent(self, shape: &Shape) -> DataKinds {
        let mut all = match shape.sends_data() {
            true => self.kinds,
            false => DataKinds::NONE,
        };
        let of_cohorts = shape.cohorts.iter().map(|cohort| self.of_cohort(cohort));
        of_cohorts.filter(|own| own.publishers > 0).for_each(|own| all.add(own.kinds));
        all
    }

    /// The boards of rooms with so many senders each; of each kind that somebody sends.
    pub(crate) fn rooms(self, senders: &[u32], shape: &Shape, run_id: &str) -> Vec<Arc<DataRoom>> {
        let all = self.kinds_sent(shape);
        let room = |(index, senders): (usize, &u32)| {
            let mut tag = DefaultHasher::new();
            (run_id, index).hash(&mut tag);
            // Checked above.
            DataRoom::new(tag.finish(), *senders as usize, all.each()).ok()
        };
        senders.iter().enumerate().filter_map(room).map(Arc::new).collect()
    }

    /// What somebody has to do with data in this room: this one of its senders, if it is one.
    /// `phase`, 0 to 1, spreads them.
    pub(crate) fn role(
        self,
        room: &Arc<DataRoom>,
        sender: Option<u32>,
        phase: f64,
        receives: bool,
    ) -> Option<DataRole> {
        let every = Duration::from_secs_f64(1.0 / self.rate);
        let sends = sender.map(|_| DataSends {
            kinds: self.kinds.each(),
            every,
            bytes: self.bytes,
            offset: every.mul_f64(phase),
        });
        let wants = |kind| kind != DataKind::Track || self.subscribe != DataTrackSubscribe::None;
        let expects = DataKind::ALL.map(|kind| receives && room.has(kind) && wants(kind));
        (sends.is_some() || receives).then(|| {
            let sender = sender.map(|sender| sender as usize);
            DataRole { room: Arc::clone(room), sender, sends, expects }
        })
    }
}

/// Checks that cohorts have as many subscribers as are to send.
fn check_members(shape: &Shape) -> Result<(), Failure> {
    let senders = |cohort: &CohortSpec| ("data_publishers", cohort.data.publishers);
    check_counts_of(&shape.cohorts, shape.receivers(), senders)?;
    // How without who.
    let idle =
        shape.cohorts.iter().find(|cohort| !cohort.data.sends() && cohort.data.how().is_some());
    match idle.and_then(|cohort| Some((cohort, cohort.data.how()?))) {
        Some((cohort, flag)) => Err(Failure::config(format!(
            "cohort '{}' says {} but nobody of it sends data: add data_publishers = 1",
            cohort.name,
            flag.replace('-', "_")
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CohortSize, Draft, RoomDraft, Scenario};

    fn spec(draft: Draft) -> Result<Option<DataSpec>, String> {
        Scenario::new(draft).map(|scenario| scenario.data).map_err(|error| error.to_string())
    }

    #[test]
    fn how_is_nothing_without_who() {
        assert_eq!(spec(Draft::default()), Ok(None));
        let how = DataDraft { rate: Some(5.0), ..DataDraft::default() };
        let of = |data| Draft { data, ..Draft::default() };
        let failure = spec(of(how)).unwrap_err();
        assert!(failure.contains("--data-rate") && failure.contains("--data-publishers"));
        let all = spec(of(DataDraft { publishers: Some(3), ..how })).unwrap().unwrap();
        assert_eq!((all.publishers, all.rate, all.kinds), (3, 5.0, DataKinds::BOTH));
        assert_eq!(all.subscribe, DataTrackSubscribe::Auto);
        let many = DataDraft { publishers: Some(1_001), ..DataDraft::default() };
        assert!(spec(of(many)).is_err());
        let subscribe = Some(DataTrackSubscribe::Manual);
        let none = DataDraft { publishers: Some(1), subscribe, ..DataDraft::default() };
        assert!(spec(of(none)).unwrap_err().contains("--data-kind"));
    }

    #[test]
    fn how_data_tracks_are_got_is_nothing_without_somebody_who_sends_them() {
        let cohort =
            |data| CohortSpec { data, ..CohortSpec::new("few".to_owned(), CohortSize::Count(3)) };
        let draft =
            |data, cohorts| Draft { subscribers: Some(10), data, cohorts, ..Draft::default() };
        let subscribe = Some(DataTrackSubscribe::Auto);
        let gets = DataDraft { subscribe, ..DataDraft::default() };
        let error = spec(draft(DataDraft::default(), vec![cohort(gets)])).unwrap_err();
        assert!(error.contains("--data-track-subscribe") && error.contains("nobody"), "{error}");
        // The run's kinds are nobody's where each cohort that sends has its own.
        let kinds = |text: &str| Some(text.parse().unwrap());
        let run = DataDraft { kinds: kinds("track"), ..gets };
        let lossy =
            DataDraft { publishers: Some(1), kinds: kinds("lossy"), ..DataDraft::default() };
        let error = spec(draft(run, vec![cohort(lossy)])).unwrap_err();
        assert!(error.contains("no data tracks are published"), "{error}");
        let as_run = DataDraft { kinds: None, ..lossy };
        assert!(spec(draft(run, vec![cohort(as_run)])).is_ok());
    }

    #[test]
    fn nobody_subscribes_by_itself_to_what_hidden_ones_send() {
        let draft = |kinds: &str, subscribe, hidden, grants: &[&str]| {
            let kinds = Some(kinds.parse().unwrap());
            let data = DataDraft { publishers: Some(1), kinds, ..DataDraft::default() };
            let mut few = CohortSpec::new("few".to_owned(), CohortSize::Count(3));
            few.data = data;
            few.profile.grants = grants.iter().map(|text| text.parse().unwrap()).collect();
            let data = DataDraft { subscribe, ..data };
            Draft { subscribers: Some(10), hidden, data, cohorts: vec![few], ..Draft::default() }
        };
        let manual = Some(DataTrackSubscribe::Manual);
        let grant = ["hidden=true"];
        assert!(spec(draft("all", manual, false, &[])).is_ok());
        for refused in [draft("all", manual, true, &[]), draft("all", manual, false, &grant)] {
            let error = spec(refused).unwrap_err();
            assert!(error.contains("subscribes to their data tracks"), "{error}");
        }
        assert!(spec(draft("all", Some(DataTrackSubscribe::Auto), false, &grant)).is_ok());
        assert!(spec(draft("both", None, true, &grant)).is_ok());
        let mut all = draft("track", manual, false, &[]);
        all.cohorts.clear();
        all.profile.grants = vec![grant[0].parse().unwrap()];
        assert!(spec(all).unwrap_err().contains("hidden=true"));
    }

    #[test]
    fn rooms_and_cohorts_have_senders_of_their_own() {
        let rate = |publishers, rate| DataDraft { publishers, rate, ..DataDraft::default() };
        let cohort = |data| {
            let size = CohortSize::Count(3);
            vec![CohortSpec { data, ..CohortSpec::new("few".to_owned(), size) }]
        };
        let draft = |cohorts| Draft { subscribers: Some(10), cohorts, ..Draft::default() };
        let data = spec(draft(cohort(rate(Some(3), Some(2.0))))).unwrap().unwrap();
        assert_eq!((data.publishers, data.rate), (0, RATE));
        let refused = |data| spec(draft(cohort(data))).unwrap_err();
        let error = refused(rate(Some(4), None));
        assert!(error.contains("'few' has but 3 subscribers"), "{error}");
        assert!(refused(rate(None, Some(2.0))).contains("nobody sends data"));
        let both = Draft { data: rate(Some(1), None), ..draft(cohort(rate(None, Some(2.0)))) };
        let error = spec(both).unwrap_err();
        assert!(error.contains("says data_rate") && error.contains("data_publishers"), "{error}");
        let room = RoomDraft { data_publishers: Some(2), ..RoomDraft::default() };
        let rooms = Draft { rooms: 2, room_drafts: vec![room], ..draft(Vec::new()) };
        assert_eq!(spec(rooms).unwrap().unwrap().publishers, 0);
    }
}
