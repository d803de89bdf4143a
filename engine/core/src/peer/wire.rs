//! The clear part of an SRTP packet.

/// The RTP header (RFC 3550 §5.1), which is clear but authenticated with the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Of the stream that it is of.
    pub ssrc: u32,
    /// Its number, of 16 bits.
    pub sequence: u16,
    /// In ticks of the stream's clock.
    pub timestamp: u32,
    /// Of video the last packet of a picture has it.
    pub marker: bool,
    /// Of seven bits.
    pub payload_type: u8,
    /// The payload ends in padding.
    pub padding: bool,
    /// Length of the fixed header, CSRCs and extensions. May be more than there is.
    pub header_bytes: usize,
}

const FIXED_BYTES: usize = 12;

impl RtpHeader {
    /// Reads a datagram that RFC 7983 takes for RTP; `None` for everything else.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (fixed, rest) = datagram.split_first_chunk::<FIXED_BYTES>()?;
        let version = fixed[0] >> 6;
        // RFC 5761 §4: 64 to 95 are RTCP packet types.
        if version != 2 || (64..96).contains(&(fixed[1] & 0x7f)) {
            return None;
        }
        let mut behind = usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] & 0x10 != 0 {
            let at = usize::from(fixed[0] & 0x0f) * 4;
            let length = rest.get(at + 2..at + 4)?;
            behind += 4 + usize::from(u16::from_be_bytes([length[0], length[1]])) * 4;
        }
        Some(Self {
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            padding: fixed[0] & 0x20 != 0,
            header_bytes: FIXED_BYTES + behind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rtp_and_leaves_the_rest() {
        let mut packet = vec![0x90, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xbe, 0xde, 0, 1];
        packet.extend([0; 4 + 100 + 16]);
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!((header.ssrc, header.sequence), (0x0708_090a, 0x0102));
        assert_eq!((header.timestamp, header.marker), (0x0304_0506, true));
        assert_eq!((header.payload_type, header.padding), (0x60, false));
        assert_eq!(header.header_bytes, 20);
        packet[1] = 200;
        assert_eq!(RtpHeader::parse(&packet), None, "RTCP");
        packet[0] = 0x16;
        assert_eq!(RtpHeader::parse(&packet), None, "DTLS");
        assert_eq!(RtpHeader::parse(&[0x80; 11]), None);
        assert_eq!(RtpHeader::parse(&[0x90; 13]), None, "extension cut off");
    }
}
