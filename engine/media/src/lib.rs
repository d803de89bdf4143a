//! Media of Stampede: what is published, and what is kept of what was received.
//!
//! - [`MediaClip`]: a file (IVF with VP8, VP9 or AV1, H.264 or H.265 in Annex B, Ogg with Opus) read,
//!   checked and packetised once, then shared by every publisher of a process. [`builtin`] holds
//!   clips for runs without files.
//! - [`vp8`], [`vp9`], [`h264`], [`h265`], [`av1`], [`opus`]: as much of the formats as RTP needs, and the
//!   [`dependency_descriptor`] that says which frames need which; [`scalability`] is how a publisher
//!   divides its pictures into layers.
//! - [`red`]: audio payloads with earlier ones in front (RFC 2198).
//! - [`packet_trailer`]: the publisher's clock behind a frame's last packet.
//! - [`FrameAssembler`]: RTP payloads back into frames, in order, without a clock.
//! - [`record`]: containers as bytes ([`record::IvfWriter`], [`record::OggOpusWriter`]).
//! - [`disk`]: the thread that writes them, off the packet path.
//!
//! Nothing here opens a socket. Only [`disk`] has a thread and looks at a clock.
//!
//! ```
//! let clip = stampede_media::builtin::audio()?;
//! assert_eq!((clip.codec, clip.clock_rate), (stampede_media::Codec::Opus, 48_000));
//! # Ok::<(), stampede_media::ClipError>(())
//! ```

#![forbid(unsafe_code)]

mod annex_b;
pub mod assembler;
pub mod av1;
mod bits;
pub mod builtin;
pub mod clip;
pub mod dependency_descriptor;
pub mod disk;
pub mod h264;
pub mod h265;
pub mod ivf;
mod layered;
pub mod nal_units;
pub mod ogg_opus;
mod open;
pub mod opus;
pub mod packet_trailer;
pub mod packetize;
pub mod record;
pub mod recording;
pub mod red;
pub mod scalability;
pub mod vp8;
pub mod vp9;

pub use assembler::{AssembledFrame, AssemblerPacket, FrameAssembler, UnsupportedCodec};
pub use clip::{
    ClipError, ClipFrame, ClipOptions, ClipProblem, Codec, MediaClip, OpenedClip, Timing,
    TimingMistake, is_recordable,
};
pub use disk::{DiskHandle, DiskOptions, DiskReport, DiskThread};
pub use packet_trailer::PacketTrailer;
pub use record::DiskFrame;
pub use red::Red;
pub use scalability::{Scalability, ScalabilityMode};
pub use stampede_counters::AssemblerCounters;
