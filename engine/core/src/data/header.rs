//! What each message of ours begins with.

use super::DataKind;

const MAGIC: [u8; 4] = *b"stmp";
/// Its length.
pub(crate) const HEADER_BYTES: usize = 32;

/// Whose a message is, its number, and when it was sent. On the wire, big-endian: magic (4), kind (1),
/// nothing (1), sender (2), tag of the room (8), number (8), microseconds since the Unix epoch (8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: DataKind,
    pub(crate) sender: u16,
    pub(crate) tag: u64,
    pub(crate) sequence: u64,
    pub(crate) sent_unix_us: u64,
}

impl Header {
    pub(crate) fn write(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.sender.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.tag.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[24..].copy_from_slice(&self.sent_unix_us.to_be_bytes());
        bytes
    }

    /// `None` if it is no message of ours.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let bytes = payload.first_chunk::<HEADER_BYTES>()?;
        if bytes[..4] != MAGIC {
            return None;
        }
        let kind = *DataKind::ALL.get(usize::from(bytes[4]))?;
        let number = |at: usize| bytes[at..].first_chunk().map(|word| u64::from_be_bytes(*word));
        Some(Self {
            kind,
            sender: u16::from_be_bytes([bytes[6], bytes[7]]),
            tag: number(8)?,
            sequence: number(16)?,
            sent_unix_us: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_written_and_nothing_else_is() {
        let header = Header {
            kind: DataKind::Lossy,
            sender: 300,
            tag: u64::MAX - 7,
            sequence: 1 << 40,
            sent_unix_us: 1_790_000_000_123_456,
        };
        let mut payload = header.write().to_vec();
        payload.extend([7; 100]);
        assert_eq!(Header::read(&payload), Some(header));
        assert_eq!(Header::read(&payload[..HEADER_BYTES - 1]), None);
        for (at, byte) in [(0, b'x'), (4, 3), (4, 255)] {
            let mut broken = payload.clone();
            broken[at] = byte;
            assert_eq!(Header::read(&broken), None);
        }
    }
}
