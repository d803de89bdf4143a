//! The keys that one subscriber's media and reports are encrypted with, and what it says of them.

use stampede_core::srtp::{KeyError, Keying, RtpSealer, SrtcpEditor, SrtcpOpener};

use super::packet::Packet;
use super::report::{self, StreamReport};

/// The keys of one subscriber.
pub(crate) struct Srtp {
    rtp: RtpSealer,
    rtcp: SrtcpEditor,
    told: SrtcpOpener,
}

impl Srtp {
    /// # Errors
    /// The keys are of no use: of a profile that WebRTC does not have, or too short.
    pub(crate) fn new(keying: &Keying) -> Result<Self, KeyError> {
        let (rtp, rtcp) = (keying.rtp_sealer()?, keying.srtcp_editor()?);
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
        packet.write(buffer);
        self.rtp.seal(buffer, packet.header_bytes(), packet.ssrc, packet.index).is_some()
    }

    /// Makes the sender reports of an SRTCP packet of str0m's say what was sent here of the streams
    /// that `stream` knows. `None`, which never happens, if it is not sealed with these keys.
    pub(crate) fn report(
        &self,
        datagram: Vec<u8>,
        stream: impl FnMut(u32) -> Option<StreamReport>,
    ) -> Option<Vec<u8>> {
        self.rtcp.edit(datagram, |compound| report::fill_in(compound, stream))
    }
}
