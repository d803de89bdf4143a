//! Dependency descriptors of what we send, through str0m, which does not know them.

use stampede_media::dependency_descriptor::URI;
use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues};

/// Longest value of the shorter form of header extensions (RFC 8285 §4.2).
const SHORT_FORM_BYTES_MAX: usize = 16;

/// The value of a packet's descriptor, as str0m is to write it.
#[derive(Debug)]
pub(super) struct Value(pub(super) Vec<u8>);

#[derive(Debug)]
struct Serializer;

/// For [`str0m::RtcConfig::set_extension`].
pub(in crate::peer) fn extension() -> Extension {
    Extension::with_serializer(URI, Serializer)
}

impl ExtensionSerializer for Serializer {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(Value(bytes)) = values.user_values.get::<Value>() else { return 0 };
        let Some(place) = buf.get_mut(..bytes.len()) else { return 0 };
        place.copy_from_slice(bytes);
        bytes.len()
    }

    /// What we receive does not come through str0m.
    fn parse_value(&self, _: &[u8], _: &mut ExtensionValues) -> bool {
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        let value = values.user_values.get::<Value>();
        value.is_some_and(|Value(bytes)| bytes.len() > SHORT_FORM_BYTES_MAX)
    }
}
