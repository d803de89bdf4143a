//! The flight recorder of one peer: its last seconds of accepted packets, decrypted.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

/// What a [`Capture`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureLimits {
    /// How far back from the newest packet.
    pub span: Duration,
    /// Most bytes, payloads and bookkeeping together; the oldest packets are dropped, and counted.
    pub bytes_max: usize,
    /// Keep payloads; otherwise headers and lengths only.
    pub payload: bool,
}

/// A received RTP packet after decryption. A packet repaired by RTX stands here as the packet it
/// repairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedPacket {
    /// When the kernel received it, in nanoseconds since the Unix epoch.
    pub at_unix_ns: u64,
    /// Primary SSRC.
    pub ssrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// It came by RTX (RFC 4588).
    pub repaired: bool,
    /// Length of the payload.
    pub payload_bytes: usize,
    /// The payload; empty if only headers are kept.
    pub payload: Bytes,
}

impl CapturedPacket {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.payload.len()
    }
}

/// A ring of packets; see [`CaptureLimits`].
#[derive(Debug, Clone)]
pub struct Capture {
    limits: CaptureLimits,
    packets: VecDeque<CapturedPacket>,
    bytes: usize,
    dropped: u64,
}

impl Capture {
    /// An empty one.
    pub fn new(limits: CaptureLimits) -> Self {
        Self { limits, packets: VecDeque::new(), bytes: 0, dropped: 0 }
    }

    /// True if payloads are wanted.
    pub fn wants_payload(&self) -> bool {
        self.limits.payload
    }

    /// Adds a packet and drops what is too old or too much.
    pub fn push(&mut self, packet: CapturedPacket) {
        let span_ns = u64::try_from(self.limits.span.as_nanos()).unwrap_or(u64::MAX);
        let oldest = packet.at_unix_ns.saturating_sub(span_ns);
        self.bytes += packet.bytes();
        self.packets.push_back(packet);
        while let Some(first) = self.packets.front() {
            let full = self.bytes > self.limits.bytes_max;
            if first.at_unix_ns >= oldest && !full {
                break;
            }
            self.dropped += u64::from(first.at_unix_ns >= oldest);
            self.bytes -= first.bytes();
            self.packets.pop_front();
        }
    }

    /// The packets, oldest first.
    pub fn packets(&self) -> impl Iterator<Item = &CapturedPacket> {
        self.packets.iter()
    }

    /// Packets inside of the span that `bytes_max` left no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(at_ms: u64, payload_bytes: usize) -> CapturedPacket {
        CapturedPacket {
            at_unix_ns: at_ms * 1_000_000,
            ssrc: 1,
            sequence: at_ms as u16,
            timestamp: 0,
            marker: false,
            payload_type: 96,
            repaired: false,
            payload_bytes,
            payload: Bytes::from(vec![0; payload_bytes]),
        }
    }

    fn times(capture: &Capture) -> Vec<u16> {
        capture.packets().map(|packet| packet.sequence).collect()
    }

    #[test]
    fn what_is_older_than_the_span_goes_and_is_no_loss() {
        let span = Duration::from_millis(100);
        let mut capture = Capture::new(CaptureLimits { span, bytes_max: 1 << 20, payload: true });
        for at_ms in [1_000, 1_050, 1_100, 1_149, 1_151] {
            capture.push(packet(at_ms, 10));
        }
        assert_eq!(times(&capture), [1_100, 1_149, 1_151]);
        assert_eq!(capture.dropped(), 0);
    }

    #[test]
    fn memory_has_a_maximum_and_what_it_costs_is_counted() {
        let span = Duration::from_secs(10);
        let bytes_max = 3 * packet(0, 1_000).bytes();
        let mut capture = Capture::new(CaptureLimits { span, bytes_max, payload: true });
        for at_ms in 1_000..1_010 {
            capture.push(packet(at_ms, 1_000));
            assert!(capture.bytes <= bytes_max);
        }
        assert_eq!(times(&capture), [1_007, 1_008, 1_009]);
        assert_eq!(capture.dropped(), 7);
        capture.push(packet(1_010, 1 << 20));
        assert_eq!((times(&capture).len(), capture.bytes), (0, 0), "larger than all the room");
    }
}
