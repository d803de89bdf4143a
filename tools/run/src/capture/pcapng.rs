//! Writes pcapng (draft-ietf-opsawg-pcapng): one section, one interface of raw IP packets, an
//! enhanced block for each. docs/architecture.md, "Bought, not built", says why this is no dependency.

use std::io::{self, Write};

/// LINKTYPE_RAW: the packet begins with its IPv4 or IPv6 header.
const LINKTYPE_RAW: u16 = 101;
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const OPT_USER_APPLICATION: u16 = 4;
const OPT_TIME_RESOLUTION: u16 = 9;
/// Stamps count nanoseconds.
const NANOSECONDS: u8 = 9;

/// A file being written.
pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Writes the beginning of the file, with a comment about the whole of it.
    pub(super) fn new(out: W, comment: &str) -> io::Result<Self> {
        let mut writer = Self { out };
        let mut body = Vec::new();
        body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // The section's length is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, OPT_COMMENT, comment.as_bytes());
        option(&mut body, OPT_USER_APPLICATION, b"stampede");
        option(&mut body, OPT_END, b"");
        writer.block(SECTION_HEADER, &body)?;
        let mut body = Vec::new();
        body.extend(LINKTYPE_RAW.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // No limit of the captured length.
        body.extend(0u32.to_le_bytes());
        option(&mut body, OPT_TIME_RESOLUTION, &[NANOSECONDS]);
        option(&mut body, OPT_END, b"");
        writer.block(INTERFACE_DESCRIPTION, &body)?;
        Ok(writer)
    }

    /// Writes a packet of which `captured` is the beginning and `original_bytes` the length.
    pub(super) fn packet(
        &mut self,
        at_unix_ns: u64,
        captured: &[u8],
        original_bytes: usize,
        comment: Option<&str>,
    ) -> io::Result<()> {
        let mut body = Vec::with_capacity(captured.len() + 64);
        body.extend(0u32.to_le_bytes());
        body.extend(((at_unix_ns >> 32) as u32).to_le_bytes());
        body.extend((at_unix_ns as u32).to_le_bytes());
        body.extend(length(captured.len())?.to_le_bytes());
        body.extend(length(original_bytes)?.to_le_bytes());
        body.extend(captured);
        pad(&mut body);
        if let Some(comment) = comment {
            option(&mut body, OPT_COMMENT, comment.as_bytes());
            option(&mut body, OPT_END, b"");
        }
        self.block(ENHANCED_PACKET, &body)
    }

    /// Ends the file.
    pub(super) fn finish(self) -> W {
        self.out
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let total = length(body.len() + 12)?.to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&total)?;
        self.out.write_all(body)?;
        self.out.write_all(&total)
    }
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Fields are padded to 32 bits.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Options hold at most 65,535 bytes; a longer comment is cut off.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}
