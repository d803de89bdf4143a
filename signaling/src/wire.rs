//! Bytes to messages, without paying for participants nobody asks about.
//!
//! In a room of 2,000 every session is told about every other one, in `join` and in `update`. Only
//! participants with tracks, or that had some, and those that left matter to a session; the others
//! are stepped over as bytes, which saves their dozen allocations each. What repeats is counted before
//! anything is decoded ([`SHAPE`]).

use livekit_protocol as proto;
use prost::Message;
use prost::bytes::Bytes;
use proto::signal_response::Message as Response;
use stampede_protobuf::{Field, Fields, Limit, Part, Refusal, Shape, Value};
use thiserror::Error;

/// livekit_rtc.proto `SignalResponse.join`, `SignalResponse.update`.
const JOIN: u32 = 1;
const UPDATE: u32 = 5;
/// `JoinResponse.other_participants`, `ParticipantUpdate.participants`.
const JOIN_OTHERS: u32 = 3;
const UPDATE_PARTICIPANTS: u32 = 1;
/// livekit_models.proto `ParticipantInfo.sid`, `.state`, `.tracks`, `.data_tracks`.
const PARTICIPANT_SID: u32 = 1;
const PARTICIPANT_STATE: u32 = 3;
const PARTICIPANT_TRACKS: u32 = 4;
const PARTICIPANT_DATA_TRACKS: u32 = 19;

/// Most participants of one message, tracks of them together, and all else that repeats: far above any
/// room, and no more than some 30 MB once they are decoded.
pub(crate) const PARTICIPANTS_MAX: usize = 65_536;
/// See [`PARTICIPANTS_MAX`].
pub(crate) const TRACKS_MAX: usize = 65_536;
/// See [`PARTICIPANTS_MAX`].
pub(crate) const ENTRIES_MAX: usize = 262_144;

const PARTICIPANTS: usize = 0;
const TRACKS: usize = 1;
const ENTRIES: usize = 2;

/// An entry of a list in which nothing repeats.
const fn entry(number: u32) -> Part {
    Part::list(number, ENTRIES, &[])
}

// livekit_models.proto, livekit_rtc.proto. Lists of numbers are left out: they take no more memory
// than four times their bytes.
/// `TrackInfo.layers`, `.codecs` with their `.layers`.
static OF_TRACK: [Part; 2] = [entry(10), Part::list(13, ENTRIES, &[entry(4)])];
/// `ParticipantInfo.tracks`, `.attributes`, `.data_tracks`.
static OF_PARTICIPANT: [Part; 3] =
    [Part::list(PARTICIPANT_TRACKS, TRACKS, &OF_TRACK), entry(15), Part::list(19, TRACKS, &[])];
/// `Room.enabled_codecs`.
static OF_ROOM: [Part; 1] = [entry(7)];
/// `IceServer.urls`.
static OF_ICE_SERVER: [Part; 1] = [entry(1)];
/// `ClientConfiguration.disabled_codecs`: `.codecs`, `.publish`.
static OF_CONFIGURATION: [Part; 1] = [Part::one(4, &[entry(1), entry(2)])];

/// What repeats in a `SignalResponse`.
static SHAPE: Shape = Shape::new(
    &[
        Limit { what: "participants", most: PARTICIPANTS_MAX },
        Limit { what: "tracks", most: TRACKS_MAX },
        Limit { what: "entries of lists", most: ENTRIES_MAX },
    ],
    &[
        Part::one(
            JOIN,
            &[
                Part::one(1, &OF_ROOM),
                Part::one(2, &OF_PARTICIPANT),
                Part::list(JOIN_OTHERS, PARTICIPANTS, &OF_PARTICIPANT),
                Part::list(5, ENTRIES, &OF_ICE_SERVER),
                Part::one(8, &OF_CONFIGURATION),
                entry(14),
            ],
        ),
        // Descriptions: `mid_to_track_id`.
        Part::one(2, &[entry(4)]),
        Part::one(3, &[entry(4)]),
        Part::one(UPDATE, &[Part::list(UPDATE_PARTICIPANTS, PARTICIPANTS, &OF_PARTICIPANT)]),
        // `track_published.track`, `leave.regions.regions`, `speakers_changed.speakers`.
        Part::one(6, &[Part::one(2, &OF_TRACK)]),
        Part::one(8, &[Part::one(4, &[entry(1)])]),
        Part::one(10, &[entry(1)]),
        // `room_update.room`, `connection_quality.updates`, `stream_state_update.stream_states`.
        Part::one(11, &[Part::one(1, &OF_ROOM)]),
        Part::one(12, &[entry(1)]),
        Part::one(13, &[entry(1)]),
        // `subscribed_quality_update`: `.subscribed_qualities`, `.subscribed_codecs.qualities`.
        Part::one(14, &[entry(2), Part::list(3, ENTRIES, &[entry(2)])]),
        Part::one(19, &[Part::list(1, ENTRIES, &OF_ICE_SERVER), Part::one(2, &OF_CONFIGURATION)]),
        // `request_response`: what it answers may be an `add_track` or an `update_metadata`.
        Part::one(
            22,
            &[
                Part::one(5, &[entry(9), Part::list(10, ENTRIES, &[entry(4)])]),
                Part::one(7, &[entry(3)]),
            ],
        ),
        Part::one(
            24,
            &[
                Part::one(1, &OF_ROOM),
                Part::one(3, &OF_PARTICIPANT),
                Part::list(4, PARTICIPANTS, &OF_PARTICIPANT),
            ],
        ),
        // `subscribed_audio_codec_update.subscribed_audio_codecs`, handles of data tracks.
        Part::one(26, &[entry(2)]),
        Part::one(29, &[entry(1)]),
    ],
);

/// Why a message is no `SignalResponse` to go by.
#[derive(Debug, Clone, PartialEq, Error)]
pub(crate) enum DecodeError {
    /// It is none.
    #[error("it is no signal response")]
    Malformed,
    /// It holds more of something than anybody has use for.
    #[error("it holds more than {most} {what}")]
    TooMany { what: &'static str, most: usize },
}

impl From<prost::DecodeError> for DecodeError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed
    }
}

impl From<Refusal> for DecodeError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::Malformed,
            Refusal::TooMany { what, most } => Self::TooMany { what, most },
        }
    }
}

/// A message, less the participants that don't matter.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Decoded {
    pub(crate) response: proto::SignalResponse,
    /// Participants stepped over.
    pub(crate) skipped: usize,
}

/// Decodes one binary websocket message. `data_tracks` matter if data tracks do as well; `known` are
/// the sids of participants with tracks that matter.
pub(crate) fn decode(
    bytes: &Bytes,
    data_tracks: bool,
    known: impl Fn(&str) -> bool,
) -> Result<Decoded, DecodeError> {
    SHAPE.check(bytes)?;
    if let Some(decoded) = decode_sparse(bytes, data_tracks, known)? {
        return Ok(decoded);
    }
    // A clone of the handle, not of the bytes.
    let response = proto::SignalResponse::decode(bytes.clone())?;
    Ok(Decoded { response, skipped: 0 })
}

/// `Ok(None)` if it is another message, or built in a way that only the full decoder should judge.
fn decode_sparse(
    bytes: &[u8],
    data_tracks: bool,
    known: impl Fn(&str) -> bool,
) -> Result<Option<Decoded>, prost::DecodeError> {
    let mut top = Fields::of(bytes);
    let Some(Ok(Field { number, value: Value::Bytes(body), .. })) = top.next() else {
        return Ok(None);
    };
    if !top.rest().is_empty() || !matches!(number, JOIN | UPDATE) {
        return Ok(None);
    }
    let list = if number == JOIN { JOIN_OTHERS } else { UPDATE_PARTICIPANTS };
    let mut kept = Vec::new();
    let mut skipped = 0;
    let mut join = proto::JoinResponse::default();
    for field in Fields::of(body) {
        let Ok(field) = field else { return Ok(None) };
        match field.value {
            Value::Bytes(participant) if field.number == list => {
                match matters(participant, data_tracks, &known) {
                    Some(true) => kept.push(proto::ParticipantInfo::decode(participant)?),
                    Some(false) => skipped += 1,
                    None => return Ok(None),
                }
            }
            // Protobuf messages concatenate, so fields can be merged one at a time.
            _ if number == JOIN => join.merge(field.whole)?,
            _ => {}
        }
    }
    let message = if number == JOIN {
        join.other_participants = kept;
        Response::Join(join)
    } else {
        Response::Update(proto::ParticipantUpdate { participants: kept })
    };
    Ok(Some(Decoded { response: proto::SignalResponse { message: Some(message) }, skipped }))
}

/// Has or had tracks, or left. `None` if malformed.
fn matters(participant: &[u8], data_tracks: bool, known: impl Fn(&str) -> bool) -> Option<bool> {
    let gone = proto::participant_info::State::Disconnected as u64;
    let mut matters = false;
    for field in Fields::of(participant) {
        let field = field.ok()?;
        matters |= match (field.number, field.value) {
            (PARTICIPANT_TRACKS, _) => true,
            (PARTICIPANT_DATA_TRACKS, _) => data_tracks,
            (PARTICIPANT_SID, Value::Bytes(sid)) => std::str::from_utf8(sid).is_ok_and(&known),
            (PARTICIPANT_STATE, Value::Number(state)) => state == gone,
            _ => false,
        };
    }
    Some(matters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nobody(_: &str) -> bool {
        false
    }

    fn participant(index: usize, tracks: usize, state: i32) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: format!("PA_{index}"),
            identity: format!("identity-{index}"),
            state,
            joined_at: 1_700_000_000,
            permission: Some(proto::ParticipantPermission::default()),
            tracks: (0..tracks)
                .map(|track| proto::TrackInfo {
                    sid: format!("TR_{index}_{track}"),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    fn join(others: Vec<proto::ParticipantInfo>) -> proto::SignalResponse {
        proto::SignalResponse {
            message: Some(Response::Join(proto::JoinResponse {
                room: Some(proto::Room { name: "room".into(), ..Default::default() }),
                participant: Some(participant(999, 0, 0)),
                other_participants: others,
                ping_interval: 5,
                ping_timeout: 15,
                fast_publish: true,
                sif_trailer: vec![1, 2, 3],
                server_version: "1.13.5".into(),
                ..Default::default()
            })),
        }
    }

    fn encode(response: &proto::SignalResponse) -> Bytes {
        response.encode_to_vec().into()
    }

    #[test]
    fn join_keeps_publishers_and_those_that_left() {
        let others = vec![participant(0, 0, 2), participant(1, 2, 2), participant(2, 0, 3)];
        let expected = join(others[1..].to_vec());
        let decoded = decode(&encode(&join(others)), false, nobody).unwrap();
        assert_eq!(decoded, Decoded { response: expected, skipped: 1 });
    }

    #[test]
    fn update_keeps_publishers_and_those_that_left() {
        let update = |participants| proto::SignalResponse {
            message: Some(Response::Update(proto::ParticipantUpdate { participants })),
        };
        let all: Vec<_> = (0..2_000).map(|i| participant(i, usize::from(i == 7), 2)).collect();
        let expected = update(vec![all[7].clone()]);
        let decoded = decode(&encode(&update(all)), false, nobody).unwrap();
        assert_eq!(decoded, Decoded { response: expected, skipped: 1_999 });
    }

    #[test]
    fn a_publisher_that_unpublished_its_last_track_is_kept() {
        let update = proto::SignalResponse {
            message: Some(Response::Update(proto::ParticipantUpdate {
                participants: vec![participant(1, 0, 2), participant(2, 0, 2)],
            })),
        };
        let decoded = decode(&encode(&update), false, |sid| sid == "PA_2").unwrap();
        assert_eq!(decoded.skipped, 1);
        let Some(Response::Update(update)) = decoded.response.message else { panic!() };
        assert_eq!(update.participants, [participant(2, 0, 2)]);
    }

    #[test]
    fn who_publishes_data_tracks_alone_matters_only_if_these_do() {
        let data_tracks = vec![proto::DataTrackInfo { sid: "DTR_1".into(), ..Default::default() }];
        let publisher = proto::ParticipantInfo { data_tracks, ..participant(1, 0, 2) };
        let bytes = encode(&join(vec![participant(0, 0, 2), publisher.clone()]));
        let decoded = decode(&bytes, true, nobody).unwrap();
        assert_eq!(decoded, Decoded { response: join(vec![publisher]), skipped: 1 });
        assert_eq!(decode(&bytes, false, nobody).unwrap().skipped, 2);
    }

    #[test]
    fn empty_and_cut_messages() {
        assert_eq!(decode(&Bytes::new(), false, nobody).unwrap(), Decoded::default());
        let whole = encode(&join(vec![participant(0, 0, 2), participant(1, 2, 2)]));
        for cut in 1..whole.len() {
            assert!(decode(&whole.slice(..cut), false, nobody).is_err(), "cut at {cut}");
        }
    }

    /// Of each field of a response, at whatever depth, in which empty elements make something of their
    /// own: they are counted. So what a decoder makes lists of is in [`SHAPE`].
    #[test]
    fn whatever_a_decoder_makes_lists_of_is_counted() {
        /// An element of a field, in those around it, outermost first.
        fn within(path: &[u32], inside: &[u8]) -> Vec<u8> {
            path.iter().rev().fold(inside.to_vec(), |inside, number| {
                let mut field = Vec::new();
                prost::encoding::encode_key(
                    *number,
                    prost::encoding::WireType::LengthDelimited,
                    &mut field,
                );
                prost::encoding::encode_varint(inside.len() as u64, &mut field);
                field.extend(inside);
                field
            })
        }
        let decode = |bytes: &[u8]| proto::SignalResponse::decode(bytes);
        let shown = |bytes: &[u8]| decode(bytes).map(|it| format!("{it:?}").len());
        let (mut lists, mut open) = (0, vec![Vec::new()]);
        while let Some(path) = open.pop() {
            for number in 1..=40 {
                let path = [&path[..], &[number]].concat();
                // Half a field makes only what is read as a message fail: as a text it is one letter.
                let is_message =
                    decode(&within(&path, &[])).is_ok() && decode(&within(&path, &[0x08])).is_err();
                if is_message && path.len() < 7 {
                    open.push(path.clone());
                }
                let Some((last, around)) = path.split_last() else { continue };
                let element = within(&[*last], &[]);
                let of = |count: usize| within(around, &element.repeat(count));
                let (Ok(few), Ok(many)) = (shown(&of(10)), shown(&of(110))) else { continue };
                // A message in a message does not grow by being there twice.
                if many < few + 200 {
                    continue;
                }
                lists += 1;
                let most = ENTRIES_MAX + 1;
                let refused = SHAPE.check(&of(most));
                assert!(matches!(refused, Err(Refusal::TooMany { .. })), "{path:?}: {refused:?}");
            }
        }
        assert!(lists > 30, "{lists} lists were found");
    }

    #[test]
    fn a_message_of_empty_tracks_is_not_decoded() {
        // 8 MB of them would take 2 GB.
        let tracks = [0x22, 0].repeat(4 << 20);
        let mut participant = vec![0x1a];
        prost::encoding::encode_varint(tracks.len() as u64, &mut participant);
        participant.extend(tracks);
        let mut message = vec![0x0a];
        prost::encoding::encode_varint(participant.len() as u64, &mut message);
        message.extend(participant);
        let refused = decode(&message.into(), false, nobody);
        assert_eq!(refused, Err(DecodeError::TooMany { what: "tracks", most: TRACKS_MAX }));
    }

    proptest! {
        #[test]
        fn never_panics_on_noise(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&noise.into(), false, nobody);
        }

        #[test]
        fn agrees_with_the_full_decoder(
            others in proptest::collection::vec((0_usize..3, 0_i32..5), 0..20),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let others = others.iter().enumerate().map(|(i, (t, s))| participant(i, *t, *s));
            let mut bytes = join(others.collect()).encode_to_vec();
            for (index, byte) in flips {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            let full = proto::SignalResponse::decode(bytes.as_slice());
            let sparse = decode(&bytes.into(), false, nobody);
            // The sparse decoder may pass a malformed participant it stepped over, never the
            // reverse.
            if let Ok(full) = full {
                let sparse = sparse.unwrap();
                if let (Some(Response::Join(full)), Some(Response::Join(sparse_join))) =
                    (full.message, sparse.response.message)
                {
                    let all = full.other_participants.len();
                    prop_assert_eq!(all, sparse_join.other_participants.len() + sparse.skipped);
                    prop_assert_eq!(full.room, sparse_join.room);
                    prop_assert_eq!(full.participant, sparse_join.participant);
                    prop_assert_eq!(full.sif_trailer, sparse_join.sif_trailer);
                }
            }
        }
    }
}
