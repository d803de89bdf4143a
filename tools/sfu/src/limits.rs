//! How long what a participant says of itself may be, and how much of everything there may be, so that
//! nobody can make others pay for it.

use std::collections::HashMap;

use livekit_token::Claims;

/// Longest name of a room in bytes (LiveKit `pkg/config/config.go`, `DefaultConfig`, as those that follow).
pub(crate) const ROOM_NAME_BYTES_MAX: usize = 256;
/// Longest identity of a participant.
pub(crate) const IDENTITY_BYTES_MAX: usize = 256;
/// Longest name that a participant gives itself.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Longest metadata of a participant or a room.
pub(crate) const METADATA_BYTES_MAX: usize = 512 << 10;
/// All attributes of a participant with their names.
pub(crate) const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;

/// Rooms at a time; who would open a further one is refused.
pub(crate) const ROOMS_MAX: usize = 10_000;
/// Participants at a time, in all rooms; further ones are refused.
pub(crate) const PARTICIPANTS_MAX: usize = 50_000;
/// Tracks that a participant publishes; further ones are refused.
pub(crate) const TRACKS_MAX: usize = 1_000;
/// Longest encoded request to publish a track: what it says of it is told to everybody in the room.
pub(crate) const ADD_TRACK_BYTES_MAX: usize = 16 << 10;
/// Layers that a track may be said to have, and codecs; LiveKit knows of three and two.
pub(crate) const LAYERS_MAX: usize = 16;

/// Something is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {bytes} bytes; at most {max} are taken")]
pub(crate) struct TooLong {
    what: &'static str,
    bytes: usize,
    max: usize,
}

/// Looks at one.
///
/// # Errors
/// It is too long.
pub(crate) fn check(what: &'static str, bytes: usize, max: usize) -> Result<(), TooLong> {
    if bytes > max { Err(TooLong { what, bytes, max }) } else { Ok(()) }
}

/// Looks at what a participant is called and says of itself when it joins.
///
/// # Errors
/// The first that is too long.
pub(crate) fn check_claims(claims: &Claims) -> Result<(), TooLong> {
    check("a room name", claims.video.room.len(), ROOM_NAME_BYTES_MAX)?;
    check("an identity", claims.sub.len(), IDENTITY_BYTES_MAX)?;
    check_metadata(&claims.name, &claims.metadata, &claims.attributes)
}

/// Looks at what a participant says of itself.
///
/// # Errors
/// The first that is too long.
pub(crate) fn check_metadata(
    name: &str,
    metadata: &str,
    attributes: &HashMap<String, String>,
) -> Result<(), TooLong> {
    check("a name", name.len(), NAME_BYTES_MAX)?;
    check("metadata", metadata.len(), METADATA_BYTES_MAX)?;
    let attributes = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    check("attributes", attributes, ATTRIBUTES_BYTES_MAX)
}
