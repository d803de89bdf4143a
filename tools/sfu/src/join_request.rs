//! What a client says in the URL of `/rtc/v1` (LiveKit `pkg/service/rtcservice.go`,
//! `validateInternal`): a message in a wrapper that may have packed it, as base64.

use std::io::{self, Read};

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::GzDecoder;
use livekit_protocol as proto;
use prost::{DecodeError, Message};
use proto::wrapped_join_request::Compression;

use crate::bounded::{self, BoundedError};

/// Longest request when it is unpacked (LiveKit `pkg/service/rtcservice.go`, 1 MiB).
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// With or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a request can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinRequestError {
    /// There is none.
    #[error("join_request is missing; /rtc/v1 takes nothing else")]
    Missing,
    /// It is no base64.
    #[error("join_request is no URL-safe base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// The wrapper is no such message.
    #[error("join_request holds no WrappedJoinRequest: {0}")]
    Message(#[from] DecodeError),
    /// What it holds is no request, or more than anybody has use for.
    #[error("join_request is not taken: {0}")]
    Request(#[from] BoundedError),
    /// It is packed in an unknown way.
    #[error("join_request is packed by compression {0}, which is unknown; use NONE or GZIP")]
    Compression(i32),
    /// It is no gzip.
    #[error("join_request can't be unpacked: {0}")]
    Gzip(#[from] io::Error),
    /// It is too long.
    #[error("join_request has more than {REQUEST_BYTES_MAX} bytes when it is unpacked")]
    TooLong,
}

/// Reads the parameter `join_request`.
///
/// # Errors
/// It is missing, too long, or can't be read.
pub(crate) fn unpack(parameter: Option<&str>) -> Result<proto::JoinRequest, JoinRequestError> {
    let parameter = parameter.filter(|parameter| !parameter.is_empty());
    let wrapped = BASE64.decode(parameter.ok_or(JoinRequestError::Missing)?)?;
    let wrapped = proto::WrappedJoinRequest::decode(&wrapped[..])?;
    let request = match Compression::try_from(wrapped.compression) {
        Ok(Compression::None) => wrapped.join_request,
        Ok(Compression::Gzip) => {
            let mut request = Vec::new();
            // One byte more tells that there is more.
            let mut packed = GzDecoder::new(&wrapped.join_request[..]);
            packed.by_ref().take(REQUEST_BYTES_MAX as u64 + 1).read_to_end(&mut request)?;
            request
        }
        Err(_) => return Err(JoinRequestError::Compression(wrapped.compression)),
    };
    if request.len() > REQUEST_BYTES_MAX {
        return Err(JoinRequestError::TooLong);
    }
    Ok(bounded::join(&request)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::io::Write;

    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn wrap(compression: i32, join_request: Vec<u8>) -> String {
        let wrapped = proto::WrappedJoinRequest { compression, join_request };
        base64::engine::general_purpose::URL_SAFE.encode(wrapped.encode_to_vec())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_request_is_read_packed_or_not_and_padded_or_not() {
        let request = proto::JoinRequest { metadata: "any".into(), ..Default::default() };
        let plain = request.encode_to_vec();
        for wrapped in [wrap(0, plain.clone()), wrap(1, gzip(&plain))] {
            assert_eq!(unpack(Some(&wrapped)).unwrap(), request);
            assert_eq!(unpack(Some(wrapped.trim_end_matches('='))).unwrap(), request);
        }
    }

    #[test]
    fn what_is_no_request_says_why() {
        use JoinRequestError as Error;
        assert!(matches!(unpack(None), Err(Error::Missing)));
        assert!(matches!(unpack(Some("")), Err(Error::Missing)));
        assert!(matches!(unpack(Some("+++")), Err(Error::Base64(_))));
        assert!(matches!(unpack(Some(&wrap(7, vec![]))), Err(Error::Compression(7))));
        assert!(matches!(unpack(Some(&wrap(1, vec![1, 2]))), Err(Error::Gzip(_))));
        let unreadable = unpack(Some(&wrap(0, vec![0xff])));
        assert!(matches!(unreadable, Err(Error::Request(BoundedError::Unreadable(_)))));
        let tracks = vec![proto::AddTrackRequest::default(); bounded::TRACKS_MAX + 1];
        let many = proto::JoinRequest { add_track_requests: tracks, ..Default::default() };
        let refused = unpack(Some(&wrap(1, gzip(&many.encode_to_vec())))).unwrap_err();
        assert!(matches!(refused, Error::Request(BoundedError::Refused(_))), "{refused}");
        let long = proto::JoinRequest {
            metadata: "x".repeat(REQUEST_BYTES_MAX),
            ..proto::JoinRequest::default()
        };
        let packed = gzip(&long.encode_to_vec());
        assert!(packed.len() < 4_000, "{} bytes hide a megabyte", packed.len());
        assert!(matches!(unpack(Some(&wrap(1, packed))), Err(Error::TooLong)));
        let empty = unpack(Some(&wrap(1, gzip(&[]))));
        assert_eq!(empty.unwrap(), proto::JoinRequest::default());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}", bytes: Vec<u8>) {
            let _ = unpack(Some(&text));
            let _ = unpack(Some(&wrap(0, bytes.clone())));
            let _ = unpack(Some(&wrap(1, bytes)));
        }
    }
}
