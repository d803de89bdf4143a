//! The shape of a run: rooms, stages, layouts, cohorts.

use std::time::Duration;

use stampede_report::Failure;

use crate::stage::{self, Stage};
use crate::values::Resolution;
use crate::{
    CodecMix, CohortSize, CohortSpec, Draft, LayoutChoice, ParticipantTracks, REST, RoomDraft,
    RoomSizes, SubscribeMode,
};

/// Most parts of the subscribers, each with figures of its own: cohorts, crossed with `--impair`.
/// Each worker keeps most of a megabyte of histograms for each that has subscribers.
const COHORTS_MAX: usize = 100;

/// One room as it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSpec {
    /// Its own name; `None` is named after the run.
    pub name: Option<String>,
    /// Publishers of video.
    pub video_publishers: u32,
    /// Publishers of audio.
    pub audio_publishers: u32,
    /// Who shares a screen: the first publishers, then the first of `participants`, then publishers
    /// that send nothing else.
    pub screen_share_publishers: u32,
    /// Who sends data messages: the first of the other publishers, then of `participants`, then
    /// publishers that send nothing else.
    pub data_publishers: u32,
    /// Subscribers that join; with stages over all of them.
    pub subscribers: u32,
    /// Participants that send and receive.
    pub participants: u32,
    /// What each of these sends.
    pub participant_tracks: ParticipantTracks,
    /// Layer asked for.
    pub resolution: Resolution,
    /// Codecs of its publishers; `None`: those of the run.
    pub video_codec: Option<CodecMix>,
}

impl RoomSpec {
    /// Who only sends: those who send media, of whom the first send video and audio, then those who
    /// send nothing but data.
    pub fn publishers(&self) -> u32 {
        let others = self.data_publishers.saturating_sub(self.senders());
        self.media_publishers().saturating_add(others)
    }

    /// Who only sends, and sends media.
    pub fn media_publishers(&self) -> u32 {
        let others = self.camera_publishers().saturating_add(self.participants);
        let screens = self.screen_share_publishers.saturating_sub(others);
        self.camera_publishers().saturating_add(screens)
    }

    /// Who only sends, and sends more than a screen.
    fn camera_publishers(&self) -> u32 {
        self.video_publishers.max(self.audio_publishers)
    }

    /// This one of [`Self::media_publishers`] shares its screen.
    pub(crate) fn publisher_shares(&self, publisher: u32) -> bool {
        publisher < self.media_publishers()
            && (publisher < self.screen_share_publishers || publisher >= self.camera_publishers())
    }

    /// This one of [`Self::participants`] shares its screen.
    pub(crate) fn participant_shares(&self, participant: u32) -> bool {
        participant < self.screen_share_publishers.saturating_sub(self.camera_publishers())
    }

    /// Which of those who send data this one of [`Self::publishers`] is, if it is one.
    pub(crate) fn data_sender(&self, publisher: u32) -> u32 {
        match publisher < self.media_publishers() {
            true => publisher,
            false => publisher.saturating_add(self.participants),
        }
    }

    /// Those who receive: participants that send too, then subscribers.
    pub fn receivers(&self) -> u32 {
        self.participants.saturating_add(self.subscribers)
    }

    /// Those who send media.
    pub fn senders(&self) -> u32 {
        self.media_publishers().saturating_add(self.participants)
    }

    /// Those who send video.
    pub fn video_senders(&self) -> u32 {
        let both = if self.participant_tracks.video() { self.participants } else { 0 };
        self.video_publishers.saturating_add(both)
    }

    /// Those who send audio.
    pub fn audio_senders(&self) -> u32 {
        let both = if self.participant_tracks.audio() { self.participants } else { 0 };
        self.audio_publishers.saturating_add(both)
    }
}

/// Which one it is of its room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The room, by its index.
    pub(crate) room: usize,
    /// Its number among those of its kind.
    pub(crate) number: u32,
}

/// The shape of a run, checked.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Stages; empty for a plain ramp.
    pub stages: Vec<Stage>,
    /// One for each room.
    pub rooms: Vec<RoomSpec>,
    /// What the rooms' subscribers were drawn from, if they were.
    pub room_sizes: Option<RoomSizes>,
    /// Parts of the subscribers.
    pub cohorts: Vec<CohortSpec>,
    /// What subscribers show.
    pub layout: Option<LayoutChoice>,
    /// Who chooses the tracks.
    pub subscribe_mode: SubscribeMode,
    /// See [`Draft::screen_share_audio`].
    pub screen_share_audio: bool,
    /// See [`Draft::simulate_speakers`].
    pub simulate_speakers: bool,
    /// See [`Draft::hidden`].
    pub hidden: bool,
}

/// Counts of a room where its table says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomDefaults {
    /// Publishers of video.
    pub video_publishers: u32,
    /// Publishers of audio.
    pub audio_publishers: u32,
    /// Who shares a screen.
    pub screen_share_publishers: u32,
    /// Who sends data.
    pub data_publishers: u32,
    /// Subscribers.
    pub subscribers: u32,
    /// Who send and receive.
    pub participants: u32,
}

impl Shape {
    /// Checks the options against each other.
    ///
    /// # Errors
    /// The first contradiction, exit code 104.
    pub(crate) fn new(draft: &Draft, defaults: RoomDefaults) -> Result<Self, Failure> {
        check_stages(draft)?;
        let rooms = rooms(draft, defaults, room_sizes(draft)?);
        let subscribers = rooms.iter().map(|room| u64::from(room.receivers())).sum();
        check_cohorts(&draft.cohorts, draft.impair.len(), subscribers)?;
        let by_layout =
            if draft.layout.is_some() { SubscribeMode::Manual } else { SubscribeMode::Auto };
        Ok(Self {
            stages: draft.stages.clone(),
            rooms,
            room_sizes: draft.room_sizes.clone(),
            cohorts: draft.cohorts.clone(),
            layout: draft.layout,
            subscribe_mode: draft.subscribe_mode.unwrap_or(by_layout),
            screen_share_audio: draft.screen_share_audio,
            simulate_speakers: draft.simulate_speakers,
            hidden: draft.hidden,
        })
    }

    /// Who only sends, over all rooms.
    pub fn publishers(&self) -> usize {
        self.rooms.iter().map(|room| room.publishers() as usize).sum()
    }

    /// Somebody sends data by the run's flags or a room's table, besides those of cohorts.
    pub fn sends_data(&self) -> bool {
        self.rooms.iter().any(|room| room.data_publishers > 0)
    }

    /// Who shares a screen, over all rooms.
    pub fn screen_shares(&self) -> usize {
        self.rooms.iter().map(|room| room.screen_share_publishers as usize).sum()
    }

    /// Who sends media, over all rooms.
    pub fn senders(&self) -> usize {
        self.rooms.iter().map(|room| room.senders() as usize).sum()
    }

    /// Who sends and receives, over all rooms.
    pub fn participants(&self) -> usize {
        self.rooms.iter().map(|room| room.participants as usize).sum()
    }

    /// What those of them send.
    pub fn participant_tracks(&self) -> ParticipantTracks {
        self.rooms.first().map_or_else(ParticipantTracks::default, |room| room.participant_tracks)
    }

    /// Who joins to receive, over all rooms: participants that send too, and subscribers.
    pub fn receivers(&self) -> usize {
        self.rooms.iter().map(|room| room.receivers() as usize).sum()
    }

    /// Where those are, in the order in which they join: room by room in turn, so that rooms fill
    /// evenly; first those that send too.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places = in_turn(&self.rooms, |room| room.participants);
        places.extend(in_turn(&self.rooms, |room| room.subscribers));
        places
    }

    /// Most of these at one time.
    pub fn receivers_peak(&self) -> usize {
        match self.stages.is_empty() {
            true => self.receivers(),
            false => self.participants() + stage::peak(&self.stages) as usize,
        }
    }
}

/// So many of each room, room by room in turn.
fn in_turn(rooms: &[RoomSpec], count: impl Fn(&RoomSpec) -> u32) -> Vec<Place> {
    let numbers = 0..rooms.iter().map(&count).max().unwrap_or(0);
    let of = |number| {
        let rooms = rooms.iter().enumerate().filter(|(_, own)| number < count(own));
        rooms.map(|(room, _)| Place { room, number }).collect::<Vec<_>>()
    };
    numbers.flat_map(of).collect()
}

fn check_stages(draft: &Draft) -> Result<(), Failure> {
    if draft.stages.is_empty() {
        return Ok(());
    }
    for (given, what) in given_counts(draft) {
        if given {
            return Err(Failure::config(format!(
                "--stage says how many subscribers there are, and so does {what}: leave one out"
            )));
        }
    }
    if stage::peak(&draft.stages) == 0 {
        return Err(Failure::config("--stage: no stage has a subscriber"));
    }
    Ok(())
}

/// Which counts of subscribers are given, and where.
fn given_counts(draft: &Draft) -> [(bool, &'static str); 2] {
    let per_room = draft.room_drafts.iter().any(|room| room.subscribers.is_some());
    [(draft.subscribers.is_some(), "--subscribers"), (per_room, "a [[room]]'s subscribers")]
}

/// How many rooms there are.
fn room_count(draft: &Draft) -> usize {
    (draft.rooms as usize).max(draft.room_drafts.len())
}

/// Subscribers of each room if they are drawn.
fn room_sizes(draft: &Draft) -> Result<Option<Vec<u32>>, Failure> {
    let Some(sizes) = &draft.room_sizes else { return Ok(None) };
    let staged = (!draft.stages.is_empty(), "--stage");
    for (given, what) in given_counts(draft).into_iter().chain([staged]) {
        if given {
            return Err(Failure::config(format!(
                "--room-sizes says how many subscribers there are, and so does {what}: leave one \
                 out"
            )));
        }
    }
    let seed = draft.seed.ok_or_else(|| {
        Failure::config("--room-sizes draws the rooms, which takes a seed: add --seed 1")
    })?;
    Ok(Some(sizes.draw(seed, room_count(draft))))
}

fn rooms(draft: &Draft, defaults: RoomDefaults, sizes: Option<Vec<u32>>) -> Vec<RoomSpec> {
    let tables = &draft.room_drafts;
    let count = room_count(draft);
    let drawn = |index: usize| sizes.as_ref().and_then(|sizes| sizes.get(index)).copied();
    let joins = stage::joins(&draft.stages) as usize;
    let none = RoomDraft::default();
    (0..count)
        .map(|index| {
            let table = tables.get(index).unwrap_or(&none);
            // Of stages every room gets its turn.
            let staged = joins / count + usize::from(index < joins % count);
            let subscribers = drawn(index).or(table.subscribers).unwrap_or(defaults.subscribers);
            RoomSpec {
                name: table.name.clone(),
                video_publishers: table.video_publishers.unwrap_or(defaults.video_publishers),
                audio_publishers: table.audio_publishers.unwrap_or(defaults.audio_publishers),
                screen_share_publishers: table
                    .screen_share_publishers
                    .unwrap_or(defaults.screen_share_publishers),
                data_publishers: table.data_publishers.unwrap_or(defaults.data_publishers),
                subscribers: if joins > 0 { staged as u32 } else { subscribers },
                participants: table.participants.unwrap_or(defaults.participants),
                participant_tracks: draft.participant_tracks,
                resolution: table.video_resolution.unwrap_or(draft.resolution),
                video_codec: table.video_codec.clone(),
            }
        })
        .collect()
}

fn check_cohorts(cohorts: &[CohortSpec], impairs: usize, subscribers: u64) -> Result<(), Failure> {
    let parts = (cohorts.len() + 1) * (impairs + 1);
    if parts > COHORTS_MAX {
        return Err(Failure::config(format!(
            "{} cohorts and {impairs} --impair make {parts} parts of the subscribers, and \
             {COHORTS_MAX} is the most that are told apart: leave some out",
            cohorts.len()
        )));
    }
    let mut share_sum = 0.0;
    let mut count_sum = 0u64;
    for (index, cohort) in cohorts.iter().enumerate() {
        if cohort.name == REST || cohort.name.starts_with("impair-") {
            return Err(Failure::config(format!(
                "a cohort can't be named '{}': the report calls others so",
                cohort.name
            )));
        }
        if cohorts[..index].iter().any(|other| other.name == cohort.name) {
            return Err(Failure::config(format!("two cohorts are named '{}'", cohort.name)));
        }
        match cohort.size {
            CohortSize::Share(share) => share_sum += share,
            CohortSize::Count(count) => count_sum += u64::from(count),
        }
    }
    let all = share_sum * subscribers as f64 + count_sum as f64;
    if share_sum > 1.0 + 1e-9 || all > subscribers as f64 + cohorts.len() as f64 {
        return Err(Failure::config(format!(
            "the cohorts want {all:.0} subscribers, but the run has {subscribers}: lower a share \
             or count"
        )));
    }
    Ok(())
}

/// Hold after the stages, or after the ramp.
pub(crate) fn default_duration(stages: usize, embedded: bool) -> Duration {
    match (stages, embedded) {
        (2.., _) => Duration::ZERO,
        (_, true) => Duration::from_secs(20),
        (_, false) => Duration::from_secs(60),
    }
}

#[cfg(test)]
mod tests;
