//! A file that is too long, without the gigabyte that [`CLIP_BYTES_MAX`] is.

use super::*;

#[test]
fn a_file_longer_than_the_maximum_is_refused_whatever_its_length_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.ivf");
    // A frame of VP8, 16x16 (RFC 6386 §9.1), as IVF has it.
    let mut bytes =
        b"DKIF\0\0\x20\0VP80\x10\0\x10\0\x1e\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    bytes.extend([10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0x10, 0, 0, 0x9d, 0x01, 0x2a, 16, 0, 16, 0]);
    std::fs::write(&path, &bytes).unwrap();
    let length = bytes.len() as u64;
    let open = |bytes_max| MediaClip::open_up_to(bytes_max, &path, ClipOptions::default());
    assert_eq!(open(length).unwrap().clip.frames.len(), 1);
    // No more than one byte too many was read.
    for bytes_max in [length - 1, 7] {
        let refused = open(bytes_max);
        let Err(ClipError::Refused { problem, .. }) = refused else { panic!("{refused:?}") };
        let is_it = |len_bytes| len_bytes == bytes_max + 1;
        assert!(matches!(problem, ClipProblem::TooLong { len_bytes } if is_it(len_bytes)));
    }
}
