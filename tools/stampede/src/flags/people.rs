//! Flags of what participants are and say besides their media.

use clap::Args;
use stampede_scenario::{Grant, Profile, values};

/// Flags of what participants are and say besides their media.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeopleFlags {
    /// Load signalling alone: subscribers join, ping and stay, and subscribe to nothing. Their peer
    /// connections stand, for a livekit-server sends away whose does not within a minute.
    #[arg(long, help_heading = "Scenario")]
    pub no_media: bool,
    /// A grant of every join token, by the name that LiveKit's tokens have for it, like
    /// canPublish=false or canPublishSources=camera,microphone; in the place of what the
    /// participant's part would be granted. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Scenario")]
    pub grant: Vec<Grant>,
    /// Metadata of every participant.
    #[arg(long, value_name = "TEXT", help_heading = "Scenario")]
    pub participant_metadata: Option<String>,
    /// An attribute of every participant; may be repeated.
    #[arg(
        long,
        value_name = "NAME=VALUE",
        value_parser = attribute,
        help_heading = "Scenario"
    )]
    pub participant_attribute: Vec<(String, String)>,
    /// How often each participant changes an attribute of its own (stampede.update), which all others
    /// in its room are told with whatever else it says of itself; how soon is measured.
    #[arg(
        long,
        value_name = "N",
        value_parser = values::updates_rate,
        help_heading = "Scenario"
    )]
    pub metadata_updates_per_second: Option<f64>,
}

impl PeopleFlags {
    /// What join tokens say besides.
    pub(super) fn profile(self) -> Profile {
        Profile {
            grants: self.grant,
            metadata: self.participant_metadata.unwrap_or_default(),
            attributes: self.participant_attribute,
        }
    }
}

pub(super) fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like lang=en".to_owned()),
    }
}
