//! Header extensions that str0m leaves to its users.

use stampede_media::dependency_descriptor as dd;
use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues};

/// Longest value of the one-byte form (RFC 8285 §4.2).
const ONE_BYTE_FORM_MAX: usize = 16;

/// A dependency descriptor's bytes.
#[derive(Debug)]
struct Value(Vec<u8>);

/// Keeps the bytes as they are: they can only be read in the order of frames.
#[derive(Debug)]
struct Serializer;

impl ExtensionSerializer for Serializer {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(Value(bytes)) = values.user_values.get() else { return 0 };
        let Some(place) = buf.get_mut(..bytes.len()) else { return 0 };
        place.copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(Value(buf.to_vec()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        values.user_values.get().is_some_and(|Value(bytes)| bytes.len() > ONE_BYTE_FORM_MAX)
    }
}

/// The extension for str0m's map.
pub(super) fn dependency_descriptor() -> Extension {
    Extension::with_serializer(dd::URI, Serializer)
}

/// The descriptor of a received packet.
pub(super) fn descriptor_of(values: &ExtensionValues) -> Option<&[u8]> {
    values.user_values.get().map(|Value(bytes)| bytes.as_slice())
}
