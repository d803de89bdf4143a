//! Protobuf messages of clients, bounded before they are decoded: of two bytes on the wire a decoder
//! makes a struct of some hundred, and each of these would be looked at. LiveKit bounds their bytes
//! alone (`pkg/service/rtcservice.go`).

use livekit_protocol as proto;
use prost::Message;
use proto::signal_request::Message as Request;
use stampede_protobuf::{Limit, Part, Refusal, Shape};

/// Most tracks that a message may name or describe: far more than anybody gets or sends.
pub(crate) const TRACKS_MAX: usize = 16_384;
/// Most entries of all other lists of a message together, such as layers and attributes.
pub(crate) const ENTRIES_MAX: usize = 16_384;
/// Most identities and sids that a message of a data channel may be sent to.
pub(crate) const RECEIVERS_MAX: usize = 16_384;

/// Why a message of a client is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BoundedError {
    /// It holds too much, or holds it where it can't be read.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is none of its kind.
    #[error("it can't be read: {0}")]
    Unreadable(#[from] prost::DecodeError),
}

const TRACKS: usize = 0;
const ENTRIES: usize = 1;
const LIMITS: &[Limit] = &[
    Limit { what: "tracks", most: TRACKS_MAX },
    Limit { what: "entries of lists", most: ENTRIES_MAX },
];

const fn track(number: u32) -> Part {
    Part::list(number, TRACKS, &[])
}

const fn entry(number: u32) -> Part {
    Part::list(number, ENTRIES, &[])
}

// livekit_rtc.proto, livekit_models.proto. Lists of numbers are left out: they take no more memory than
// four times their bytes.
/// `SessionDescription.mid_to_track_id`.
static DESCRIPTION: [Part; 1] = [entry(4)];
/// `AddTrackRequest.layers`, `.simulcast_codecs` with their `.layers`.
static ADD_TRACK: [Part; 2] = [entry(9), Part::list(10, ENTRIES, &[entry(4)])];
/// `TrackInfo.layers`, `.codecs` with their `.layers`.
static TRACK_INFO: [Part; 2] = [entry(10), Part::list(13, ENTRIES, &[entry(4)])];
/// `UpdateSubscription.track_sids`, `.participant_tracks` with theirs.
static SUBSCRIPTION: [Part; 2] = [track(1), Part::list(3, ENTRIES, &[track(2)])];
/// `SyncState`: `.answer`, `.subscription`, `.publish_tracks.track`, `.data_channels`, `.offer`,
/// `.track_sids_disabled`, `.datachannel_receive_states`, `.publish_data_tracks`,
/// `.data_subscription.updates`.
static SYNC_STATE: [Part; 9] = [
    Part::one(1, &DESCRIPTION),
    Part::one(2, &SUBSCRIPTION),
    Part::list(3, TRACKS, &[Part::one(2, &TRACK_INFO)]),
    entry(4),
    Part::one(5, &DESCRIPTION),
    track(6),
    entry(7),
    track(8),
    Part::one(9, &[track(1)]),
];

/// What repeats in a `SignalRequest`.
static REQUEST: Shape = Shape::new(
    LIMITS,
    &[
        // `offer`, `answer`, `add_track`, `subscription`, `track_setting`.
        Part::one(1, &DESCRIPTION),
        Part::one(2, &DESCRIPTION),
        Part::one(4, &ADD_TRACK),
        Part::one(6, &SUBSCRIPTION),
        Part::one(7, &[track(1)]),
        // `leave.regions.regions`, `update_layers.layers`.
        Part::one(8, &[Part::one(4, &[entry(1)])]),
        Part::one(10, &[entry(2)]),
        // `subscription_permission.track_permissions.track_sids`.
        Part::one(11, &[Part::list(2, ENTRIES, &[track(3)])]),
        Part::one(12, &SYNC_STATE),
        // `update_metadata.attributes`, `update_data_subscription.updates`.
        Part::one(15, &[entry(3)]),
        Part::one(21, &[track(1)]),
    ],
);

/// What repeats in a `JoinRequest`: attributes, tracks, the offer, and what is told of a state.
static JOIN: Shape = Shape::new(
    LIMITS,
    &[
        entry(4),
        Part::list(5, TRACKS, &ADD_TRACK),
        Part::one(6, &DESCRIPTION),
        Part::one(10, &SYNC_STATE),
    ],
);

/// What repeats in a `DataPacket`: `destination_identities`, those of the `user` packet with its
/// `destination_sids`, `speaker.speakers`, `transcription.segments`, `metrics` with its time series,
/// attributes of a `stream_header` with the streams its text has attached, and of a `stream_trailer`.
static DATA: Shape = Shape::new(
    &[
        Limit { what: "receivers", most: RECEIVERS_MAX },
        Limit { what: "entries of lists", most: ENTRIES_MAX },
    ],
    &[
        Part::list(5, 0, &[]),
        Part::one(2, &[Part::list(3, 0, &[]), Part::list(6, 0, &[])]),
        Part::one(3, &[entry(1)]),
        Part::one(7, &[entry(4)]),
        Part::one(8, &[entry(3), Part::list(4, ENTRIES, &[entry(4)]), entry(5)]),
        Part::one(13, &[entry(8), Part::one(9, &[entry(4)])]),
        Part::one(15, &[entry(3)]),
    ],
);

/// Decodes a signalling message; `None` if it asks for nothing that is known.
///
/// # Errors
/// [`BoundedError`].
pub(crate) fn request(frame: &[u8]) -> Result<Option<Request>, BoundedError> {
    decode::<proto::SignalRequest>(frame, &REQUEST).map(|request| request.message)
}

/// Decodes what a client asks for when it joins.
///
/// # Errors
/// [`BoundedError`].
pub(crate) fn join(bytes: &[u8]) -> Result<proto::JoinRequest, BoundedError> {
    decode(bytes, &JOIN)
}

/// Decodes a message of a data channel.
///
/// # Errors
/// [`BoundedError`].
pub(crate) fn data(bytes: &[u8]) -> Result<proto::DataPacket, BoundedError> {
    decode(bytes, &DATA)
}

fn decode<T: Message + Default>(bytes: &[u8], shape: &Shape) -> Result<T, BoundedError> {
    shape.check(bytes)?;
    Ok(T::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::fmt::Debug;

    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::*;

    /// These bytes in a field, in those around it, outermost first.
    fn within(path: &[u32], inside: &[u8]) -> Vec<u8> {
        path.iter().rev().fold(inside.to_vec(), |inside, number| {
            let mut field = Vec::new();
            encode_key(*number, WireType::LengthDelimited, &mut field);
            encode_varint(inside.len() as u64, &mut field);
            field.extend(inside);
            field
        })
    }

    /// Of each field, at whatever depth, of which empty elements make something of their own: that they
    /// are counted. How many such fields there are.
    fn lists_are_counted<T: Message + Default + Debug>(shape: &Shape) -> usize {
        let shown = |bytes: &[u8]| T::decode(bytes).map(|it| format!("{it:?}").len());
        let (mut lists, mut open) = (0, vec![Vec::new()]);
        while let Some(around) = open.pop() {
            for number in 1..=40 {
                let path = [&around[..], &[number]].concat();
                let of = |count: usize| within(&around, &within(&[number], &[]).repeat(count));
                // Not of a number.
                let (Ok(few), Ok(many)) = (shown(&of(10)), shown(&of(110))) else { continue };
                // Half a field is a text, and no message.
                if T::decode(&within(&path, &[0x08])[..]).is_err() {
                    open.push(path.clone());
                }
                // A message in a message does not grow by being there twice.
                if many < few + 200 {
                    continue;
                }
                lists += 1;
                let most = TRACKS_MAX.max(ENTRIES_MAX).max(RECEIVERS_MAX);
                let refused = shape.check(&of(most + 1));
                assert!(matches!(refused, Err(Refusal::TooMany { .. })), "{path:?}: {refused:?}");
            }
        }
        lists
    }

    #[test]
    fn whatever_a_decoder_makes_lists_of_is_counted() {
        assert!(lists_are_counted::<proto::SignalRequest>(&REQUEST) > 20);
        assert!(lists_are_counted::<proto::JoinRequest>(&JOIN) > 12);
        assert!(lists_are_counted::<proto::DataPacket>(&DATA) > 7);
    }
}
