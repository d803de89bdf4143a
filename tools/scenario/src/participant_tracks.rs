//! What participants that send and receive send.

use std::fmt;
use std::str::FromStr;

/// Camera, microphone or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ParticipantTracks {
    /// Video and audio.
    #[default]
    Both,
    /// Video alone.
    Video,
    /// Audio alone.
    Audio,
}

impl ParticipantTracks {
    /// True if they send video.
    #[must_use]
    pub fn video(self) -> bool {
        self != Self::Audio
    }

    /// True if they send audio.
    #[must_use]
    pub fn audio(self) -> bool {
        self != Self::Video
    }
}

/// It names no tracks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use both, video or audio")]
pub struct ParticipantTracksError;

impl FromStr for ParticipantTracks {
    type Err = ParticipantTracksError;

    fn from_str(text: &str) -> Result<Self, ParticipantTracksError> {
        match text.trim() {
            "both" => Ok(Self::Both),
            "video" => Ok(Self::Video),
            "audio" => Ok(Self::Audio),
            _ => Err(ParticipantTracksError),
        }
    }
}

impl fmt::Display for ParticipantTracks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both",
            Self::Video => "video",
            Self::Audio => "audio",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_read() {
        for (text, video, audio) in
            [("both", true, true), ("video", true, false), ("audio", false, true)]
        {
            let tracks: ParticipantTracks = text.parse().unwrap();
            assert_eq!(tracks.to_string(), text);
            assert_eq!((tracks.video(), tracks.audio()), (video, audio));
        }
        assert_eq!("none".parse::<ParticipantTracks>(), Err(ParticipantTracksError));
    }
}
