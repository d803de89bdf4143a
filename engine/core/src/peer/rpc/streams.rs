//! Text streams of calls, put together.

use std::collections::VecDeque;

use crate::data::{RPC_BYTES_MAX, RpcErrorCode, Stream};

/// Streams under way at most; the oldest makes room.
pub(in crate::peer) const STREAMS_MAX: usize = 256;

/// What a stream brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Brought {
    /// It is an answer, else a request.
    pub(super) answers: bool,
    pub(super) call: String,
    pub(super) method: String,
    pub(super) known_version: bool,
    pub(super) payload: Result<Vec<u8>, RpcErrorCode>,
}

#[derive(Debug)]
struct Begun {
    from: Box<str>,
    id: Box<str>,
    /// The next chunk.
    next: u64,
    brought: Brought,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Streams {
    begun: VecDeque<Begun>,
}

impl Streams {
    /// A stream begins; what it brought, if that is all of it.
    pub(super) fn begin(&mut self, from: &str, stream: &Stream<'_>) -> Option<Brought> {
        let payload = match stream.compressed {
            true => Err(RpcErrorCode::ApplicationError),
            false => Ok(Vec::new()),
        };
        let mut brought = Brought {
            answers: stream.answers,
            call: stream.call.to_owned(),
            method: stream.method.to_owned(),
            known_version: stream.known_version,
            payload,
        };
        if let Some(content) = stream.inline {
            add(&mut brought, content);
            return Some(brought);
        }
        self.begun.retain(|one| (&*one.from, &*one.id) != (from, stream.id));
        if self.begun.len() == STREAMS_MAX {
            self.begun.pop_front();
        }
        let (from, id) = (from.into(), stream.id.into());
        self.begun.push_back(Begun { from, id, next: 0, brought });
        None
    }

    fn place(&self, from: &str, stream: &str) -> Option<usize> {
        self.begun.iter().position(|one| (&*one.from, &*one.id) == (from, stream))
    }

    /// A chunk came. False if it is of no stream that began here.
    pub(super) fn chunk(&mut self, from: &str, stream: &str, index: u64, content: &[u8]) -> bool {
        let place = self.place(from, stream);
        let Some(one) = place.and_then(|place| self.begun.get_mut(place)) else { return false };
        if index != one.next {
            one.brought.payload = Err(RpcErrorCode::ApplicationError);
        }
        one.next += 1;
        add(&mut one.brought, content);
        true
    }

    /// A stream ends: what it brought. `None` if none began here.
    pub(super) fn end(&mut self, from: &str, stream: &str, complete: bool) -> Option<Brought> {
        let place = self.place(from, stream)?;
        let mut brought = self.begun.remove(place)?.brought;
        if !complete {
            brought.payload = Err(RpcErrorCode::ApplicationError);
        }
        Some(brought)
    }
}

fn add(brought: &mut Brought, content: &[u8]) {
    let Ok(payload) = &mut brought.payload else { return };
    if payload.len() + content.len() > RPC_BYTES_MAX {
        brought.payload = Err(match brought.answers {
            true => RpcErrorCode::ResponsePayloadTooLarge,
            false => RpcErrorCode::RequestPayloadTooLarge,
        });
    } else {
        payload.extend_from_slice(content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Stream<'_> = Stream {
        id: "s1",
        answers: false,
        call: "c1",
        method: "echo",
        known_version: true,
        inline: None,
        compressed: false,
    };

    fn ended(chunks: &[(u64, &[u8])], complete: bool) -> Result<Vec<u8>, RpcErrorCode> {
        let mut streams = Streams::default();
        assert_eq!(streams.begin("alice", &STREAM), None);
        assert!(!streams.chunk("eve", "s1", 0, b"x"), "it is not hers");
        for (index, content) in chunks {
            assert!(streams.chunk("alice", "s1", *index, content));
        }
        let brought = streams.end("alice", "s1", complete).unwrap();
        assert_eq!((brought.call.as_str(), brought.method.as_str()), ("c1", "echo"));
        assert_eq!(streams.end("alice", "s1", true), None);
        brought.payload
    }

    #[test]
    fn a_stream_brings_what_is_in_its_chunks() {
        assert_eq!(ended(&[(0, b"ab"), (1, b"c")], true), Ok(b"abc".to_vec()));
        assert_eq!(ended(&[], true), Ok(Vec::new()));
        assert_eq!(ended(&[(0, b"ab")], false), Err(RpcErrorCode::ApplicationError));
        assert_eq!(ended(&[(0, b"ab"), (2, b"c")], true), Err(RpcErrorCode::ApplicationError));
        let long = vec![b'.'; RPC_BYTES_MAX];
        assert_eq!(ended(&[(0, &long)], true).map(|payload| payload.len()), Ok(RPC_BYTES_MAX));
        let too_long = [(0, &long[..]), (1, b".")];
        assert_eq!(ended(&too_long, true), Err(RpcErrorCode::RequestPayloadTooLarge));
        let mut streams = Streams::default();
        let inline = Stream { inline: Some(b"all"), ..STREAM };
        assert_eq!(streams.begin("alice", &inline).unwrap().payload, Ok(b"all".to_vec()));
        let packed = Stream { compressed: true, ..inline };
        assert!(streams.begin("alice", &packed).unwrap().payload.is_err());
    }

    #[test]
    fn streams_that_never_end_make_room() {
        let mut streams = Streams::default();
        for number in 0..=STREAMS_MAX {
            let id = number.to_string();
            assert_eq!(streams.begin("alice", &Stream { id: &id, ..STREAM }), None);
        }
        assert!(!streams.chunk("alice", "0", 0, b"x") && streams.chunk("alice", "1", 0, b"x"));
    }
}
