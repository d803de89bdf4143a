//! As much of Opus as its containers need: the TOC byte (RFC 6716 §3.1) and OpusHead (RFC 7845).

/// Samples a second of every Opus timestamp (RFC 7587 §4.1).
pub const CLOCK_RATE: u32 = 48_000;
/// Longest packet: 120 ms (RFC 6716 §3.2.5, R5).
pub const PACKET_TICKS_MAX: u32 = 5_760;

/// Samples at 48 kHz one frame of this TOC byte lasts (RFC 6716 §3.1, table 2).
pub const fn frame_ticks(toc: u8) -> u32 {
    let config = toc >> 3;
    match config {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => match config & 3 {
            0 => 480,
            1 => 960,
            2 => 1_920,
            _ => 2_880,
        },
        // Hybrid: 10, 20 ms.
        12..=15 => 480 << (config & 1),
        // CELT: 2.5, 5, 10, 20 ms.
        _ => 120 << (config & 3),
    }
}

/// Samples at 48 kHz a packet lasts, from its TOC byte and, for code 3, its frame count
/// (RFC 6716 §3.2). The error is the rule it breaks.
pub fn packet_ticks(packet: &[u8]) -> Result<u32, &'static str> {
    let Some(&toc) = packet.first() else {
        return Err("it is empty (R1)");
    };
    let frames = match toc & 3 {
        0 => 1,
        1 if packet.len().is_multiple_of(2) => {
            return Err("two equal frames in an odd length (R3)");
        }
        1 | 2 => 2,
        _ => match packet.get(1) {
            None => return Err("no frame count byte (R6)"),
            Some(count) if count & 0x3f == 0 => return Err("a frame count of 0 (R5)"),
            Some(count) => u32::from(count & 0x3f),
        },
    };
    let ticks = frames * frame_ticks(toc);
    if ticks > PACKET_TICKS_MAX {
        return Err("longer than 120 ms (R5)");
    }
    Ok(ticks)
}

/// A packet of digital silence with the channels of this one, and its length in time where that is
/// 20 ms or several of them; else it is 20 ms long.
pub fn silence(packet: &[u8]) -> Vec<u8> {
    /// CELT, full band, 20 ms, one frame (RFC 6716 §3.1).
    const TOC: u8 = 31 << 3;
    /// The first bit that CELT decodes says silence (RFC 6716 §4.3).
    const SILENT: [u8; 2] = [0xff, 0xfe];
    let stereo = packet.first().map_or(0, |toc| toc & 4);
    let frames = packet_ticks(packet).map_or(1, |ticks| ticks / frame_ticks(TOC));
    match frames {
        0 | 1 => [&[TOC | stereo][..], &SILENT].concat(),
        // As many frames of equal length (RFC 6716 §3.2.5); at most six.
        _ => [&[TOC | stereo | 3, frames as u8][..], &SILENT.repeat(frames as usize)].concat(),
    }
}

/// OpusHead of an Ogg stream (RFC 7845 §5.1), mapping family 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusHead {
    /// 1 or 2.
    pub channels: u8,
    /// Samples a decoder throws away at the start.
    pub pre_skip: u16,
    /// Rate of the original recording in Hz; decoders ignore it.
    pub input_sample_rate: u32,
    /// Gain in Q7.8 dB.
    pub output_gain: i16,
}

impl OpusHead {
    /// The header packet's bytes.
    pub fn to_bytes(self) -> [u8; 19] {
        let mut bytes = *b"OpusHead\x01\0\0\0\0\0\0\0\0\0\0";
        bytes[9] = self.channels;
        bytes[10..12].copy_from_slice(&self.pre_skip.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.input_sample_rate.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.output_gain.to_le_bytes());
        bytes
    }

    /// Reads a header packet. The error is the field that can't be used, and its value.
    pub fn parse(packet: &[u8]) -> Result<OpusHead, (&'static str, String)> {
        let Some(head) = packet.get(..19).filter(|head| head.starts_with(b"OpusHead")) else {
            return Err(("Opus header", format!("{} bytes long, 19 are needed", packet.len())));
        };
        if head[8] & 0xf0 != 0 {
            return Err(("Opus header version", format!("{}, 0 to 15 can be read", head[8])));
        }
        if head[18] != 0 {
            return Err(("Opus mapping family", format!("{}, WebRTC takes only 0", head[18])));
        }
        if !(1..=2).contains(&head[9]) {
            return Err(("Opus channel count", format!("{}, WebRTC takes 1 or 2", head[9])));
        }
        Ok(OpusHead {
            channels: head[9],
            pre_skip: u16::from_le_bytes([head[10], head[11]]),
            input_sample_rate: u32::from_le_bytes([head[12], head[13], head[14], head[15]]),
            output_gain: i16::from_le_bytes([head[16], head[17]]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frame_lengths_are_the_tables() {
        // RFC 6716 table 2, in 48 kHz samples, configurations 0 to 31.
        let silk = [480, 960, 1_920, 2_880];
        let celt = [120, 240, 480, 960];
        let table: Vec<u32> = [silk.repeat(3), vec![480, 960, 480, 960], celt.repeat(4)].concat();
        let ours: Vec<u32> = (0..32u8).map(|config| frame_ticks(config << 3)).collect();
        assert_eq!(ours, table);
    }

    #[test]
    fn packet_lengths_follow_the_code() {
        assert_eq!(packet_ticks(&[0xf8]), Ok(960));
        assert_eq!(packet_ticks(&[0xf9, 1, 2]), Ok(1_920));
        assert_eq!(packet_ticks(&[0xfa, 1, 2, 3]), Ok(1_920));
        assert_eq!(packet_ticks(&[0xfb, 0x83, 0]), Ok(2_880));
        assert_eq!(packet_ticks(&[0xfb, 6]), Ok(5_760));
        for bad in [&[][..], &[0xf9, 1], &[0xfb], &[0xfb, 0x80], &[0xfb, 7]] {
            packet_ticks(bad).unwrap_err();
        }
    }

    #[test]
    fn silence_lasts_as_long_as_what_it_stands_for() {
        assert_eq!(silence(&[0xf8, 1, 2]), [0xf8, 0xff, 0xfe], "20 ms mono");
        assert_eq!(silence(&[0xfc, 1, 2])[0], 0xfc, "stereo");
        for packet in [&[0x48, 9][..], &[0x50, 9], &[0x4d, 1, 2], &[0xfb, 3, 1, 2, 3], &[0x98]] {
            let made = silence(packet);
            let ticks = packet_ticks(packet).unwrap().max(960);
            assert_eq!(packet_ticks(&made), Ok(ticks), "{packet:x?}");
            assert_eq!(made[0] & 4, packet[0] & 4);
        }
    }

    #[test]
    fn head_survives_the_round_trip() {
        let head =
            OpusHead { channels: 2, pre_skip: 312, input_sample_rate: 48_000, output_gain: -256 };
        assert_eq!(OpusHead::parse(&head.to_bytes()), Ok(head));
        let mut surround = head.to_bytes();
        surround[18] = 1;
        assert_eq!(OpusHead::parse(&surround).unwrap_err().0, "Opus mapping family");
    }

    proptest! {
        #[test]
        fn any_packet_has_a_length_or_a_reason(packet: Vec<u8>) {
            if let Ok(ticks) = packet_ticks(&packet) {
                prop_assert!((120..=PACKET_TICKS_MAX).contains(&ticks));
            }
            let _ = OpusHead::parse(&packet);
        }
    }
}
