//! Containers as bytes: what the disk thread writes. Pure; nothing here opens a file.
//!
//! Each writer appends to a buffer of the caller's, always whole frames (IVF) or pages (Ogg), so
//! that a file cut at any such boundary is still playable.

use bytes::Bytes;
use ogg::writing::{PacketWriteEndInfo, PacketWriter};

use crate::opus::{self, OpusHead};
use crate::{ivf, vp8};

/// Bytes to be written over what is already in the file, when it is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// VP8 in IVF with a 1/90,000 s timebase: RTP's own clock, so that pauses and jitter of the
/// received stream stay visible.
#[derive(Debug, Clone)]
pub struct IvfWriter {
    first_timestamp: u64,
    /// In the file's time.
    last: Option<u64>,
    previous: Option<u64>,
    frames: u64,
    timestamps_moved: u64,
}

impl IvfWriter {
    /// Writes the file header. `first` is the first frame to come, which must be a keyframe;
    /// `None` if it is not.
    pub fn begin(timestamp: u64, first: &[u8], out: &mut Vec<u8>) -> Option<IvfWriter> {
        let (width, height) = vp8::keyframe_size(first)?;
        out.extend_from_slice(ivf::MAGIC);
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&(ivf::HEADER_BYTES as u16).to_le_bytes());
        out.extend_from_slice(b"VP80");
        out.extend_from_slice(&width.to_le_bytes());
        out.extend_from_slice(&height.to_le_bytes());
        out.extend_from_slice(&90_000u32.to_le_bytes());
        out.extend_from_slice(&1u32.to_le_bytes());
        // The length, patched by `finish`. 0 is "unknown" to players.
        out.extend_from_slice(&[0; 8]);
        Some(IvfWriter {
            first_timestamp: timestamp,
            last: None,
            previous: None,
            frames: 0,
            timestamps_moved: 0,
        })
    }

    /// Appends one frame. A timestamp that isn't after the one before is moved to one tick after
    /// it (counted): players take the file as broken otherwise.
    pub fn frame(&mut self, timestamp: u64, data: &[u8], out: &mut Vec<u8>) {
        let wanted = timestamp.saturating_sub(self.first_timestamp);
        let least = self.last.map_or(0, |last| last + 1);
        self.timestamps_moved += u64::from(wanted < least);
        let at = wanted.max(least);
        self.previous = self.last;
        self.last = Some(at);
        self.frames += 1;
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend_from_slice(&at.to_le_bytes());
        out.extend_from_slice(data);
    }

    /// Frames appended.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Frames whose timestamp had to be moved.
    pub fn timestamps_moved(&self) -> u64 {
        self.timestamps_moved
    }

    /// The header's length field: the duration in timebase units, as ffmpeg writes and reads it.
    /// (libvpx puts the number of frames there, and reads neither.) The last frame counts as long
    /// as the one before it.
    pub fn finish(&self) -> Patch {
        let last = self.last.unwrap_or(0);
        let length = last + self.previous.map_or(3_000, |previous| last - previous);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Patch { offset: 24, bytes: length.to_le_bytes().to_vec() }
    }
}

/// Longest silence written out packet by packet; a longer jump of the timestamp is counted and
/// not filled, so that a broken timestamp can't fill the disk.
pub const GAP_FILL_TICKS_MAX: u64 = 60 * opus::CLOCK_RATE as u64;
/// A page is closed after about this much audio, so that an interrupted recording loses little.
pub const PAGE_TICKS: u64 = opus::CLOCK_RATE as u64;

/// Opus in Ogg (RFC 7845).
///
/// A hole in the RTP timestamps (loss, or a sender that pauses in silence) becomes packets that
/// ask the decoder for concealment (RFC 7845 §4.1): the granule position may not jump.
pub struct OggOpusWriter {
    pages: PacketWriter<'static, Vec<u8>>,
    serial: u32,
    /// Timestamp the next packet would have without a hole.
    expected: Option<u64>,
    /// Granule position: samples so far.
    granule: u64,
    page_began: u64,
    /// Held back, because the very last packet has to say that it is.
    held: Option<(Vec<u8>, u64)>,
    packets: u64,
    concealed: u64,
    timestamp_jumps: u64,
}

/// The packet is not Opus, or the Ogg layer failed.
#[derive(Debug, thiserror::Error)]
pub enum OggWriteError {
    /// Against RFC 6716.
    #[error("not a valid Opus packet: {0}; it is left out of the recording")]
    NotOpus(&'static str),
    /// Can't happen while pages go to memory; passed on all the same.
    #[error("the Ogg page could not be made: {0}")]
    Page(#[from] std::io::Error),
}

impl std::fmt::Debug for OggOpusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OggOpusWriter")
            .field("serial", &self.serial)
            .field("granule", &self.granule)
            .field("packets", &self.packets)
            .finish_non_exhaustive()
    }
}

impl OggOpusWriter {
    /// Writes the two header pages. `first` is the first packet to come, looked at only to refuse
    /// what isn't Opus. The stream counts as stereo, as RTP's does (RFC 7587 §7: `opus/48000/2`):
    /// each packet says for itself what it is, and the first may be mono by chance.
    ///
    /// Pre-skip is 0: a recording begins in the middle of a stream, so there is no encoder delay
    /// to remove, and durations stay exact.
    pub fn begin(
        serial: u32,
        first: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<OggOpusWriter, OggWriteError> {
        opus::packet_ticks(first).map_err(OggWriteError::NotOpus)?;
        let head = OpusHead {
            channels: 2,
            pre_skip: 0,
            input_sample_rate: opus::CLOCK_RATE,
            output_gain: 0,
        };
        let mut tags = b"OpusTags".to_vec();
        let vendor = b"Stampede";
        tags.extend_from_slice(&(vendor.len() as u32).to_le_bytes());
        tags.extend_from_slice(vendor);
        tags.extend_from_slice(&0u32.to_le_bytes());
        let mut pages = PacketWriter::new(Vec::new());
        let end = PacketWriteEndInfo::EndPage;
        pages.write_packet(head.to_bytes().to_vec(), serial, end, 0)?;
        pages.write_packet(tags, serial, end, 0)?;
        out.append(pages.inner_mut());
        Ok(OggOpusWriter {
            pages,
            serial,
            expected: None,
            granule: 0,
            page_began: 0,
            held: None,
            packets: 0,
            concealed: 0,
            timestamp_jumps: 0,
        })
    }

    /// Appends one packet. `timestamp` is at 48 kHz, extended past 32 bits.
    pub fn frame(
        &mut self,
        timestamp: u64,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), OggWriteError> {
        let ticks = u64::from(opus::packet_ticks(data).map_err(OggWriteError::NotOpus)?);
        if let Some(expected) = self.expected {
            match timestamp.checked_sub(expected) {
                Some(0) => {}
                Some(hole) if hole <= GAP_FILL_TICKS_MAX => self.conceal(hole, data[0])?,
                _ => self.timestamp_jumps += 1,
            }
        }
        self.expected = Some(timestamp + ticks);
        self.packets += 1;
        self.hold(data.to_vec(), ticks)?;
        out.append(self.pages.inner_mut());
        Ok(())
    }

    /// Closes the last page with the end-of-stream mark.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), OggWriteError> {
        if let Some((packet, granule)) = self.held.take() {
            let end = PacketWriteEndInfo::EndStream;
            self.pages.write_packet(packet, self.serial, end, granule)?;
        }
        out.append(self.pages.inner_mut());
        Ok(())
    }

    /// Packets appended, without the ones that stand for a hole.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets written in the place of missing ones.
    pub fn concealed(&self) -> u64 {
        self.concealed
    }

    /// Jumps of the timestamp, backwards or too far, that were not filled.
    pub fn timestamp_jumps(&self) -> u64 {
        self.timestamp_jumps
    }

    /// Fills a hole with packets that are nothing but a TOC byte: a frame of length 0.
    fn conceal(&mut self, hole: u64, toc: u8) -> Result<(), OggWriteError> {
        let mut left = hole;
        while left > 0 {
            // Like the stream's own packets first; CELT of 20, 10, 5, 2.5 ms for the rest.
            let own = toc & 0xfc;
            let celt = [3u8, 2, 1, 0].map(|size| 0xe0 | size << 3 | toc & 4);
            let fits = |toc: &u8| u64::from(opus::frame_ticks(*toc)) <= left;
            let Some(toc) = [own].into_iter().chain(celt).find(fits) else {
                // Less than 2.5 ms: no packet is that short.
                break;
            };
            let ticks = u64::from(opus::frame_ticks(toc));
            self.hold(vec![toc], ticks)?;
            self.concealed += 1;
            left -= ticks;
        }
        Ok(())
    }

    fn hold(&mut self, packet: Vec<u8>, ticks: u64) -> Result<(), OggWriteError> {
        self.granule += ticks;
        let Some((packet, granule)) = self.held.replace((packet, self.granule)) else {
            return Ok(());
        };
        let mut end = PacketWriteEndInfo::NormalPacket;
        if granule - self.page_began >= PAGE_TICKS {
            self.page_began = granule;
            end = PacketWriteEndInfo::EndPage;
        }
        self.pages.write_packet(packet, self.serial, end, granule)?;
        Ok(())
    }
}

/// A frame on its way to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFrame {
    /// In the codec's RTP clock, extended past 32 bits.
    pub timestamp: u64,
    /// The encoded frame.
    pub data: Bytes,
}

impl From<&crate::AssembledFrame> for DiskFrame {
    fn from(frame: &crate::AssembledFrame) -> DiskFrame {
        DiskFrame { timestamp: frame.timestamp, data: frame.data.clone() }
    }
}
