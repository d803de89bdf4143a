//! The keys that one subscriber's media and reports are encrypted with, and what it says of them.

use stampede_core::srtp::{KeyError, Keying, RtpSealer, SrtcpOpener, SrtcpSealer};

use super::packet::Packet;

/// The keys of one subscriber.
pub(crate) struct Srtp {
    rtp: RtpSealer,
    rtcp: SrtcpSealer,
    told: SrtcpOpener,
}

impl Srtp {
    /// # Errors
    /// The keys are of no use: of a profile that WebRTC does not have, or too short.
    pub(crate) fn new(keying: &Keying) -> Result<Self, KeyError> {
        let (rtp, rtcp) = (keying.rtp_sealer()?, keying.srtcp_sealer()?);
        Ok(Self { rtp, rtcp, told: keying.srtcp_opener()? })
    }

    /// An SRTCP packet of the subscriber's in clear; `None` if it is not authentic.
    pub(crate) fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.told.open(datagram).map(|(compound, _)| compound)
    }

    /// Bytes of a packet when it is encrypted.
    pub(super) fn sealed_bytes(&self, packet: &Packet<'_>) -> usize {
        packet.bytes() + self.rtp.tag_bytes()
    }

    /// Writes and encrypts a packet into a buffer of [`sealed_bytes`](Self::sealed_bytes). Done
    /// again it is the same, byte for byte. False if it can't be.
    pub(super) fn seal(&self, packet: &Packet<'_>, buffer: &mut [u8]) -> bool {
        let &Packet { ssrc, index, payload, .. } = packet;
        let sealed = if packet.is_plain() {
            let header_bytes = packet.write_header(buffer);
            self.rtp.seal_from(buffer, header_bytes, payload, ssrc, index)
        } else {
            packet.write(buffer);
            self.rtp.seal(buffer, packet.header_bytes(), ssrc, index)
        };
        sealed.is_some()
    }

    /// Encrypts a compound packet of the subscriber's own streams. `None`, which never happens, if
    /// all numbers of such packets are used up.
    pub(crate) fn seal_rtcp(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        self.rtcp.seal(compound)
    }
}
