//! Messages of calls, and of the text streams that calls of newer clients travel in
//! (livekit_models.proto `RpcRequest` and others, `DataStream`; client-sdk-js src/room/rpc and
//! src/room/data-stream), read and written field by field.

use stampede_protobuf::{Malformed, Value};

use super::packet::{fields, put_length, put_varint};

/// Fields of `DataPacket`.
const FROM: u32 = 4;
const TO: u32 = 5;
const REQUEST: u32 = 10;
const ACK: u32 = 11;
const RESPONSE: u32 = 12;
const HEADER: u32 = 13;
const CHUNK: u32 = 14;
const TRAILER: u32 = 15;

/// Topics of the streams.
const REQUEST_TOPIC: &str = "lk.rpc_request";
const RESPONSE_TOPIC: &str = "lk.rpc_response";
/// Their attributes.
const REQUEST_ID: &str = "lk.rpc_request_id";
const METHOD: &str = "lk.rpc_request_method";
const TIMEOUT_MS: &str = "lk.rpc_request_response_timeout_ms";
const VERSION: &str = "lk.rpc_request_version";
/// Versions of a request: a packet, or a stream.
const V1: u64 = 1;
const V2: &str = "2";
/// Most bytes of a stream's chunk, and of a message that is a stream by itself (client-sdk-js
/// src/room/data-stream/constants.ts).
const CHUNK_BYTES_MAX: usize = 15_000;
/// From this protocol between clients on a short stream is a single message (client-sdk-js
/// src/version.ts, `CLIENT_PROTOCOL_DATA_STREAM_V2`).
const SINGLE_MESSAGE_STREAMS: i32 = 2;

/// What a stream that belongs to a call says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// It brings an answer, else a request.
    pub(crate) answers: bool,
    /// Id of the call.
    pub(crate) call: &'a str,
    /// Of a request.
    pub(crate) method: &'a str,
    /// Of a request: it is one that is understood.
    pub(crate) known_version: bool,
    /// All that it brings, if it is no more than this message.
    pub(crate) inline: Option<&'a [u8]>,
    /// Its payload is packed, which we never say we could undo.
    pub(crate) compressed: bool,
}

/// A message that has to do with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RpcRead<'a> {
    Request {
        call: &'a str,
        method: &'a str,
        payload: &'a [u8],
        known_version: bool,
    },
    Ack {
        call: &'a str,
    },
    Response {
        call: &'a str,
        bytes: usize,
    },
    Error {
        call: &'a str,
        code: u64,
    },
    Stream(Stream<'a>),
    /// Of any stream.
    Chunk {
        stream: &'a str,
        index: u64,
        content: &'a [u8],
    },
    /// The same.
    Trailer {
        stream: &'a str,
        complete: bool,
    },
    /// It has nothing to do with calls.
    Other,
}

/// A message and who it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RpcReceived<'a> {
    pub(crate) from: &'a str,
    pub(crate) what: RpcRead<'a>,
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

impl<'a> RpcReceived<'a> {
    /// Reads a message of the reliable channel.
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let (mut from, mut what) = ("", RpcRead::Other);
        for field in fields(message) {
            let (number, Value::Bytes(bytes)) = field? else { continue };
            match number {
                FROM => from = text(bytes)?,
                REQUEST => what = request(bytes)?,
                ACK => {
                    let mut call = "";
                    for field in fields(bytes) {
                        if let (1, Value::Bytes(id)) = field? {
                            call = text(id)?;
                        }
                    }
                    what = RpcRead::Ack { call };
                }
                RESPONSE => what = response(bytes)?,
                HEADER => what = header(bytes)?,
                CHUNK => what = chunk(bytes)?,
                TRAILER => what = trailer(bytes)?,
                _ => {}
            }
        }
        Ok(Self { from, what })
    }
}

fn request(message: &[u8]) -> Result<RpcRead<'_>, Malformed> {
    let (mut call, mut method, mut payload, mut version) = ("", "", &[][..], 0);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => call = text(id)?,
            (2, Value::Bytes(name)) => method = text(name)?,
            (3, Value::Bytes(bytes)) => payload = bytes,
            (5, Value::Number(number)) => version = number,
            _ => {}
        }
    }
    Ok(RpcRead::Request { call, method, payload, known_version: version == V1 })
}

fn response(message: &[u8]) -> Result<RpcRead<'_>, Malformed> {
    let (mut call, mut bytes, mut code) = ("", 0, None);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => call = text(id)?,
            (2, Value::Bytes(payload)) => bytes = payload.len(),
            (3, Value::Bytes(error)) => {
                code = Some(0);
                for field in fields(error) {
                    if let (1, Value::Number(number)) = field? {
                        code = Some(number);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(match code {
        Some(code) => RpcRead::Error { call, code },
        None => RpcRead::Response { call, bytes },
    })
}

fn header(message: &[u8]) -> Result<RpcRead<'_>, Malformed> {
    let (mut id, mut topic, mut inline, mut is_text, mut compressed) = ("", "", None, false, false);
    let (mut call, mut method, mut version) = ("", "", "");
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => id = text(bytes)?,
            (3, Value::Bytes(bytes)) => topic = text(bytes)?,
            (8, Value::Bytes(entry)) => {
                let (mut key, mut value) = ("", "");
                for field in fields(entry) {
                    match field? {
                        (1, Value::Bytes(bytes)) => key = text(bytes)?,
                        (2, Value::Bytes(bytes)) => value = text(bytes)?,
                        _ => {}
                    }
                }
                match key {
                    REQUEST_ID => call = value,
                    METHOD => method = value,
                    VERSION => version = value,
                    _ => {}
                }
            }
            (9, Value::Bytes(_)) => is_text = true,
            (11, Value::Bytes(content)) => inline = Some(content),
            (12, Value::Number(how)) => compressed = how != 0,
            _ => {}
        }
    }
    let answers = topic == RESPONSE_TOPIC;
    if !is_text || !(answers || topic == REQUEST_TOPIC) {
        return Ok(RpcRead::Other);
    }
    let known_version = version == V2;
    Ok(RpcRead::Stream(Stream { id, answers, call, method, known_version, inline, compressed }))
}

fn chunk(message: &[u8]) -> Result<RpcRead<'_>, Malformed> {
    let (mut stream, mut index, mut content) = ("", 0, &[][..]);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => stream = text(id)?,
            (2, Value::Number(number)) => index = number,
            (3, Value::Bytes(bytes)) => content = bytes,
            _ => {}
        }
    }
    Ok(RpcRead::Chunk { stream, index, content })
}

fn trailer(message: &[u8]) -> Result<RpcRead<'_>, Malformed> {
    let (mut stream, mut complete) = ("", true);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => stream = text(id)?,
            (2, Value::Bytes(reason)) => complete = reason.is_empty(),
            _ => {}
        }
    }
    Ok(RpcRead::Trailer { stream, complete })
}

fn put_bytes(to: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_length(to, field, bytes.len());
    to.extend_from_slice(bytes);
}

/// Left out where it is 0, as protobuf has it.
fn put_number(to: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        put_varint(to, u64::from(field) << 3);
        put_varint(to, number);
    }
}

/// A packet to one participant.
fn packet(to: &str, field: u32, inside: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(inside.len() + to.len() + 12);
    put_bytes(&mut message, TO, to.as_bytes());
    put_bytes(&mut message, field, inside);
    message
}

/// A request to a client of protocol 0.
pub(crate) fn put_request(
    to: &str,
    call: &str,
    method: &str,
    payload: &[u8],
    timeout_ms: u64,
) -> Vec<u8> {
    let mut inside = Vec::new();
    put_bytes(&mut inside, 1, call.as_bytes());
    put_bytes(&mut inside, 2, method.as_bytes());
    put_bytes(&mut inside, 3, payload);
    put_number(&mut inside, 4, timeout_ms);
    put_number(&mut inside, 5, V1);
    packet(to, REQUEST, &inside)
}

/// That a request came.
pub(crate) fn put_ack(to: &str, call: &str) -> Vec<u8> {
    let mut inside = Vec::new();
    put_bytes(&mut inside, 1, call.as_bytes());
    packet(to, ACK, &inside)
}

/// An answer to a client that asked by a packet.
pub(crate) fn put_response(to: &str, call: &str, payload: &[u8]) -> Vec<u8> {
    let mut inside = Vec::new();
    put_bytes(&mut inside, 1, call.as_bytes());
    put_bytes(&mut inside, 2, payload);
    packet(to, RESPONSE, &inside)
}

/// That there is no answer, and why.
pub(crate) fn put_error(to: &str, call: &str, code: u64, message: &str) -> Vec<u8> {
    let mut error = Vec::new();
    put_number(&mut error, 1, code);
    put_bytes(&mut error, 2, message.as_bytes());
    let mut inside = Vec::new();
    put_bytes(&mut inside, 1, call.as_bytes());
    put_bytes(&mut inside, 3, &error);
    packet(to, RESPONSE, &inside)
}

/// The messages of a text stream to a client that speaks this protocol: a request with its timeout
/// in milliseconds, else an answer. The call's id is the stream's too, with a letter before it.
pub(crate) fn put_stream(
    (to, protocol): (&str, i32),
    call: &str,
    request: Option<(&str, u64)>,
    payload: &[u8],
    unix_ms: u64,
) -> Vec<Vec<u8>> {
    let id = format!("{}{call}", if request.is_some() { 'q' } else { 'a' });
    let mut header = Vec::new();
    put_bytes(&mut header, 1, id.as_bytes());
    put_number(&mut header, 2, unix_ms);
    let topic = if request.is_some() { REQUEST_TOPIC } else { RESPONSE_TOPIC };
    put_bytes(&mut header, 3, topic.as_bytes());
    put_bytes(&mut header, 4, b"text/plain");
    // Said although it may be 0.
    put_varint(&mut header, 5 << 3);
    put_varint(&mut header, payload.len() as u64);
    let mut attribute = |key: &str, value: &str| {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(&mut header, 8, &entry);
    };
    attribute(REQUEST_ID, call);
    if let Some((method, timeout_ms)) = request {
        attribute(METHOD, method);
        attribute(TIMEOUT_MS, &timeout_ms.to_string());
        attribute(VERSION, V2);
    }
    put_bytes(&mut header, 9, &[]);
    if protocol >= SINGLE_MESSAGE_STREAMS && header.len() + payload.len() < CHUNK_BYTES_MAX - 100 {
        put_bytes(&mut header, 11, payload);
        return vec![packet(to, HEADER, &header)];
    }
    let mut messages = vec![packet(to, HEADER, &header)];
    for (index, content) in (0..).zip(payload.chunks(CHUNK_BYTES_MAX)) {
        let mut chunk = Vec::new();
        put_bytes(&mut chunk, 1, id.as_bytes());
        put_number(&mut chunk, 2, index);
        put_bytes(&mut chunk, 3, content);
        messages.push(packet(to, CHUNK, &chunk));
    }
    let mut trailer = Vec::new();
    put_bytes(&mut trailer, 1, id.as_bytes());
    messages.push(packet(to, TRAILER, &trailer));
    messages
}

#[cfg(test)]
mod tests {
    use livekit_protocol as proto;
    use prost::Message as _;
    use proto::data_packet::Value as Of;
    use proto::data_stream::header::ContentHeader;

    use super::*;

    fn decoded(message: &[u8]) -> Of {
        let packet = proto::DataPacket::decode(message).unwrap();
        assert_eq!(packet.destination_identities, ["bob"]);
        packet.value.unwrap()
    }

    #[test]
    fn packets_are_those_of_livekits_own_types() {
        let message = put_request("bob", "c1", "echo", b"hello", 8_000);
        let Of::RpcRequest(request) = decoded(&message) else { panic!() };
        let expected = proto::RpcRequest {
            id: "c1".to_owned(),
            method: "echo".to_owned(),
            payload: "hello".to_owned(),
            response_timeout_ms: 8_000,
            version: 1,
            ..proto::RpcRequest::default()
        };
        assert_eq!(request, expected);
        let read = RpcReceived::read(&message).unwrap().what;
        let payload = &b"hello"[..];
        let own = RpcRead::Request { call: "c1", method: "echo", payload, known_version: true };
        assert_eq!(read, own);
        let Of::RpcAck(ack) = decoded(&put_ack("bob", "c1")) else { panic!() };
        assert_eq!(ack.request_id, "c1");
        let message = put_response("bob", "c1", b"hello");
        let Of::RpcResponse(response) = decoded(&message) else { panic!() };
        let payload = proto::rpc_response::Value::Payload("hello".to_owned());
        assert_eq!(response.value, Some(payload));
        let read = RpcReceived::read(&message).unwrap().what;
        assert_eq!(read, RpcRead::Response { call: "c1", bytes: 5 });
        let message = put_error("bob", "c1", 1400, "no");
        let Of::RpcResponse(response) = decoded(&message) else { panic!() };
        let Some(proto::rpc_response::Value::Error(error)) = response.value else { panic!() };
        assert_eq!((error.code, error.message.as_str()), (1400, "no"));
        let read = RpcReceived::read(&message).unwrap().what;
        assert_eq!(read, RpcRead::Error { call: "c1", code: 1400 });
    }

    #[test]
    fn a_stream_is_one_message_or_several_as_who_gets_it_understands() {
        let payload = "x".repeat(20_000);
        let request = Some(("echo", 15_000));
        for (protocol, bytes, messages) in [(2, 100, 1), (2, 20_000, 4), (1, 100, 3), (1, 0, 2)] {
            let payload = &payload.as_bytes()[..bytes];
            let stream = put_stream(("bob", protocol), "c1", request, payload, 1_700);
            assert_eq!(stream.len(), messages);
            let Of::StreamHeader(header) = decoded(&stream[0]) else { panic!() };
            assert_eq!((header.topic.as_str(), header.timestamp), ("lk.rpc_request", 1_700));
            assert_eq!(header.total_length, Some(bytes as u64));
            assert_eq!(header.attributes["lk.rpc_request_id"], "c1");
            assert_eq!(header.attributes["lk.rpc_request_method"], "echo");
            assert_eq!(header.attributes["lk.rpc_request_response_timeout_ms"], "15000");
            assert_eq!(header.attributes["lk.rpc_request_version"], "2");
            assert!(matches!(header.content_header, Some(ContentHeader::TextHeader(_))));
            let inline = (messages == 1).then(|| payload.to_vec());
            assert_eq!(header.inline_content, inline);
            let read = RpcReceived::read(&stream[0]).unwrap().what;
            let RpcRead::Stream(read) = read else { panic!("{read:?}") };
            assert_eq!((read.call, read.method, read.answers), ("c1", "echo", false));
            assert!(read.known_version && !read.compressed);
            assert_eq!(read.inline, inline.as_deref());
            let mut came = inline.unwrap_or_default();
            for message in &stream[1..] {
                match RpcReceived::read(message).unwrap().what {
                    RpcRead::Chunk { content, .. } => came.extend(content),
                    RpcRead::Trailer { stream, complete } => {
                        assert_eq!((stream, complete), (read.id, true));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(came, payload);
        }
        let [answer] = &put_stream(("bob", 2), "c1", None, b"hi", 1)[..] else { panic!() };
        let read = RpcReceived::read(answer).unwrap().what;
        assert!(matches!(read, RpcRead::Stream(Stream { answers: true, call: "c1", .. })));
    }

    #[test]
    fn other_streams_are_none_of_ours() {
        let header = |topic: &str, content_header| {
            let header = proto::data_stream::Header {
                stream_id: "s".to_owned(),
                topic: topic.to_owned(),
                content_header: Some(content_header),
                ..proto::data_stream::Header::default()
            };
            let value = Some(Of::StreamHeader(header));
            let packet = proto::DataPacket { value, ..proto::DataPacket::default() };
            packet.encode_to_vec()
        };
        let text = || ContentHeader::TextHeader(proto::data_stream::TextHeader::default());
        let bytes = ContentHeader::ByteHeader(proto::data_stream::ByteHeader::default());
        for message in [header("lk.chat", text()), header("lk.rpc_request", bytes)] {
            assert_eq!(RpcReceived::read(&message).unwrap().what, RpcRead::Other);
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_messages_do_no_harm(message: Vec<u8>, cut in 0usize..300, at in 0usize..300) {
            let _ = RpcReceived::read(&message);
            let stream = put_stream(("bob", 2), "c1", Some(("echo", 9)), b"payload", 5);
            let mut message = stream.into_iter().next().unwrap_or_default();
            message.truncate(cut);
            if let Some(byte) = message.get_mut(at) {
                *byte = !*byte;
            }
            let _ = RpcReceived::read(&message);
        }
    }
}
