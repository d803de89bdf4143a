//! Text streams of calls, put together.

use std::collections::VecDeque;

use crate::data::{RPC_BYTES_MAX, RpcErrorCode, Stream};

/// Streams under way at most; the oldest makes room.
pub(in crate::peer) const STREAMS_MAX: usize = 256;
/// Most bytes of all streams under way together; the oldest make room.
pub(in crate::peer) const STREAMS_BYTES_MAX: usize = 1 << 20;

/// What a stream brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Brought {
    /// It is an answer, else a request.
    pub(super) answers: bool,
    pub(super) call: String,
    pub(super) method: String,
    pub(super) known_version: bool,
    /// Of an answer only the length is kept.
    pub(super) payload: Result<Vec<u8>, RpcErrorCode>,
    /// Of the payload.
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Begun {
    from: Box<str>,
    id: Box<str>,
    /// The next chunk.
    next: u64,
    brought: Brought,
}

impl Begun {
    /// That it takes up.
    fn bytes(&self) -> usize {
        let Brought { call, method, payload, .. } = &self.brought;
        let payload = payload.as_ref().map_or(0, Vec::len);
        self.from.len() + self.id.len() + call.len() + method.len() + payload
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Streams {
    begun: VecDeque<Begun>,
    /// That they take up together.
    bytes: usize,
    /// Streams that made room.
    dropped: u64,
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
            bytes: 0,
        };
        if let Some(content) = stream.inline {
            add(&mut brought, content);
            return Some(brought);
        }
        while let Some(again) = self.place(from, stream.id) {
            self.remove(again);
            self.dropped += 1;
        }
        let (from, id) = (from.into(), stream.id.into());
        let begun = Begun { from, id, next: 0, brought };
        self.bytes += begun.bytes();
        self.begun.push_back(begun);
        self.make_room();
        None
    }

    fn remove(&mut self, place: usize) -> Option<Begun> {
        let one = self.begun.remove(place)?;
        self.bytes -= one.bytes();
        Some(one)
    }

    fn make_room(&mut self) {
        while self.begun.len() > STREAMS_MAX || self.bytes > STREAMS_BYTES_MAX {
            if self.remove(0).is_none() {
                break;
            }
            self.dropped += 1;
        }
    }

    /// How many were dropped since this was asked last.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn place(&self, from: &str, stream: &str) -> Option<usize> {
        self.begun.iter().position(|one| (&*one.from, &*one.id) == (from, stream))
    }

    /// A chunk came. False if it is of no stream that began here.
    pub(super) fn chunk(&mut self, from: &str, stream: &str, index: u64, content: &[u8]) -> bool {
        let place = self.place(from, stream);
        let Some(one) = place.and_then(|place| self.begun.get_mut(place)) else { return false };
        let before = one.bytes();
        if index != one.next {
            one.brought.payload = Err(RpcErrorCode::ApplicationError);
        }
        one.next = one.next.saturating_add(1);
        add(&mut one.brought, content);
        self.bytes = self.bytes + one.bytes() - before;
        self.make_room();
        true
    }

    /// A stream ends: what it brought. `None` if none began here.
    pub(super) fn end(&mut self, from: &str, stream: &str, complete: bool) -> Option<Brought> {
        let place = self.place(from, stream)?;
        let mut brought = self.remove(place)?.brought;
        if !complete {
            brought.payload = Err(RpcErrorCode::ApplicationError);
        }
        Some(brought)
    }
}

fn add(brought: &mut Brought, content: &[u8]) {
    let Ok(payload) = &mut brought.payload else { return };
    brought.bytes = brought.bytes.saturating_add(content.len());
    if brought.bytes > RPC_BYTES_MAX {
        brought.payload = Err(match brought.answers {
            true => RpcErrorCode::ResponsePayloadTooLarge,
            false => RpcErrorCode::RequestPayloadTooLarge,
        });
    } else if !brought.answers {
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
        assert_eq!((streams.take_dropped(), streams.take_dropped()), (1, 0));
    }

    #[test]
    fn what_streams_take_up_together_is_bounded() {
        let mut streams = Streams::default();
        let content = vec![b'.'; RPC_BYTES_MAX];
        let mut dropped = 0;
        for number in 0..100 {
            let id = number.to_string();
            assert_eq!(streams.begin("alice", &Stream { id: &id, ..STREAM }), None);
            assert!(streams.chunk("alice", &id, 0, &content));
            assert!(streams.bytes <= STREAMS_BYTES_MAX);
            dropped += streams.take_dropped();
        }
        assert_eq!(dropped, 100 - 17);
        let all: usize = streams.begun.iter().map(Begun::bytes).sum();
        assert_eq!((streams.bytes, streams.begun.len()), (all, 17));
        for number in 100 - 17..100 {
            let brought = streams.end("alice", &number.to_string(), true).unwrap();
            assert_eq!(brought.payload.map(|payload| payload.len()), Ok(RPC_BYTES_MAX));
        }
        assert_eq!(streams.bytes, 0);
    }

    #[test]
    fn of_an_answer_only_the_length_is_kept() {
        let mut streams = Streams::default();
        let answer = Stream { answers: true, ..STREAM };
        assert_eq!(streams.begin("bob", &answer), None);
        assert!(streams.chunk("bob", "s1", 0, &[b'.'; 15_000]));
        assert!(streams.bytes < 100, "{}", streams.bytes);
        let brought = streams.end("bob", "s1", true).unwrap();
        assert_eq!((brought.bytes, brought.payload), (15_000, Ok(Vec::new())));
    }
}
