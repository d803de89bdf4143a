//! From a stream's codec to its file: which container, which name.

use stampede_counters::FileTiming;

use crate::clip::{Codec, is_recordable};
use crate::record::{DiskFrame, IvfWriter, OggOpusWriter, Patch};
use crate::{UnsupportedCodec, annex_b};

/// Longest file name made from a stream's name, without extension.
pub const STEM_BYTES_MAX: usize = 120;

/// Makes a name safe as a file name: letters, digits, `-`, `_` and `.` stay, anything else (a
/// participant may call itself `../../etc`) becomes `_`.
pub fn file_stem(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let stem: String =
        name.chars().map(|c| if keep(c) { c } else { '_' }).take(STEM_BYTES_MAX).collect();
    let stem = stem.trim_start_matches('.');
    if stem.is_empty() { "stream".to_owned() } else { stem.to_owned() }
}

/// The container of one recording; made when its first usable frame comes.
#[derive(Debug)]
pub(crate) struct Muxer {
    codec: Codec,
    serial: u32,
    container: Option<Container>,
}

#[derive(Debug)]
enum Container {
    Ivf(IvfWriter),
    Ogg(Box<OggOpusWriter>),
    /// NAL units behind start codes, as frames come: there is nothing around them, and no time.
    AnnexB,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Muxed {
    Taken,
    /// Before the first keyframe: nothing could show it.
    BeforeKeyframe,
    /// Not what the codec's name says.
    Unusable,
}

impl Muxer {
    pub(crate) fn new(codec: Codec, serial: u32) -> Result<Muxer, UnsupportedCodec> {
        match is_recordable(codec) {
            true => Ok(Muxer { codec, serial, container: None }),
            false => Err(UnsupportedCodec(codec)),
        }
    }

    pub(crate) fn extension(&self) -> &'static str {
        match self.codec {
            Codec::H264 => "h264",
            Codec::H265 => "h265",
            Codec::Opus => "ogg",
            Codec::Vp8 | Codec::Vp9 | Codec::Av1 => "ivf",
        }
    }

    pub(crate) fn frame(&mut self, frame: &DiskFrame, out: &mut Vec<u8>) -> Muxed {
        let (timestamp, data) = (frame.timestamp, &frame.data[..]);
        if self.container.is_none() {
            self.container = match self.codec {
                Codec::H264 | Codec::H265 => {
                    annex_b::has_parameters(self.codec, data).then_some(Container::AnnexB)
                }
                Codec::Opus => {
                    let writer = OggOpusWriter::begin(self.serial, data, out);
                    writer.ok().map(|writer| Container::Ogg(Box::new(writer)))
                }
                Codec::Vp8 | Codec::Vp9 | Codec::Av1 => {
                    IvfWriter::begin(timestamp, data, out).map(Container::Ivf)
                }
            };
        }
        match &mut self.container {
            None if self.codec.is_video() => Muxed::BeforeKeyframe,
            None => Muxed::Unusable,
            Some(Container::Ivf(_) | Container::AnnexB) if data.is_empty() => Muxed::Unusable,
            Some(Container::AnnexB) => {
                out.extend_from_slice(data);
                Muxed::Taken
            }
            Some(Container::Ivf(writer)) => {
                writer.frame(timestamp, data, out);
                Muxed::Taken
            }
            Some(Container::Ogg(writer)) => match writer.frame(timestamp, data, out) {
                Ok(()) => Muxed::Taken,
                Err(_) => Muxed::Unusable,
            },
        }
    }

    /// What had to be done to timestamps so far.
    pub(crate) fn timing(&self) -> FileTiming {
        match &self.container {
            None | Some(Container::AnnexB) => FileTiming::default(),
            Some(Container::Ivf(writer)) => {
                FileTiming { frames_moved: writer.timestamps_moved(), ..FileTiming::default() }
            }
            Some(Container::Ogg(writer)) => FileTiming {
                packets_concealed: writer.concealed(),
                jumps: writer.timestamp_jumps(),
                ..FileTiming::default()
            },
        }
    }

    /// Appends what closes the file, and gives what has to be written over its beginning.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Option<Patch> {
        match &mut self.container {
            None | Some(Container::AnnexB) => None,
            Some(Container::Ivf(writer)) => Some(writer.finish()),
            Some(Container::Ogg(writer)) => {
                // Pages are made in memory; there is nothing that could fail here.
                let _ = writer.finish(out);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names() {
        assert_eq!(file_stem("pub-1_TR_ABC.video"), "pub-1_TR_ABC.video");
        assert_eq!(file_stem("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(file_stem("ü/\0"), "___");
        assert_eq!(file_stem("..."), "stream");
        assert_eq!(file_stem(&"x".repeat(500)).len(), STEM_BYTES_MAX);
    }

    #[test]
    fn only_codecs_with_a_container_are_recorded() {
        assert!(Muxer::new(Codec::Vp8, 1).is_ok() && Muxer::new(Codec::Opus, 1).is_ok());
        assert_eq!(Muxer::new(Codec::Av1, 1).unwrap_err(), UnsupportedCodec(Codec::Av1));
    }

    #[test]
    fn nothing_is_written_before_the_first_keyframe() {
        let mut muxer = Muxer::new(Codec::Vp8, 1).unwrap();
        let mut out = Vec::new();
        let frame = DiskFrame { timestamp: 1, data: Bytes::from_static(&[1, 2, 3]) };
        assert_eq!(muxer.frame(&frame, &mut out), Muxed::BeforeKeyframe);
        assert!(out.is_empty() && muxer.finish(&mut out).is_none());
        let mut muxer = Muxer::new(Codec::H265, 1).unwrap();
        let mut frame = |data| {
            let frame = DiskFrame { timestamp: 1, data: Bytes::from_static(data) };
            muxer.frame(&frame, &mut out)
        };
        assert_eq!(frame(&[0, 0, 0, 1, 0x02, 1, 0x80]), Muxed::BeforeKeyframe);
        assert_eq!(frame(&[0, 0, 0, 1, 0x42, 1, 1, 0, 0, 0, 1, 0x26, 1, 0x80]), Muxed::Taken);
        assert_eq!(frame(&[0, 0, 0, 1, 0x02, 1, 0x80]), Muxed::Taken);
        assert_eq!((out.len(), muxer.extension()), (21, "h265"));
    }

    use bytes::Bytes;
}
