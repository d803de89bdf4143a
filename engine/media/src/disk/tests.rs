use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use crossbeam_channel::bounded;

use super::*;
use crate::MediaClip;

const BACKENDS: [DiskBackend; 2] = [DiskBackend::Plain, DiskBackend::IoUring];

/// Starts a thread with each backend the kernel has.
fn each(test: impl Fn(DiskThread, &Path)) {
    each_with(io::create_new, test);
}

fn each_with(opener: io::Opener, test: impl Fn(DiskThread, &Path)) {
    for backend in BACKENDS {
        let dir = tempfile::tempdir().unwrap();
        let options = DiskOptions { dir: dir.path().join("a/b"), backend };
        match DiskThread::start_with(options, opener, QUEUE_MESSAGES_MAX) {
            Ok(disk) => test(disk, &dir.path().join("a/b")),
            Err(error @ DiskStartError::IoUring(_)) => stampede_testing::skip(error),
            Err(error) => panic!("{error}"),
        }
    }
}

fn keyframe(len: usize) -> Bytes {
    // A 16×16 keyframe's header (RFC 6386 §9.1), then anything.
    let mut frame = vec![0x10, 0, 0, 0x9d, 0x01, 0x2a, 16, 0, 16, 0];
    frame.resize(len, 0x55);
    frame.into()
}

fn frame(timestamp: u64, data: Bytes) -> DiskFrame {
    DiskFrame { timestamp, data }
}

#[test]
fn frames_reach_the_file() {
    each(|disk, dir| {
        let handle = disk.handle();
        let recording = handle.create("alice/video", Codec::Vp8).unwrap();
        let lost = frame(0, Bytes::from_static(&[1, 1, 1]));
        handle.write(&recording, lost).unwrap();
        // Past the chunk size, so that several writes happen.
        for index in 0..40 {
            handle.write(&recording, frame(index * 3_000, keyframe(20_000))).unwrap();
        }
        handle.finish(recording);
        let report = disk.finish();
        let path = dir.join("alice_video.ivf");
        let expected = FileReport {
            path: path.clone(),
            frames: 40,
            bytes: 32 + 40 * 20_012,
            frames_before_keyframe: 1,
            frames_dropped: 0,
            timing: FileTiming::default(),
            failed: None,
        };
        assert_eq!(report.files, [expected]);
        assert_eq!((report.errors_total, report.frames_dropped), (0, 0));
        let clip = MediaClip::open(&path).unwrap();
        assert_eq!((clip.frames.len(), clip.duration_ticks), (40, 120_000));
        assert_eq!(handle.stats().frames_written, 40);
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1, "no probe file is left");
    });
}

#[test]
fn a_taken_name_is_not_overwritten() {
    each(|disk, dir| {
        std::fs::write(dir.join("x.ivf"), "precious").unwrap();
        let handle = disk.handle();
        for _ in 0..2 {
            let recording = handle.create("x", Codec::Vp8).unwrap();
            handle.write(&recording, frame(0, keyframe(100))).unwrap();
        }
        let report = disk.finish();
        let paths: Vec<_> = report.files.iter().map(|file| file.path.clone()).collect();
        assert_eq!(paths, [dir.join("x-2.ivf"), dir.join("x-3.ivf")]);
        assert_eq!(std::fs::read_to_string(dir.join("x.ivf")).unwrap(), "precious");
    });
}

#[test]
fn nothing_received_makes_no_file() {
    each(|disk, dir| {
        disk.handle().create("silent", Codec::Opus).unwrap();
        let report = disk.finish();
        assert_eq!((report.files.len(), report.files[0].frames), (1, 0));
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    });
}

#[test]
fn a_full_disk_gives_up_that_file_and_says_so() {
    let opener: io::Opener = |path| {
        if path.ends_with("full.ivf") {
            return File::options().write(true).open("/dev/full");
        }
        io::create_new(path)
    };
    each_with(opener, |disk, dir| {
        let handle = disk.handle();
        let full = handle.create("full", Codec::Vp8).unwrap();
        let good = handle.create("good", Codec::Vp8).unwrap();
        for index in 0..60 {
            handle.write(&full, frame(index * 3_000, keyframe(20_000))).unwrap();
            handle.write(&good, frame(index * 3_000, keyframe(20_000))).unwrap();
        }
        let report = disk.finish();
        let [full, good] = &report.files[..] else { panic!("{report:?}") };
        assert_eq!((full.frames, full.frames_dropped, full.bytes), (0, 60, 0));
        assert!(full.failed.as_ref().unwrap().contains("cannot be written"), "{full:?}");
        assert_eq!((good.frames, good.frames_dropped, good.failed.clone()), (60, 0, None));
        assert_eq!((report.errors_total, report.frames_dropped), (1, 60));
        assert!(report.errors[0].contains(dir.join("full.ivf").to_str().unwrap()));
        assert!(report.errors[0].contains("No space left"), "{:?}", report.errors);
    });
}

#[test]
fn a_file_that_cannot_be_made_is_counted() {
    let opener: io::Opener = |_| Err(std::io::ErrorKind::PermissionDenied.into());
    each_with(opener, |disk, _| {
        let handle = disk.handle();
        for index in 0..ERRORS_KEPT_MAX + 4 {
            let recording = handle.create(&format!("r{index}"), Codec::Vp8).unwrap();
            handle.write(&recording, frame(0, keyframe(50))).unwrap();
        }
        let report = disk.finish();
        assert_eq!(report.errors.len(), ERRORS_KEPT_MAX);
        assert_eq!(report.errors_total, ERRORS_KEPT_MAX as u64 + 4);
        assert_eq!(report.frames_dropped, ERRORS_KEPT_MAX as u64 + 4);
        assert!(report.errors[0].contains("permission denied"), "{}", report.errors[0]);
    });
}

#[test]
fn files_that_are_not_what_was_written_at_the_end_are_named() {
    each(|disk, dir| {
        let handle = disk.handle();
        for name in ["kept", "removed", "replaced", "cut"] {
            let recording = handle.create(name, Codec::Vp8).unwrap();
            handle.write(&recording, frame(0, keyframe(CHUNK_BYTES))).unwrap();
            handle.finish(recording);
        }
        while handle.stats().frames_written < 4 {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The length in the header is written when a file is closed; one frame is taken for 3,000.
        let path = |name: &str| dir.join(name).with_extension("ivf");
        let header = |name: &str| std::fs::read(path(name)).unwrap()[24..28].to_vec();
        let closed = |name: &&str| header(name) == 3_000_u32.to_le_bytes();
        while !["removed", "replaced", "cut"].iter().all(closed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_file(path("removed")).unwrap();
        std::fs::rename(path("replaced"), dir.join("moved")).unwrap();
        std::fs::copy(dir.join("moved"), path("replaced")).unwrap();
        File::options().write(true).open(path("cut")).unwrap().set_len(5).unwrap();
        let report = disk.finish();
        let said: Vec<_> = report.errors.iter().map(String::as_str).collect();
        assert_eq!(report.errors_total, 3, "{said:?}");
        for (place, (name, what)) in [
            ("removed", "it was written, and is not there any more: No such file"),
            ("replaced", "it was written, and another file is in its place"),
            ("cut", "262188 bytes were written, and it has 5"),
        ]
        .into_iter()
        .enumerate()
        {
            let begin = format!("{}: {what}", path(name).display());
            assert!(said[place].starts_with(&begin), "{begin}: {said:?}");
            assert!(report.files[place + 1].failed.is_some());
        }
        assert_eq!(report.files[0].failed, None);
    });
}

#[test]
fn a_folder_that_is_gone_is_said() {
    each(|disk, dir| {
        let handle = disk.handle();
        let recording = handle.create("x", Codec::Vp8).unwrap();
        handle.write(&recording, frame(0, keyframe(CHUNK_BYTES))).unwrap();
        while handle.stats().frames_written == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_dir_all(dir).unwrap();
        let later = handle.create("y", Codec::Vp8).unwrap();
        handle.write(&later, frame(0, keyframe(100))).unwrap();
        let report = disk.finish();
        assert_eq!(report.errors_total, 2, "{:?}", report.errors);
        assert!(report.errors[0].contains("y.ivf: cannot be created"), "{:?}", report.errors);
        assert!(report.errors[1].contains("x.ivf: it was written"), "{:?}", report.errors);
    });
}

#[test]
fn unwritable_folders_are_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = DiskThread::start(DiskOptions::new(&path)).unwrap_err();
        assert!(matches!(error, DiskStartError::CreateDir { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    // Exists, and takes no files, not even root's.
    let error = DiskThread::start(DiskOptions::new("/proc/self")).unwrap_err();
    assert!(matches!(error, DiskStartError::NotWritable { .. }), "{error}");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (queue, messages) = bounded(3);
    let handle = DiskHandle { queue, shared: Arc::default() };
    let recording = handle.create("x", Codec::Vp8).unwrap();
    let outcomes: Vec<_> =
        (0..5).map(|_| handle.write(&recording, frame(0, keyframe(100)))).collect();
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(FrameDropped), Err(FrameDropped), Err(FrameDropped)]);
    assert_eq!(handle.stats().frames_dropped, 3);
    assert_eq!(recording.dropped.load(Relaxed), 3);
    assert_eq!(handle.create("y", Codec::Vp8).unwrap_err(), CreateRecordingError::QueueFull);
    assert_eq!(handle.shared.queued_bytes.load(Relaxed), 200);
    drop(messages);
    assert_eq!(handle.create("y", Codec::Vp8).unwrap_err(), CreateRecordingError::Ended);
    assert_eq!(handle.write(&recording, frame(0, keyframe(100))), Err(FrameDropped));
}

#[test]
fn recordings_beyond_the_maximum_are_refused_and_counted() {
    let (queue, messages) = bounded(RECORDINGS_MAX as usize + 1);
    let handle = DiskHandle { queue, shared: Arc::default() };
    for _ in 0..RECORDINGS_MAX {
        handle.create("x", Codec::Vp8).unwrap();
    }
    assert_eq!(handle.create("x", Codec::Vp8).unwrap_err(), CreateRecordingError::TooMany);
    assert_eq!((messages.len(), handle.stats().frames_dropped), (RECORDINGS_MAX as usize, 1));
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let (queue, _messages) = bounded(100);
    let handle = DiskHandle { queue, shared: Arc::default() };
    let recording = handle.create("x", Codec::Vp8).unwrap();
    let half = Bytes::from(vec![0; QUEUE_BYTES_MAX / 2]);
    let outcomes = [0, 1, 2].map(|at| handle.write(&recording, frame(at, half.clone())));
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(FrameDropped)]);
}

#[test]
fn drops_of_the_queue_are_in_the_files_report() {
    each(|disk, _| {
        let handle = disk.handle();
        let recording = handle.create("x", Codec::Vp8).unwrap();
        let too_much = Bytes::from(vec![0; QUEUE_BYTES_MAX + 1]);
        handle.write(&recording, frame(0, keyframe(100))).unwrap();
        handle.write(&recording, frame(1, too_much)).unwrap_err();
        let report = disk.finish();
        assert_eq!((report.files[0].frames, report.files[0].frames_dropped), (1, 1));
        assert_eq!(report.frames_dropped, 1);
    });
}

#[test]
fn writing_after_the_end_is_counted_not_lost() {
    each(|disk, _| {
        let handle = disk.handle();
        let recording = handle.create("x", Codec::Vp8).unwrap();
        handle.write(&recording, frame(0, keyframe(100))).unwrap();
        assert_eq!(disk.finish().files[0].frames, 1);
        assert_eq!(handle.write(&recording, frame(1, keyframe(100))), Err(FrameDropped));
        assert_eq!(handle.create("y", Codec::Opus).unwrap_err(), CreateRecordingError::Ended);
        assert_eq!(handle.stats().frames_dropped, 2);
    });
}

#[test]
fn the_backend_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let disk = DiskThread::start(DiskOptions::new(dir.path())).unwrap();
    let report = disk.finish();
    println!("{}: {}", report.backend, report.backend_reason);
    assert!(["io_uring", "plain"].contains(&report.backend) && !report.backend_reason.is_empty());
    let plain = DiskOptions { dir: dir.path().to_owned(), backend: DiskBackend::Plain };
    assert_eq!(DiskThread::start(plain).unwrap().finish().backend, "plain");
}

/// It is made as the folder of an attacker on the same machine would have it: with what it was to be
/// there already.
#[test]
fn the_write_test_follows_no_link_and_touches_nothing_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let [probe, theirs] = ["probe", "theirs"].map(|name| dir.path().join(name));
    write_test(&probe).unwrap();
    assert!(!probe.exists());
    for target in [&theirs, &dir.path().join("nowhere")] {
        std::fs::write(&theirs, "theirs").unwrap();
        std::os::unix::fs::symlink(target, &probe).unwrap();
        let error = write_test(&probe).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert!(std::fs::symlink_metadata(&probe).unwrap().is_symlink());
        std::fs::remove_file(&probe).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    assert!(!dir.path().join("nowhere").exists());
    write_test(&theirs).unwrap_err();
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
}
