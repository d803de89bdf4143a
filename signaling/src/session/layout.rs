//! How a subscriber arranges what it shows: `lk perf load-test --layout` (livekit-cli
//! pkg/loadtester/loadtester.go).

use super::track::{Quality, VideoSize};

/// How a subscriber arranges what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// One participant large, five small.
    Speaker,
    /// Nine of middle size.
    Grid3x3,
    /// Sixteen small ones.
    Grid4x4,
    /// Twenty-five small ones.
    Grid5x5,
}

pub(super) const LARGE: VideoSize = VideoSize { quality: Quality::High, width: 1_280, height: 720 };
pub(super) const MIDDLE: VideoSize =
    VideoSize { quality: Quality::Medium, width: 640, height: 360 };
pub(super) const SMALL: VideoSize = VideoSize { quality: Quality::Low, width: 320, height: 180 };

impl Layout {
    /// Most participants shown; also the most videos.
    #[must_use]
    pub fn participants_max(self) -> usize {
        match self {
            Self::Speaker => 6,
            Self::Grid3x3 => 9,
            Self::Grid4x4 => 16,
            Self::Grid5x5 => 25,
        }
    }

    /// Size of the video in this place, 0 being the first.
    #[must_use]
    pub fn size(self, place: usize) -> VideoSize {
        match self {
            Self::Speaker if place == 0 => LARGE,
            Self::Grid3x3 => MIDDLE,
            Self::Speaker | Self::Grid4x4 | Self::Grid5x5 => SMALL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_go_tester() {
        for (layout, videos, first, last) in [
            (Layout::Speaker, 6, LARGE, SMALL),
            (Layout::Grid3x3, 9, MIDDLE, MIDDLE),
            (Layout::Grid4x4, 16, SMALL, SMALL),
            (Layout::Grid5x5, 25, SMALL, SMALL),
        ] {
            assert_eq!(layout.participants_max(), videos);
            assert_eq!((layout.size(0), layout.size(videos - 1)), (first, last));
        }
    }
}
