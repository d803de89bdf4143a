//! How datagrams lie in a stream of bytes.

/// The longest datagram that is put into a stream or handed out of one. WebRTC stays below 1,500
/// bytes.
pub(super) const STREAM_DATAGRAM_BYTES_MAX: usize = 2_048;
/// Bytes in front of a datagram at most, and behind it.
pub(super) const OVERHEAD_BYTES_MAX: usize = 4;

/// Where datagrams begin and end in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A length of 16 bits in front of each (RFC 4571 §2), as ICE has it over TCP (RFC 6544 §3).
    Ice,
    /// STUN messages and ChannelData, which have their lengths themselves (RFC 8656 §12.5): a TURN
    /// server over TCP or TLS.
    Turn,
}

/// What lies at the front of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    /// Less than a whole datagram.
    Part,
    /// A datagram from `at` on, and behind `whole` bytes the next.
    Datagram { at: usize, len: usize, whole: usize },
    /// One that is not handed out, of that many bytes.
    TooLong { whole: usize },
    /// Nothing that this framing has: where the next one begins is not known any more.
    Broken,
}

impl Framing {
    /// Reads the front of what has come.
    pub(super) fn front(self, bytes: &[u8]) -> Front {
        let (at, len, whole) = match (self, bytes) {
            (Self::Ice, &[high, low, ..]) => {
                let len = usize::from(u16::from_be_bytes([high, low]));
                (2, len, 2 + len)
            }
            // RFC 7983 §7: 0 to 3 is STUN, 64 to 79 ChannelData.
            (Self::Turn, &[0..4, _, high, low, ..]) => {
                let len = 20 + usize::from(u16::from_be_bytes([high, low]));
                (0, len, len)
            }
            (Self::Turn, &[64..80, _, high, low, ..]) => {
                let len = 4 + usize::from(u16::from_be_bytes([high, low]));
                (0, len, len.next_multiple_of(4))
            }
            (Self::Turn, &[first, ..]) if first >= 4 && !(64..80).contains(&first) => {
                return Front::Broken;
            }
            _ => return Front::Part,
        };
        if len > STREAM_DATAGRAM_BYTES_MAX {
            Front::TooLong { whole }
        } else if bytes.len() < whole {
            Front::Part
        } else {
            Front::Datagram { at, len, whole }
        }
    }

    /// Bytes of a datagram in the stream.
    pub(super) fn framed_bytes(self, len: usize) -> usize {
        match self {
            Self::Ice => 2 + len,
            Self::Turn => len.next_multiple_of(4),
        }
    }

    /// Appends a datagram, of [`STREAM_DATAGRAM_BYTES_MAX`] at most.
    pub(super) fn put(self, datagram: &[u8], out: &mut Vec<u8>) {
        let end = out.len() + self.framed_bytes(datagram.len());
        if self == Self::Ice {
            out.extend((datagram.len() as u16).to_be_bytes());
        }
        out.extend_from_slice(datagram);
        // STUN messages are of whole words (RFC 8489 §5), so only ChannelData is padded.
        out.resize(end, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Datagrams, and how many were skipped; or those before what is none.
    type Read = Result<(Vec<Vec<u8>>, usize), Vec<Vec<u8>>>;

    /// All of a stream, as a reader sees it that has it in pieces.
    fn read(framing: Framing, pieces: &[&[u8]]) -> Read {
        let (mut bytes, mut datagrams, mut skipped) = (Vec::new(), Vec::new(), 0);
        let mut skip = 0;
        for piece in pieces {
            bytes.extend_from_slice(piece);
            loop {
                let skipping = skip.min(bytes.len());
                bytes.drain(..skipping);
                skip -= skipping;
                match framing.front(&bytes) {
                    Front::Part => break,
                    Front::Broken => return Err(datagrams),
                    Front::TooLong { whole } => (skip, skipped) = (whole, skipped + 1),
                    Front::Datagram { at, len, whole } => {
                        datagrams.push(bytes[at..at + len].to_vec());
                        bytes.drain(..whole);
                    }
                }
            }
        }
        Ok((datagrams, skipped))
    }

    #[test]
    fn lengths_of_hostile_servers_are_bounded_before_anything_is_kept() {
        let huge = [vec![0xff, 0xff], vec![1; 65_535], vec![0, 1, 7]].concat();
        assert_eq!(read(Framing::Ice, &[&huge]), Ok((vec![vec![7]], 1)));
        assert_eq!(Framing::Ice.front(&[0x08, 0x01]), Front::TooLong { whole: 2_051 });
        assert_eq!(Framing::Ice.front(&[0x08, 0x00]), Front::Part);
        assert_eq!(Framing::Turn.front(&[0x40, 0, 0xff, 0xff]), Front::TooLong { whole: 65_540 });
        assert_eq!(Framing::Turn.front(&[0x01, 1, 0xff, 0xff]), Front::TooLong { whole: 65_555 });
        // An empty datagram is one (RFC 4571 §2: null packets).
        assert_eq!(read(Framing::Ice, &[&[0, 0, 0, 1, 5]]), Ok((vec![vec![], vec![5]], 0)));
        for first in (4..64).chain(80..=255) {
            assert_eq!(Framing::Turn.front(&[first]), Front::Broken, "{first}");
        }
        assert_eq!((Framing::Turn.front(&[]), Framing::Ice.front(&[])), (Front::Part, Front::Part));
    }

    #[test]
    fn channel_data_is_padded_on_the_wire_and_not_handed_out_padded() {
        let mut out = Vec::new();
        let datagram = [0x40, 1, 0, 5, 1, 2, 3, 4, 5];
        Framing::Turn.put(&datagram, &mut out);
        assert_eq!(out, [&datagram[..], &[0, 0, 0]].concat());
        assert_eq!(read(Framing::Turn, &[&out, &out]), Ok((vec![datagram.to_vec(); 2], 0)));
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out_however_it_is_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cut in 1..400usize,
        ) {
            let mut stream = Vec::new();
            datagrams.iter().for_each(|datagram| Framing::Ice.put(datagram, &mut stream));
            let pieces: Vec<_> = stream.chunks(cut).collect();
            prop_assert_eq!(read(Framing::Ice, &pieces), Ok((datagrams, 0)));
        }

        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..4_000)) {
            for framing in [Framing::Ice, Framing::Turn] {
                if let Ok((datagrams, _)) = read(framing, &[&bytes]) {
                    let longest = datagrams.iter().map(Vec::len).max();
                    prop_assert!(longest.unwrap_or(0) <= STREAM_DATAGRAM_BYTES_MAX);
                }
            }
        }
    }
}
