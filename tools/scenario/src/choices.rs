//! Choices by the names that flags and scenario files have for them.

use stampede_signaling::session::{DataTracks, Layout};

/// Layouts by the names of `lk perf load-test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum LayoutChoice {
    /// One large, five small.
    Speaker,
    /// Nine.
    #[cfg_attr(feature = "clap", value(name = "3x3"))]
    Grid3x3,
    /// Sixteen.
    #[cfg_attr(feature = "clap", value(name = "4x4"))]
    Grid4x4,
    /// Twenty-five.
    #[cfg_attr(feature = "clap", value(name = "5x5"))]
    Grid5x5,
}

impl LayoutChoice {
    /// What signalling calls it.
    pub fn layout(self) -> Layout {
        match self {
            Self::Speaker => Layout::Speaker,
            Self::Grid3x3 => Layout::Grid3x3,
            Self::Grid4x4 => Layout::Grid4x4,
            Self::Grid5x5 => Layout::Grid5x5,
        }
    }

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Speaker => "speaker",
            Self::Grid3x3 => "3x3",
            Self::Grid4x4 => "4x4",
            Self::Grid5x5 => "5x5",
        }
    }
}

/// Who chooses the tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum SubscribeMode {
    /// The server.
    Auto,
    /// The subscriber.
    Manual,
}

impl SubscribeMode {
    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

/// How subscribers get data tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum DataTrackSubscribe {
    /// The server subscribes everybody to all of them.
    Auto,
    /// Each subscriber subscribes to each of them, as users of LiveKit's SDKs do.
    Manual,
    /// Not at all.
    None,
}

impl DataTrackSubscribe {
    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
            Self::None => "none",
        }
    }

    /// What signalling calls it.
    pub(crate) fn wants(self) -> DataTracks {
        match self {
            Self::Auto => DataTracks::Auto,
            Self::Manual => DataTracks::Manual,
            Self::None => DataTracks::None,
        }
    }

    /// What it is where only this is said.
    pub(crate) fn usual(mode: SubscribeMode) -> Self {
        match mode {
            SubscribeMode::Auto => Self::Auto,
            SubscribeMode::Manual => Self::Manual,
        }
    }
}
