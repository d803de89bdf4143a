//! The little that is read of DTLS before str0m does. Pure.

pub(crate) mod front;

/// Content type of what a connection carries (RFC 6347 §4.1, RFC 5246 §6.2.1).
const APPLICATION_DATA: u8 = 23;
/// Bytes of a record before what it holds.
const HEAD_BYTES: usize = 13;

/// Whether a datagram is one of DTLS (RFC 7983 §7).
#[must_use]
pub fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram, [20..=63, ..])
}

/// Whether a datagram holds a record of data that nobody has encrypted, which no DTLS sends. dimpl 0.9
/// (`dtls12/engine.rs`, `poll_app_data`) hands it out as if its peer had, so that anybody could write to
/// an SCTP association who can write the peer's address into a datagram.
#[must_use]
pub fn has_plain_data(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while let Some(head) = rest.first_chunk::<HEAD_BYTES>() {
        // RFC 7983 §7.
        if !(20..64).contains(&head[0]) {
            return false;
        }
        if head[0] == APPLICATION_DATA && head[3..5] == [0, 0] {
            return true;
        }
        let bytes = HEAD_BYTES + usize::from(u16::from_be_bytes([head[11], head[12]]));
        let Some(behind) = rest.get(bytes..) else { return false };
        rest = behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, epoch: u8, bytes: u8) -> Vec<u8> {
        let mut record = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 1, 0, bytes];
        record.resize(HEAD_BYTES + usize::from(bytes), 7);
        record
    }

    #[test]
    fn data_in_clear_is_found_wherever_it_is() {
        let handshake = record(22, 0, 30);
        let sealed = record(23, 1, 30);
        let plain = record(23, 0, 5);
        assert!(has_plain_data(&plain));
        assert!(has_plain_data(&[&handshake[..], &sealed, &plain].concat()));
        assert!(!has_plain_data(&[&handshake[..], &record(20, 0, 1), &record(22, 1, 40)].concat()));
        assert!(!has_plain_data(&sealed) && !has_plain_data(&[]));
        // What is cut off is no record.
        assert!(!has_plain_data(&[&handshake[..40], &plain].concat()));
        let mut media = plain.clone();
        media[0] = 0x80;
        assert!(!has_plain_data(&media));
    }
}
