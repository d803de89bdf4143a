//! The shape of a run: scenario file, stages, layouts, cohorts, rooms, capacity search.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stampede_signaling::session::Layout;

use super::cohort::{Cohort, CohortSize, RoomTable};
use super::stage::{self, Stage};
use super::values::Resolution;
use super::{RunFlags, find};
use crate::exit::Failure;
use crate::run::REST;

/// Most parts of the subscribers, each with figures of its own: cohorts, crossed with `--impair`.
/// Each worker keeps most of a megabyte of histograms for each that has subscribers.
const COHORTS_MAX: usize = 100;

/// Flags of the shape of a run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShapeFlags {
    /// TOML file with any of these options (`stampede init` writes one); flags and environment
    /// override it.
    #[arg(long, value_name = "FILE", help_heading = "Scenario")]
    pub scenario: Option<PathBuf>,
    /// Within DUR go evenly to SUBS subscribers over all rooms; repeat it for further stages. When
    /// the number falls, those who joined last leave first. What is measured begins when the first
    /// stage ends; --duration holds after the last one [default then: 0s after two or more].
    #[arg(long, value_name = "DUR:SUBS", help_heading = "Scenario")]
    pub stage: Vec<Stage>,
    /// Subscribers join hidden: the server tells nobody about them, which spares it work.
    #[arg(long, help_heading = "Scenario")]
    pub hidden: bool,
    /// What subscribers show: speaker is one participant at 1280x720 and five at 320x180, 3x3 nine at
    /// 640x360, 4x4 and 5x5 as many at 320x180; without it everything at --video-resolution.
    #[arg(long, value_enum, value_name = "LAYOUT", help_heading = "Media")]
    pub layout: Option<LayoutFlag>,
    /// Who chooses the tracks: auto subscribes to all of them (videos that a layout does not show are
    /// switched off), manual to each by itself [default: auto, with --layout manual].
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Media")]
    pub subscribe_mode: Option<SubscribeMode>,
    /// Audio publishers take turns in being loud: somebody speaks for 5 s, then there is 1 s of pause.
    #[arg(long, help_heading = "Media")]
    pub simulate_speakers: bool,
    #[command(flatten)]
    pub find: find::FindFlags,
    /// From the scenario file.
    #[arg(skip)]
    pub cohorts: Vec<Cohort>,
    /// From the scenario file.
    #[arg(skip)]
    pub room_tables: Vec<RoomTable>,
}

/// Layouts by the names of `lk perf load-test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LayoutFlag {
    /// One large, five small.
    Speaker,
    /// Nine.
    #[value(name = "3x3")]
    Grid3x3,
    /// Sixteen.
    #[value(name = "4x4")]
    Grid4x4,
    /// Twenty-five.
    #[value(name = "5x5")]
    Grid5x5,
}

impl LayoutFlag {
    /// What signalling calls it.
    pub(crate) fn layout(self) -> Layout {
        match self {
            Self::Speaker => Layout::Speaker,
            Self::Grid3x3 => Layout::Grid3x3,
            Self::Grid4x4 => Layout::Grid4x4,
            Self::Grid5x5 => Layout::Grid5x5,
        }
    }

    /// As written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Speaker => "speaker",
            Self::Grid3x3 => "3x3",
            Self::Grid4x4 => "4x4",
            Self::Grid5x5 => "5x5",
        }
    }
}

/// Who chooses the tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SubscribeMode {
    /// The server.
    Auto,
    /// The subscriber.
    Manual,
}

impl SubscribeMode {
    /// As written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

/// One room as it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomPlan {
    /// Its own name; `None` is named after the run.
    pub name: Option<String>,
    /// Publishers of video.
    pub video_publishers: u32,
    /// Publishers of audio.
    pub audio_publishers: u32,
    /// Subscribers that join; with stages over all of them.
    pub subscribers: u32,
    /// Layer asked for.
    pub resolution: Resolution,
}

impl RoomPlan {
    /// Publishing participants: the first ones send video and audio.
    pub(crate) fn publishers(&self) -> u32 {
        self.video_publishers.max(self.audio_publishers)
    }
}

/// The shape of a run, checked.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Stages; empty for a plain ramp.
    pub stages: Vec<Stage>,
    /// One for each room.
    pub rooms: Vec<RoomPlan>,
    /// Parts of the subscribers.
    pub cohorts: Vec<Cohort>,
    /// What subscribers show.
    pub layout: Option<LayoutFlag>,
    /// Who chooses the tracks.
    pub subscribe_mode: SubscribeMode,
    /// See [`ShapeFlags::simulate_speakers`].
    pub simulate_speakers: bool,
    /// See [`ShapeFlags::hidden`].
    pub hidden: bool,
}

/// Counts of a room where its table says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomDefaults {
    /// Publishers of video.
    pub video_publishers: u32,
    /// Publishers of audio.
    pub audio_publishers: u32,
    /// Subscribers.
    pub subscribers: u32,
}

impl Shape {
    /// Checks the flags against each other.
    ///
    /// # Errors
    /// The first contradiction, exit code 104.
    pub(crate) fn new(flags: &RunFlags, defaults: RoomDefaults) -> Result<Self, Failure> {
        let shape = &flags.shape;
        check_stages(flags)?;
        let rooms = rooms(flags, defaults);
        let subscribers = rooms.iter().map(|room| u64::from(room.subscribers)).sum();
        check_cohorts(&shape.cohorts, flags.impair.len(), subscribers)?;
        let by_layout =
            if shape.layout.is_some() { SubscribeMode::Manual } else { SubscribeMode::Auto };
        Ok(Self {
            stages: shape.stage.clone(),
            rooms,
            cohorts: shape.cohorts.clone(),
            layout: shape.layout,
            subscribe_mode: shape.subscribe_mode.unwrap_or(by_layout),
            simulate_speakers: shape.simulate_speakers,
            hidden: shape.hidden,
        })
    }

    /// Publishers over all rooms.
    pub(crate) fn publishers(&self) -> usize {
        self.rooms.iter().map(|room| room.publishers() as usize).sum()
    }

    /// Subscribers that join, over all rooms.
    pub(crate) fn subscribers(&self) -> usize {
        self.rooms.iter().map(|room| room.subscribers as usize).sum()
    }

    /// Most subscribers at one time.
    pub(crate) fn subscribers_peak(&self) -> usize {
        if self.stages.is_empty() { self.subscribers() } else { stage::peak(&self.stages) as usize }
    }
}

fn check_stages(flags: &RunFlags) -> Result<(), Failure> {
    if flags.shape.stage.is_empty() {
        return Ok(());
    }
    let per_room = flags.shape.room_tables.iter().any(|room| room.subscribers.is_some());
    for (given, what) in [
        (flags.subscribers.is_some(), "--subscribers"),
        (per_room, "a [[room]]'s subscribers"),
        (flags.shape.find.find.is_some(), "--find"),
    ] {
        if given {
            return Err(Failure::config(format!(
                "--stage says how many subscribers there are, and so does {what}: leave one out"
            )));
        }
    }
    if stage::peak(&flags.shape.stage) == 0 {
        return Err(Failure::config("--stage: no stage has a subscriber"));
    }
    Ok(())
}

fn rooms(flags: &RunFlags, defaults: RoomDefaults) -> Vec<RoomPlan> {
    let tables = &flags.shape.room_tables;
    let count = (flags.rooms as usize).max(tables.len());
    let joins = stage::joins(&flags.shape.stage) as usize;
    let none = RoomTable::default();
    (0..count)
        .map(|index| {
            let table = tables.get(index).unwrap_or(&none);
            // Of stages every room gets its turn.
            let staged = joins / count + usize::from(index < joins % count);
            let subscribers = table.subscribers.unwrap_or(defaults.subscribers);
            RoomPlan {
                name: table.name.clone(),
                video_publishers: table.video_publishers.unwrap_or(defaults.video_publishers),
                audio_publishers: table.audio_publishers.unwrap_or(defaults.audio_publishers),
                subscribers: if joins > 0 { staged as u32 } else { subscribers },
                resolution: table.video_resolution.unwrap_or(flags.video_resolution),
            }
        })
        .collect()
}

fn check_cohorts(cohorts: &[Cohort], impairs: usize, subscribers: u64) -> Result<(), Failure> {
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

/// A share like `10%`, or a number from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    stampede_units::parse::share(text).map_err(|error| error.to_string())
}

/// Hold after the stages, or after the ramp.
pub(super) fn default_duration(stages: usize, embedded: bool) -> Duration {
    match (stages, embedded) {
        (2.., _) => Duration::ZERO,
        (_, true) => Duration::from_secs(20),
        (_, false) => Duration::from_secs(60),
    }
}
