//! Bytes to messages, without paying for participants nobody asks about.
//!
//! In a room of 2,000 every session is told about every other one, in `join` and in `update`. Only
//! participants with tracks, or that had some, and those that left matter to a session; the others
//! are stepped over as bytes, which saves their dozen allocations each.

use livekit_protocol as proto;
use prost::Message;
use prost::bytes::Bytes;
use proto::signal_response::Message as Response;

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
) -> Result<Decoded, prost::DecodeError> {
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
    let mut top = Fields(bytes);
    let Some(Some(Field { number, value: Value::Bytes(body), .. })) = top.next() else {
        return Ok(None);
    };
    if !top.0.is_empty() || !matches!(number, JOIN | UPDATE) {
        return Ok(None);
    }
    let list = if number == JOIN { JOIN_OTHERS } else { UPDATE_PARTICIPANTS };
    let mut kept = Vec::new();
    let mut skipped = 0;
    let mut join = proto::JoinResponse::default();
    for field in Fields(body) {
        let Some(field) = field else { return Ok(None) };
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
    for field in Fields(participant) {
        let field = field?;
        matters |= match (field.number, field.value) {
            (PARTICIPANT_TRACKS, _) => true,
            (PARTICIPANT_DATA_TRACKS, _) => data_tracks,
            (PARTICIPANT_SID, Value::Bytes(sid)) => std::str::from_utf8(sid).is_ok_and(&known),
            (PARTICIPANT_STATE, Value::Varint(state)) => state == gone,
            _ => false,
        };
    }
    Some(matters)
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

struct Field<'a> {
    number: u32,
    value: Value<'a>,
    /// Key and value as they stand.
    whole: &'a [u8],
}

/// The fields of a protobuf message (protobuf.dev, "Encoding"); yields `None` once when malformed.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = split_field(self.0);
        self.0 = field.as_ref().map_or(&[], |field| &self.0[field.whole.len()..]);
        Some(field)
    }
}

fn split_field(bytes: &[u8]) -> Option<Field<'_>> {
    let (key, mut rest) = varint(bytes)?;
    let value = match key & 7 {
        0 => {
            let (value, after) = varint(rest)?;
            rest = after;
            Value::Varint(value)
        }
        1 => {
            rest = rest.get(8..)?;
            Value::Fixed
        }
        2 => {
            let (len, after) = varint(rest)?;
            let len = usize::try_from(len).ok()?;
            let value = after.get(..len)?;
            rest = &after[len..];
            Value::Bytes(value)
        }
        5 => {
            rest = rest.get(4..)?;
            Value::Fixed
        }
        _ => return None,
    };
    let number = u32::try_from(key >> 3).ok()?;
    Some(Field { number, value, whole: &bytes[..bytes.len() - rest.len()] })
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
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
