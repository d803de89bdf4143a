//! Where the messages of a websocket end in what was read of it: between two of them the websocket
//! holds nothing, and can begin anew with small buffers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest header of a frame: lengths of eight bytes, and a mask (RFC 6455 §5.2).
const HEADER_BYTES_MAX: usize = 14;

/// A byte stream whose frames are followed as they are read, from the answer to its upgrade on.
#[derive(Debug)]
pub(super) struct Framed<S> {
    stream: S,
    place: Place,
    /// The last frame of data was not the last of its message.
    fragmented: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the end of the answer, an empty line: whether there is nothing in this line yet.
    Answer(bool),
    /// Such a header began, and has so many bytes so far.
    Header([u8; HEADER_BYTES_MAX], usize),
    /// So much of a frame's payload is to come.
    Payload(u64),
}

const NO_HEADER: Place = Place::Header([0; HEADER_BYTES_MAX], 0);

impl<S> Framed<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, place: Place::Answer(false), fragmented: false }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// What was read so far ends with a message.
    pub(super) fn is_between_messages(&self) -> bool {
        self.place == NO_HEADER && !self.fragmented
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Answer(empty) => {
                    bytes = rest;
                    match first {
                        b'\n' if *empty => self.place = NO_HEADER,
                        b'\n' => *empty = true,
                        // Some end lines without it (RFC 9112 §2.2).
                        b'\r' => {}
                        _ => *empty = false,
                    }
                }
                Place::Header(header, len) => {
                    bytes = rest;
                    header[*len] = first;
                    *len += 1;
                    if let Some(payload) = payload_bytes(&header[..*len]) {
                        // Frames of control come between those of a message.
                        if header[0] & 0x08 == 0 {
                            self.fragmented = header[0] & 0x80 == 0;
                        }
                        self.place = if payload > 0 { Place::Payload(payload) } else { NO_HEADER };
                    }
                }
                Place::Payload(left) => {
                    let count = usize::try_from(*left).map_or(bytes.len(), |n| n.min(bytes.len()));
                    bytes = &bytes[count..];
                    *left -= count as u64;
                    if *left == 0 {
                        self.place = NO_HEADER;
                    }
                }
            }
        }
    }
}

/// The length of the payload behind this header, once all of the header is there.
fn payload_bytes(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
    let (header_bytes, payload) = match second & 0x7f {
        126 => (4, header.get(2..4)?.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))),
        127 => (10, header.get(2..10)?.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))),
        short => (2, u64::from(short)),
    };
    (header.len() >= header_bytes + mask_bytes).then_some(payload)
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.follow(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = match payload {
            0..126 => vec![first, payload as u8],
            126..0x1_0000 => [&[first, 126][..], &(payload as u16).to_be_bytes()].concat(),
            _ => [&[first, 127][..], &(payload as u64).to_be_bytes()].concat(),
        };
        frame.resize(frame.len() + payload, 0x0d);
        frame
    }

    /// After which bytes nothing is in the middle.
    fn boundaries(pieces: &[Vec<u8>], step: usize) -> Vec<usize> {
        let bytes = pieces.concat();
        let mut framed = Framed::new(());
        let mut at = 0;
        let mut found = Vec::new();
        for part in bytes.chunks(step) {
            framed.follow(part);
            at += part.len();
            found.extend(framed.is_between_messages().then_some(at));
        }
        found
    }

    #[test]
    fn an_answer_ends_with_an_empty_line_however_lines_end() {
        for answer in ["HTTP/1.1 101 S\r\nX: y\r\n\r\n", "HTTP/1.1 101 S\nX: y\n\n"] {
            assert_eq!(boundaries(&[answer.into()], 1), [answer.len()], "{answer:?}");
        }
    }

    #[test]
    fn the_ends_of_messages_are_known_however_they_are_read() {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nX: \r\r\n\r\n".to_vec();
        let pieces = [
            answer,
            frame(0x82, 5),
            frame(0x82, 0),
            // One in three frames, with a ping between.
            frame(0x02, 300),
            frame(0x89, 4),
            frame(0x00, 70_000),
            frame(0x80, 0),
            frame(0x8a, 125),
        ];
        let ends: Vec<usize> = pieces
            .iter()
            .scan(0, |at, piece| {
                *at += piece.len();
                Some(*at)
            })
            .collect();
        let wanted: Vec<usize> = [0, 1, 2, 6, 7].map(|piece| ends[piece]).to_vec();
        assert_eq!(boundaries(&pieces, 1), wanted);
        let all = ends[ends.len() - 1];
        assert_eq!(boundaries(&pieces, all), [all]);
        for step in [2, 7, 1_024] {
            let wanted = wanted.iter().filter(|end| **end % step == 0 || **end == all);
            assert_eq!(boundaries(&pieces, step), wanted.copied().collect::<Vec<_>>());
        }
    }
}
