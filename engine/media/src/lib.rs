//! Media of Stampede: what is published, and what is kept of what was received.
//!
//! - [`MediaClip`]: a file (IVF with VP8, Ogg with Opus) read, checked and packetised once, then
//!   shared by every publisher of a process. [`builtin`] holds clips for runs without files.
//! - [`vp8`], [`opus`]: as much of the two formats as RTP needs.
//! - [`packet_trailer`]: the publisher's clock behind a frame's last packet.
//! - [`FrameAssembler`]: RTP payloads back into frames, in order, without a clock.
//! - [`record`]: containers as bytes ([`record::IvfWriter`], [`record::OggOpusWriter`]).
//! - [`disk`]: the thread that writes them, off the packet path.
//!
//! Nothing here opens a socket. Only [`disk`] has a thread and looks at a clock.

#![forbid(unsafe_code)]

pub mod assembler;
pub mod builtin;
pub mod clip;
pub mod disk;
pub mod ivf;
pub mod ogg_opus;
pub mod opus;
pub mod packet_trailer;
pub mod packetize;
pub mod record;
pub mod recording;
pub mod vp8;

pub use assembler::{
    AssembledFrame, AssemblerCounters, AssemblerPacket, FrameAssembler, UnsupportedCodec,
};
pub use clip::{ClipError, ClipFrame, ClipProblem, Codec, MediaClip};
pub use disk::{DiskHandle, DiskOptions, DiskReport, DiskThread};
pub use packet_trailer::PacketTrailer;
pub use record::DiskFrame;
