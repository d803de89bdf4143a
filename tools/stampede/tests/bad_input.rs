//! Whatever is wrong gives one line, the right exit code, and no half-started run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use rustix::process::Signal;

use common::{Ended, KEY, Running, SECRET, Sfu, alone, run, stampede};

/// One line on stderr that begins with `error: ` and holds all of `words`.
fn assert_refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not in: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("backtrace"));
    assert_eq!(ended.stdout, "");
    assert!(ended.report.is_none());
}

#[test]
fn bad_flags_are_refused_with_what_value_and_why() {
    let server = ["--url", "ws://127.0.0.1:1", "--api-key", "k", "--api-secret", "s"];
    let with_server = |args: &[&'static str]| [&server[..], args].concat();
    let table: Vec<(Vec<&str>, &[&str])> = vec![
        (vec!["--subscribers", "many"], &["--subscribers", "many"]),
        (vec!["--duration", "90"], &["--duration", "90", "unit"]),
        (vec!["--duration", "0s"], &["--duration", "longer than 0"]),
        (vec!["--num-per-second", "0"], &["--num-per-second", "above 0"]),
        (vec!["--rooms", "0"], &["--rooms 0"]),
        (vec!["--video-codec", "h266"], &["h266", "unknown codec"]),
        (vec!["--video-frame-rate", "25"], &["--video-frame-rate", "--video"]),
        (vec!["--video-codec=av1", "--record=/tmp"], &["--record", "AV1"]),
        (vec!["--video-resolution", "4k"], &["4k", "high"]),
        (vec!["--backend", "dpdk"], &["dpdk", "io_uring"]),
        (vec!["--cores", "4095"], &["--cores", "4095"]),
        (vec!["--cores", "0,0"], &["twice"]),
        (vec!["--workers", "0"], &["--workers 0"]),
        (vec!["--out", "xml=/tmp/x.xml"], &["xml", "json"]),
        (vec!["--out", "json=/nonexistent/r.json"], &["/nonexistent/r.json"]),
        (vec!["--record", "/proc/nowhere"], &["/proc/nowhere"]),
        (vec!["--record-subscribers", "1"], &["--record DIR"]),
        (vec!["--threshold", "x<1"], &["--threshold"]),
        (vec!["--api-key", "k"], &["--api-key", "--url"]),
        (vec!["--embedded-drop", "5"], &["--embedded-drop", "% sign"]),
        (with_server(&[]), &["nobody would join"]),
        (with_server(&["--subscribers=1", "--embedded-drop=1%"]), &["--embedded-drop", "--url"]),
        (vec!["--url", "http//x", "--subscribers=1"], &["--url", "not a URL"]),
        (vec!["--url", "ftp://x", "--subscribers=1"], &["--url", "ftp"]),
        (vec!["--url", "ws://a:b@x", "--subscribers=1"], &["--url", "user name"]),
        (vec!["--url", "ws://x?access_token=t", "--subscribers=1"], &["--url", "query"]),
        (vec!["--url", "ws://x", "--subscribers=1"], &["API key", "LIVEKIT_API_KEY"]),
        (
            vec!["--url", "ws://x", "--api-key=k", "--subscribers=1"],
            &["API secret", "LIVEKIT_API_SECRET"],
        ),
        (
            vec![
                "--url=ws://no-such-host.invalid",
                "--api-key=k",
                "--api-secret=s",
                "--subscribers=1",
            ],
            &["no-such-host.invalid", "can't resolve"],
        ),
        (
            vec![
                "--url=wss://x.livekit.cloud",
                "--api-key=k",
                "--api-secret=s",
                "--subscribers=51",
            ],
            &["51 participants", "acceptable use policy"],
        ),
    ];
    for (args, words) in table {
        // A bare command, so that a bad --out is the only --out.
        let ended = stampede().arg("run").args(&args).output().unwrap();
        let ended = Ended {
            code: ended.status.code(),
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
            report: None,
        };
        assert_refused(&ended, 104, words);
    }
}

#[test]
fn bad_media_files_are_refused_with_file_offset_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let mut header = b"DKIF\0\0\x20\0VP80\x40\x01\xb4\0".to_vec();
    header.extend([25, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut av9 = header.clone();
    av9[8..12].copy_from_slice(b"AV9X");
    let text = file("text.ivf", b"hello, this is a text file and no video at all");
    let empty = file("empty.ivf", b"");
    let cut = file("cut.ivf", &header[..20]);
    let none = file("none.ivf", &header);
    let unknown = file("unknown.ivf", &av9);
    let missing = dir.path().join("missing.ivf").display().to_string();
    for (flag, path) in [
        ("--video", &text),
        ("--video", &empty),
        ("--video", &cut),
        ("--video", &none),
        ("--video", &unknown),
        ("--video", &missing),
        ("--audio", &text),
        ("--audio", &missing),
    ] {
        let ended = run(&["run", flag, path]);
        let offset = if *path == missing { "cannot be read" } else { "byte " };
        assert_refused(&ended, 104, &[flag, path, offset]);
    }
}

/// An IVF file of ten VP8 frames, of which nothing is decoded here.
fn vp8_file(rate: u32, scale: u32, step: u64) -> Vec<u8> {
    let mut file = b"DKIF\0\0\x20\0VP80\x40\0\x30\0".to_vec();
    file.extend([rate.to_le_bytes(), scale.to_le_bytes(), [0; 4], [0; 4]].as_flattened());
    for frame in 0..10_u64 {
        let data: &[u8] = match frame {
            0 => &[0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 48, 0, 7, 7],
            _ => &[0x11, 2, 3],
        };
        file.extend((data.len() as u32).to_le_bytes());
        file.extend((frame * step).to_le_bytes());
        file.extend(data);
    }
    file
}

/// They were accepted, and then no publisher joined, or the publishers were blamed.
#[test]
fn profiles_and_timing_that_nothing_agrees_on_are_refused_with_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    // x264's parameter set of 4:4:4, libvpx's keyframe of 10 bits.
    let high_444 = [
        &[0, 0, 0, 1, 0x67, 0xf4, 0, 0x0c, 0x91, 0x96, 0x40, 0x50, 0x67, 0xe3, 0x70, 0x11][..],
        &[0, 0, 3, 0, 1, 0, 0, 3, 0, 0x32, 0x0f, 0x14, 0x2a, 0x48],
        &[0, 0, 0, 1, 0x68, 0xeb, 0xc3, 0xc4, 0x48, 0x44, 0, 0, 0, 1, 0x65, 0x88, 0x84, 1],
    ];
    let mut ten_bits = vp8_file(25, 1, 1)[..32].to_vec();
    ten_bits[8..12].copy_from_slice(b"VP90");
    ten_bits.extend([10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ten_bits.extend([0x92, 0x49, 0x83, 0x42, 0, 9, 0xf8, 5, 0x9b, 3]);
    for (name, bytes, words) in [
        ("a.h264", high_444.concat(), &["High 4:4:4 Predictive", "-pix_fmt yuv420p"][..]),
        ("b.ivf", ten_bits, &["VP9 of profile 2", "profile 0", "-pix_fmt yuv420p"]),
        ("c.ivf", vp8_file(1, 25, 1), &["25 s a frame", "swapped", "25 frames/s", "setts=ts=N"]),
        ("d.ivf", vp8_file(1_000, 1, 1), &["1000 frames a second", "frame numbers", "setts=ts=N"]),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let path = path.display().to_string();
        for flag in ["--video", "--screen-share"] {
            let publishers =
                if flag == "--video" { "--rooms=1" } else { "--screen-share-publishers=1" };
            let ended = run(&["run", flag, &path, publishers]);
            assert_refused(&ended, 104, &[&[flag, &path, "ffmpeg"][..], words].concat());
        }
    }
}

#[test]
fn a_video_is_no_audio_and_layers_have_an_order() {
    let clips = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/media/clips");
    let clip = |name: &str| format!("{clips}/{name}");
    let (low, high) = (clip("video-180p.ivf"), clip("video-720p.ivf"));
    assert_refused(&run(&["run", "--audio", &low]), 104, &["--audio", "VP8", "Opus"]);
    assert_refused(&run(&["run", "--video", &clip("audio.ogg")]), 104, &["--video", "Opus"]);
    let swapped = run(&["run", "--video", &high, "--video", &low]);
    assert_refused(&swapped, 104, &["lowest layer first", "1280x720", "320x180"]);
}

#[test]
fn an_unreachable_server_is_counted_and_reported() {
    let ended = run(&[
        "run",
        "--url=ws://127.0.0.1:1",
        "--api-key=k",
        "--api-secret=secret-that-stays-secret",
        "--subscribers=3",
    ]);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert_eq!(ended.report()["verdict"]["result"], "fail");
    assert_eq!(ended.number("/join/requested"), 3.0);
    assert_eq!(ended.number("/join/failed"), 3.0);
    assert_eq!(ended.number("/join/errors/unreachable"), 1.0);
    assert!(ended.stdout.contains("FAIL  0 of 3 joined"), "{}", ended.stdout);
    for text in [&ended.stdout, &ended.stderr, &ended.report().to_string()] {
        assert!(!text.contains("stays-secret"));
    }
}

#[test]
fn a_signal_before_anybody_joined_still_gives_a_report() {
    // Takes the connection and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let args = ["run", "--url", &url, "--api-key=k", "--api-secret=s", "--subscribers=3"];
    let running = Running::start(&args);
    let _held = listener.accept().unwrap();
    running.signal(Signal::INT);
    let ended = running.end();
    ended.assert_code(105);
    assert_eq!(ended.number("/join/requested"), 3.0);
    assert_eq!(ended.number("/join/started"), 0.0);
    assert_eq!(ended.report()["run"]["interrupted"], true);
}

#[test]
fn a_wrong_secret_is_refused_before_anything_joins() {
    let _alone = alone();
    let sfu = Sfu::start(&[]);
    let args = ["run", "--url", &sfu.url, "--api-key", KEY, "--subscribers=3"];
    let wrong = Running::start_with(&args, |command| {
        command.env("LIVEKIT_API_SECRET", format!("{SECRET}-wrong"));
    })
    .end();
    assert_refused(&wrong, 104, &["refused the API key or secret", "LIVEKIT_API_SECRET"]);
    assert!(!wrong.stderr.contains(SECRET) && !wrong.stderr.contains("eyJ"), "{}", wrong.stderr);
    let args = ["run", "--url", &sfu.url, "--api-key=nobody", "--subscribers=3"];
    let unknown = Running::start_with(&args, |command| {
        command.env("LIVEKIT_API_SECRET", SECRET);
    })
    .end();
    assert_refused(&unknown, 104, &["refused the API key or secret"]);
}

#[test]
fn keys_of_the_environment_are_for_a_server_alone() {
    // CI systems set secrets that there are none of to nothing.
    for flags in [&[][..], &["--embedded-flag=--malformed=1%"]] {
        let args = [&["run", "--out=json=/nonexistent/r.json"], flags].concat();
        let ended = Running::start_with(&args, |command| {
            command.env("LIVEKIT_API_KEY", "").env("LIVEKIT_API_SECRET", "");
        })
        .end();
        assert_refused(&ended, 104, &["/nonexistent/r.json"]);
    }
}

#[test]
fn a_web_server_is_no_livekit() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
    });
    let args = ["run", "--url", &url, "--api-key=k", "--api-secret=s", "--subscribers=1"];
    assert_refused(&run(&args), 104, &["no LiveKit RoomService there", "--url"]);
    server.join().unwrap();
}

#[test]
fn the_sfu_refuses_bad_flags_and_taken_ports() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, words) in [
        (&["sfu", "--port", &port, "--rtc-port=0"][..], &["--port"][..]),
        (&["sfu", "--bind", "0.0.0.0", "--port=0"], &["--bind 0.0.0.0"]),
        (&["sfu", "--drop", "101%", "--port=0"], &["drop"]),
        (&["sfu", "--drop-burst", "0"], &["--drop-burst"]),
        (&["sfu", "--delay", "5"], &["--delay", "unit"]),
        (&["sfu", "--bind", "nowhere"], &["--bind", "nowhere"]),
        (&["sfu", "--api-key", "", "--port=0"], &["key is empty"]),
    ] {
        assert_refused(&run(args), 104, words);
    }
}

#[test]
fn descriptors_that_cannot_be_had_are_one_error_with_the_command() {
    // Far more peers than fs.nr_open lets even root have descriptors for.
    let args = ["run", "--subscribers", "990000", "--num-per-second", "1"];
    let ended = run(&args);
    assert_eq!(ended.code, Some(104), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let descriptors = ended.stderr.contains("ulimit -n ");
    assert!(descriptors || ended.stderr.contains("ports: "), "{}", ended.stderr);
}

#[test]
fn what_was_found_of_the_machine_is_told_of_a_refused_run_too() {
    let server = ["--url=ws://192.0.2.1:7880", "--api-key=k", "--api-secret=s"];
    let many = ["--subscribers=990000", "--num-per-second=1", "--proxy=http://127.0.0.1:1"];
    let ended = run(&[&["run"], &server[..], &many].concat());
    assert_eq!(ended.code, Some(104), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("through the proxy 127.0.0.1:1 (--proxy)"), "{}", ended.stderr);
}

#[test]
fn a_secret_that_livekit_would_refuse_is_worth_a_log_line() {
    let server = ["--url=ws://127.0.0.1:1", "--api-key=k", "--api-secret=short"];
    let args = [&["run", "--subscribers=1", "--out=json=/nonexistent/r.json"], &server[..]];
    let ended = Running::start_with(&args.concat(), |command| {
        command.env("RUST_LOG", "info");
    })
    .end();
    assert_eq!(ended.code, Some(104), "{}", ended.stderr);
    assert!(ended.stderr.contains("the API secret has 5 characters"), "{}", ended.stderr);
}

#[test]
fn help_and_version_are_no_errors() {
    for (args, word) in [
        (&["--help"][..], "Exit codes"),
        (&["run", "--help"], "--num-per-second"),
        (&["sfu", "--help"], "--drop-burst"),
        (&["doctor", "--help"], "--participants"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let ended = run_plain(args);
        assert_eq!((ended.0, ended.2.as_str()), (Some(0), ""), "{args:?}");
        assert!(ended.1.contains(word), "{}", ended.1);
    }
    let (code, _, stderr) = run_plain(&[]);
    assert_eq!(code, Some(104));
    assert!(stderr.contains("no command is given"), "{stderr}");
}

fn run_plain(args: &[&str]) -> (Option<i32>, String, String) {
    let output = stampede().args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_does_not_show_the_secret_of_the_environment() {
    let output = stampede()
        .args(["run", "--help"])
        .env("LIVEKIT_API_SECRET", "hunter2-hunter2")
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"));
}

#[test]
fn the_doctor_checks_this_machine() {
    let (code, stdout, stderr) =
        run_plain(&["doctor", "--participants", "10", "--backend", "mmsg"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for word in ["file descriptors", "socket buffers", "ports", "UDP backend", "memory", "loopback"]
    {
        assert!(stdout.contains(word), "{word}: {stdout}");
    }
    assert!(stdout.trim_end().ends_with("Yes."), "{stdout}");
    let (code, stdout, _) = run_plain(&["doctor", "--participants", "900000"]);
    assert_eq!(code, Some(104));
    assert!(stdout.contains("FAILED") && stdout.contains("No: "), "{stdout}");
}
