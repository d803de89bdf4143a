//! LiveKit's `DataPacket` (livekit_models.proto), as far as it is needed here: protobuf's wire format
//! read in place.

use stampede_protobuf::{Fields, Malformed, Value};

/// Fields of `DataPacket`.
const USER: u32 = 2;
/// Fields of `UserPacket`.
const PAYLOAD: u32 = 2;
const TOPIC: u32 = 4;
/// What each message of ours is published under.
const OUR_TOPIC: &str = "stampede";
/// Most fields that a message is read to; ours have a handful, and of a foreign one the first do.
const FIELDS_MAX: usize = 64;

/// The fields of a message, number and value, as far as messages are read.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), Malformed>> {
    let fields = Fields::of(message).take(FIELDS_MAX);
    fields.map(|field| field.map(|field| (field.number, field.value)))
}

/// What a message of a data channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read<'a> {
    /// A user's message with this payload.
    User(&'a [u8]),
    /// Something else of LiveKit's.
    Other,
}

/// Reads and writes packets.
pub(crate) struct Packet;

impl Packet {
    /// Reads one.
    pub(crate) fn read(message: &[u8]) -> Result<Read<'_>, Malformed> {
        let mut read = Read::Other;
        for field in fields(message) {
            if let (USER, Value::Bytes(user)) = field? {
                for field in fields(user) {
                    if let (PAYLOAD, Value::Bytes(payload)) = field? {
                        read = Read::User(payload);
                    }
                }
            }
        }
        Ok(read)
    }

    /// Writes a user's message: this header, then so many bytes that mean nothing. It takes the
    /// place of what is in `to`.
    pub(crate) fn write_user(header: &[u8], bytes: usize, to: &mut Vec<u8>) {
        let payload = bytes.max(header.len());
        to.clear();
        let inside = bytes_field(payload) + bytes_field(OUR_TOPIC.len());
        put_length(to, USER, inside);
        put_length(to, PAYLOAD, payload);
        to.extend_from_slice(header);
        to.resize(to.len() + payload - header.len(), b'.');
        put_length(to, TOPIC, OUR_TOPIC.len());
        to.extend_from_slice(OUR_TOPIC.as_bytes());
    }
}

pub(super) fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// The head of a field of bytes.
pub(super) fn put_length(to: &mut Vec<u8>, field: u32, length: usize) {
    put_varint(to, u64::from(field) << 3 | 2);
    put_varint(to, length as u64);
}

/// How long a field of so many bytes is, of a number below 16.
fn bytes_field(length: usize) -> usize {
    let digits = (usize::BITS - length.leading_zeros()).max(1) as usize;
    1 + digits.div_ceil(7) + length
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{DataPacket, RpcAck, UserPacket, data_packet};
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_by_livekits_own_types() {
        let mut message = b"from before".to_vec();
        for bytes in [32, 90, 127, 128, 200, 16_000, 60_000] {
            Packet::write_user(&[7; 32], bytes, &mut message);
            let packet = DataPacket::decode(&message[..]).unwrap();
            let Some(data_packet::Value::User(user)) = packet.value else { panic!("{bytes}") };
            assert_eq!((user.payload.len(), user.topic.as_deref()), (bytes, Some("stampede")));
            assert_eq!(user.payload[..32], [7; 32]);
            assert_eq!(Packet::read(&message), Ok(Read::User(&user.payload)));
        }
    }

    #[test]
    fn what_a_server_adds_hides_nothing() {
        let packet = |value| DataPacket {
            participant_identity: "somebody".to_owned(),
            destination_identities: vec!["a".to_owned(), "b".to_owned()],
            sequence: 70_000,
            participant_sid: "PA_1".to_owned(),
            value: Some(value),
            ..DataPacket::default()
        };
        let user = UserPacket {
            payload: b"hello".to_vec(),
            start_time: Some(5),
            nonce: vec![1; 16],
            ..UserPacket::default()
        };
        let message = packet(data_packet::Value::User(user)).encode_to_vec();
        assert_eq!(Packet::read(&message), Ok(Read::User(b"hello")));
        let ack = RpcAck { request_id: "1".to_owned() };
        let message = packet(data_packet::Value::RpcAck(ack)).encode_to_vec();
        assert_eq!(Packet::read(&message), Ok(Read::Other));
        assert_eq!(Packet::read(&[]), Ok(Read::Other));
    }

    proptest::proptest! {
        #[test]
        fn hostile_messages_do_no_harm(message: Vec<u8>, cut in 0usize..200, at in 0usize..200) {
            let _ = Packet::read(&message);
            let mut message = Vec::new();
            Packet::write_user(&[7; 32], 100, &mut message);
            message.truncate(cut);
            if let Some(byte) = message.get_mut(at) {
                *byte = !*byte;
            }
            if let Ok(Read::User(payload)) = Packet::read(&message) {
                proptest::prop_assert!(payload.len() <= message.len());
            }
        }
    }
}
