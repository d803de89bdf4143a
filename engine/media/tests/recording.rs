//! Published, received, recorded, read back: bit for bit the same, and ffprobe agrees.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic and print")]

use std::path::Path;
use std::process::Command;

use stampede_media::disk::DiskBackend;
use stampede_media::record::{DiskFrame, IvfWriter, OggOpusWriter};
use stampede_media::{
    AssembledFrame, AssemblerPacket, Codec, DiskOptions, DiskThread, FrameAssembler, MediaClip,
    builtin,
};
use stampede_testing::skip;

/// Runs a clip through an assembler `loops` times, as the wire would bring it.
fn receive(clip: &MediaClip, loops: u64) -> Vec<AssembledFrame> {
    let mut assembler = FrameAssembler::new(clip.codec).unwrap();
    let mut sequence = 65_000;
    let mut frames = Vec::new();
    for pass in 0..loops {
        for frame in &clip.frames {
            let ticks = pass * clip.duration_ticks + frame.timestamp_ticks;
            let timestamp = 4_294_000_000u32.wrapping_add(ticks as u32);
            for (index, payload) in frame.packets.iter().enumerate() {
                let marker = index + 1 == frame.packets.len();
                assembler.push(AssemblerPacket { sequence, timestamp, marker, payload });
                sequence += 1;
            }
            frames.extend(std::iter::from_fn(|| assembler.poll()));
        }
    }
    assert_eq!(assembler.counters().frames_complete, frames.len() as u64);
    frames
}

fn original(frame: &stampede_media::ClipFrame, descriptor_bytes: usize) -> Vec<u8> {
    frame.packets.iter().flat_map(|packet| packet[descriptor_bytes..].to_vec()).collect()
}

fn assert_same(recorded: &MediaClip, published: &MediaClip, loops: usize) {
    assert_eq!(recorded.frames.len(), published.frames.len() * loops);
    let descriptor_bytes = if published.codec.is_video() { 6 } else { 0 };
    let originals = published.frames.iter().cycle();
    for (index, (ours, theirs)) in recorded.frames.iter().zip(originals).enumerate() {
        let pass = (index / published.frames.len()) as u64;
        let due = pass * published.duration_ticks + theirs.timestamp_ticks;
        assert_eq!((ours.timestamp_ticks, ours.keyframe), (due, theirs.keyframe), "{index}");
        assert!(original(ours, descriptor_bytes) == original(theirs, descriptor_bytes), "{index}");
    }
    assert_eq!(recorded.duration_ticks, published.duration_ticks * loops as u64);
}

/// What ffprobe says, as `key=value` lines; `None`, and a skip, where it isn't installed.
fn ffprobe(path: &Path) -> Option<Vec<String>> {
    let entries = "stream=codec_name,width,height,nb_read_packets,nb_read_frames,r_frame_rate,\
                   duration,channels,sample_rate:format=format_name";
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_packets", "-count_frames", "-of", "default=nw=1"])
        .args(["-show_entries", entries])
        .arg(path)
        .output();
    let output = output.inspect_err(|error| skip(format!("ffprobe can't be run: {error}"))).ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", path.display());
    let lines: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(Into::into).collect();
    println!("{lines:?}");
    Some(lines)
}

#[track_caller]
fn assert_says(lines: &[String], expected: &[&str]) {
    for line in expected {
        assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:?}");
    }
}

#[test]
fn recordings_are_bit_identical_and_ffprobe_plays_them() {
    for backend in [DiskBackend::Plain, DiskBackend::IoUring] {
        let dir = tempfile::tempdir().unwrap();
        let disk = match DiskThread::start(DiskOptions { dir: dir.path().to_owned(), backend }) {
            Ok(disk) => disk,
            Err(error) => {
                skip(error);
                continue;
            }
        };
        let [_, medium, high] = builtin::video_layers().unwrap();
        let clips = [(medium, "m"), (high, "h"), (builtin::audio().unwrap(), "a")];
        let handle = disk.handle();
        for (clip, name) in &clips {
            let recording = handle.create(&format!("sub 0/{name}"), clip.codec).unwrap();
            for frame in receive(clip, 2) {
                handle.write(&recording, DiskFrame::from(&frame)).unwrap();
            }
            handle.finish(recording);
        }
        let report = disk.finish();
        assert_eq!((report.errors_total, report.frames_dropped), (0, 0), "{report:?}");
        for ((clip, _), file) in clips.iter().zip(&report.files) {
            assert_same(&MediaClip::open(&file.path).unwrap(), clip, 2);
            assert_eq!(file.bytes, std::fs::metadata(&file.path).unwrap().len());
            assert_eq!(file.frames, clip.frames.len() as u64 * 2);
        }
        assert!(report.files[1].path.ends_with("sub_0_h.ivf"), "{report:?}");
        if let Some(lines) = ffprobe(&report.files[1].path) {
            let video = ["codec_name=vp8", "width=1280", "height=720", "r_frame_rate=25/1"];
            assert_says(&lines, &video);
            assert_says(&lines, &["nb_read_frames=300", "duration=12.000000", "format_name=ivf"]);
        }
        if let Some(lines) = ffprobe(&report.files[2].path) {
            assert_says(&lines, &["codec_name=opus", "sample_rate=48000", "format_name=ogg"]);
            assert_says(&lines, &["nb_read_packets=602", "duration=12.040000"]);
        }
    }
}

#[test]
fn nal_units_come_back_in_annex_b() {
    for (codec, extension) in [(Codec::H264, "h264"), (Codec::H265, "h265")] {
        let dir = tempfile::tempdir().unwrap();
        let options = DiskOptions { dir: dir.path().to_owned(), backend: DiskBackend::Plain };
        let disk = DiskThread::start(options).unwrap();
        let clip = &builtin::video(codec).unwrap()[1];
        let handle = disk.handle();
        let recording = handle.create("x", codec).unwrap();
        for frame in receive(clip, 2) {
            handle.write(&recording, DiskFrame::from(&frame)).unwrap();
        }
        handle.finish(recording);
        let report = disk.finish();
        let file = &report.files[0];
        assert!(file.path.extension().is_some_and(|found| found == extension), "{report:?}");
        let recorded = MediaClip::open(&file.path).unwrap();
        assert_eq!(recorded.frames.len(), 2 * clip.frames.len());
        let published = clip.frames.iter().cycle();
        for (index, (ours, theirs)) in recorded.frames.iter().zip(published).enumerate() {
            assert_eq!(ours.keyframe, theirs.keyframe, "{codec} {index}");
            assert_eq!(ours.packets, theirs.packets, "{codec} {index}");
        }
        let Some(lines) = ffprobe(&file.path) else { continue };
        assert_says(&lines, &["width=640", "height=360", "nb_read_frames=200"]);
    }
}

#[test]
fn unfinished_recordings_play() {
    let dir = tempfile::tempdir().unwrap();
    let clip = builtin::video_layers().unwrap().into_iter().next().unwrap();
    let mut file = Vec::new();
    let frames = receive(&clip, 1);
    let mut writer = IvfWriter::begin(frames[0].timestamp, &frames[0].data, &mut file).unwrap();
    for frame in &frames {
        writer.frame(frame.timestamp, &frame.data, &mut file);
    }
    let path = dir.path().join("cut.ivf");
    std::fs::write(&path, &file).unwrap();
    assert_same(&MediaClip::open(&path).unwrap(), &clip, 1);
    if let Some(lines) = ffprobe(&path) {
        assert_says(&lines, &["codec_name=vp8", "r_frame_rate=25/1", "nb_read_frames=150"]);
    }

    let clip = builtin::audio().unwrap();
    let mut file = Vec::new();
    let frames = receive(&clip, 1);
    let mut writer = OggOpusWriter::begin(7, &frames[0].data, &mut file).unwrap();
    for frame in &frames {
        writer.frame(frame.timestamp, &frame.data, &mut file).unwrap();
    }
    let path = dir.path().join("cut.ogg");
    std::fs::write(&path, &file).unwrap();
    // Pages are closed once a second: the rest of the last one is lost, what is there is whole.
    assert_eq!(MediaClip::open(&path).unwrap().frames.len(), 300);
    if let Some(lines) = ffprobe(&path) {
        assert_says(&lines, &["codec_name=opus", "nb_read_packets=300"]);
    }
}

#[test]
fn gaps_stay_visible() {
    let dir = tempfile::tempdir().unwrap();
    let clip = builtin::video_layers().unwrap().into_iter().next().unwrap();
    let frames = receive(&clip, 1);
    let mut file = Vec::new();
    let kept: Vec<_> = frames.iter().take(10).chain(frames.iter().skip(60)).collect();
    let mut writer = IvfWriter::begin(kept[0].timestamp, &kept[0].data, &mut file).unwrap();
    for frame in &kept {
        writer.frame(frame.timestamp, &frame.data, &mut file);
    }
    // A timestamp that stands still would make the file unplayable.
    writer.frame(kept[99].timestamp, &kept[99].data, &mut file);
    assert_eq!((writer.frames(), writer.timestamps_moved()), (101, 1));
    let recorded = MediaClip::from_bytes("gap", &file).unwrap();
    let ticks: Vec<_> = recorded.frames.iter().map(|frame| frame.timestamp_ticks).collect();
    assert_eq!(ticks[8..12], [8 * 3_600, 9 * 3_600, 60 * 3_600, 61 * 3_600]);
    assert_eq!(ticks[100], ticks[99] + 1);

    // Opus: 1 s missing, then 30 ms, become concealment packets that last as long.
    let clip = builtin::audio().unwrap();
    let frames = receive(&clip, 1);
    let mut file = Vec::new();
    let mut writer = OggOpusWriter::begin(7, &frames[0].data, &mut file).unwrap();
    for (index, frame) in frames.iter().enumerate().filter(|(index, _)| !(10..60).contains(index)) {
        let late = if index < 100 { 0 } else { 1_440 };
        writer.frame(frame.timestamp + late, &frame.data, &mut file).unwrap();
    }
    writer.finish(&mut file).unwrap();
    // 50 packets of 20 ms; one of 20 ms and one of 10 ms.
    assert_eq!((writer.packets(), writer.concealed(), writer.timestamp_jumps()), (251, 52, 0));
    let recorded = MediaClip::from_bytes("gap", &file).unwrap();
    assert_eq!(recorded.duration_ticks, clip.duration_ticks + 1_440);
    assert!(recorded.frames[10].frame_bytes == 1 && recorded.frames[60].frame_bytes > 1);
    let path = dir.path().join("gap.ogg");
    std::fs::write(&path, &file).unwrap();
    if let Some(lines) = ffprobe(&path) {
        assert_says(&lines, &["duration=6.050000"]);
    }
    // A jump back, and one of an hour, are counted instead of filled.
    for timestamp in [0, 1 << 40] {
        writer.frame(timestamp, &frames[0].data, &mut file).unwrap();
    }
    assert_eq!((writer.concealed(), writer.timestamp_jumps()), (52, 2));
}

#[test]
fn the_advised_commands_make_usable_files() {
    if let Err(error) = Command::new("ffmpeg").arg("-version").output() {
        return skip(format!("ffmpeg can't be run: {error}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let make = |source: &[&str], options: &str, name: &str| {
        let path = dir.path().join(name);
        let status = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-y"])
            .args(source)
            .args(options.split_whitespace())
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success());
        println!("{:?}", MediaClip::open(&path).unwrap().frame_rate);
    };
    let video = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30000/1001:duration=2"];
    let audio = ["-f", "lavfi", "-i", "sine=duration=2"];
    make(&video, "-an -c:v libvpx -b:v 1500k -g 60 -auto-alt-ref 0 -deadline realtime", "a.ivf");
    make(&video, "-an -c:v libvpx -b:v 1500k -g 60", "b.ivf");
    // What people have lying around: two-pass-like, with alternate reference frames.
    make(&video, "-an -c:v libvpx -b:v 500k -auto-alt-ref 1 -lag-in-frames 16", "c.ivf");
    let opus = "-vn -map 0:a:0 -c:a libopus -ac 2 -b:a 48k -frame_duration 20";
    make(&audio, opus, "d.ogg");
    make(&audio, "-vn -c:a libopus -b:a 48k", "e.ogg");
    make(&audio, "-vn -c:a libopus -b:a 24k -frame_duration 60", "f.opus");
}
