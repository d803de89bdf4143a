//! `--capture DIR`: the flight recorder. Of the worst subscribers the last seconds of packets as
//! pcapng, decrypted, and a text timeline of their signalling.

mod packet;
mod pcapng;
mod timeline;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stampede_core::CaptureLimits;
use stampede_engine::{CaptureOptions, CapturedPeer, keep_worst};
use stampede_output::files::WriteError;
use stampede_scenario::CaptureSpec;

pub(crate) use timeline::Timelines;

/// Most memory of a tapped subscriber with payloads: 10 s at 6 Mbps.
const PEER_BYTES_MAX: usize = 8 << 20;
/// Most memory of a tapped subscriber without payloads: 10 s at 700 packets a second.
const PEER_HEADER_BYTES_MAX: usize = 640 << 10;
/// Most memory of all tapped subscribers together; it decides how many are tapped.
const TOTAL_BYTES_MAX: usize = 512 << 20;

fn peer_bytes_max(plan: &CaptureSpec) -> usize {
    if plan.headers { PEER_HEADER_BYTES_MAX } else { PEER_BYTES_MAX }
}

/// How many subscribers can be tapped: the first ones to join.
fn tapped_max(plan: &CaptureSpec) -> usize {
    TOTAL_BYTES_MAX / peer_bytes_max(plan)
}

/// For an engine with this many workers.
pub(crate) fn options(plan: &CaptureSpec, workers: usize) -> CaptureOptions {
    CaptureOptions {
        limits: CaptureLimits {
            span: plan.span,
            bytes_max: peer_bytes_max(plan),
            payload: !plan.headers,
        },
        tapped_per_worker_max: (tapped_max(plan) / workers.max(1)).max(1),
        worst: plan.worst,
    }
}

/// What is tapped, for people.
pub(crate) fn describe(plan: &CaptureSpec, subscribers: usize) -> String {
    let tapped = tapped_max(plan);
    let of = if subscribers <= tapped {
        format!("all {subscribers} subscribers")
    } else {
        format!("the first {tapped} of {subscribers} subscribers (memory bound)")
    };
    format!(
        "flight recorder: the worst {} of {of}, last {:?}, into {}; SIGUSR1 or c writes now",
        plan.worst,
        plan.span,
        plan.dir.display()
    )
}

/// What a participant could not watch, in order of time.
type Watched<'a> = &'a dyn Fn(&str) -> Vec<(Duration, String)>;

/// The worst of `captures`, each with its timeline.
pub(crate) fn worst(
    plan: &CaptureSpec,
    mut captures: Vec<CapturedPeer>,
    timelines: &Timelines,
    watched: Watched<'_>,
) -> Vec<(CapturedPeer, String)> {
    keep_worst(&mut captures, plan.worst);
    let with_timeline = |capture: CapturedPeer| {
        let timeline = timelines.text(&capture.label, &watched(&capture.label));
        (capture, timeline)
    };
    captures.into_iter().map(with_timeline).collect()
}

/// Timelines of those that could watch least and have no capture: who gets nothing loses no packet.
pub(crate) fn unwatched(
    viewers: &[String],
    captured: &[(CapturedPeer, String)],
    timelines: &Timelines,
    watched: Watched<'_>,
) -> Vec<(String, String)> {
    let has_none = |viewer: &&String| captured.iter().all(|(peer, _)| peer.label != **viewer);
    let text = |viewer: &String| (viewer.clone(), timelines.text(viewer, &watched(viewer)));
    viewers.iter().filter(has_none).map(text).collect()
}

/// Writes timelines without packets; gives what was wrong with any.
pub(crate) fn write_timelines(plan: &CaptureSpec, timelines: Vec<(String, String)>) -> Vec<String> {
    let write = |(identity, timeline): (String, String)| {
        let path = plan.dir.join(format!("{}.timeline.txt", file_name(&identity)));
        let written = stampede_output::files::write(&path, timeline.into_bytes());
        written.err().map(|error| format!("{}: {error}", path.display()))
    };
    timelines.into_iter().filter_map(write).collect()
}

/// Writes them all, whichever fail; gives the names of the pcapng files that are whole, and what
/// was wrong with the others and the timelines.
///
/// `suffix` tells files written during the run from those at its end.
pub(crate) fn write(
    plan: &CaptureSpec,
    worst: &[(CapturedPeer, String)],
    suffix: &str,
) -> (Vec<PathBuf>, Vec<String>) {
    let (mut files, mut lost) = (Vec::new(), Vec::new());
    let failed =
        |path: &Path, error: WriteError| format!("{}: cannot be written: {error}", path.display());
    let written = |path: &Path, capture| stampede_output::files::write(path, packets(capture)?);
    for (capture, timeline) in worst {
        let name = file_name(&capture.label);
        let path = plan.dir.join(format!("{name}{suffix}.pcapng"));
        match written(&path, capture) {
            Ok(()) => files.push(path),
            Err(error) => lost.push(failed(&path, error)),
        }
        let path = plan.dir.join(format!("{name}{suffix}.timeline.txt"));
        if let Err(error) = stampede_output::files::write(&path, timeline.clone().into_bytes()) {
            lost.push(failed(&path, error));
        }
    }
    (files, lost)
}

/// An identity as a file name: whatever a room or server made of it stays inside of the folder.
fn file_name(label: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    label.chars().map(plain).collect()
}

/// A pcapng file of a subscriber, at most [`PEER_BYTES_MAX`] of packets.
fn packets(capture: &CapturedPeer) -> io::Result<Vec<u8>> {
    let figures = &capture.figures;
    let comment = format!(
        "{}: {} expected, {} missing, {} repaired, {} unrecovered, {} freezes in the measured \
         window; decrypted RTP without header extensions; {} packets found no room in memory",
        capture.label,
        figures.expected,
        figures.missing,
        figures.repaired,
        figures.unrecovered,
        figures.freezes,
        capture.dropped
    );
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    let from = capture.remote.unwrap_or(unknown);
    let mut writer = pcapng::Writer::new(Vec::new(), &comment)?;
    for captured in &capture.packets {
        let (bytes, original_bytes) = packet::datagram(captured, from, capture.local);
        let note = captured.repaired.then_some("repaired by RTX");
        writer.packet(captured.at_unix_ns, &bytes, original_bytes, note)?;
    }
    Ok(writer.finish())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use stampede_core::CapturedPacket;
    use stampede_engine::{PeerFigures, PeerId};

    use super::*;

    #[test]
    fn no_more_are_tapped_than_there_is_memory_for() {
        let dir = PathBuf::from("somewhere");
        let span = Duration::from_secs(10);
        for (headers, tapped) in [(false, 64), (true, 819)] {
            let plan = CaptureSpec { dir: dir.clone(), span, worst: 5, headers };
            for workers in [1, 3, 16] {
                let options = options(&plan, workers);
                let all = options.tapped_per_worker_max * workers * options.limits.bytes_max;
                assert!(all <= TOTAL_BYTES_MAX, "{workers}: {all}");
            }
            let told = |subscribers| describe(&plan, subscribers);
            assert!(told(tapped).contains(&format!("all {tapped} subscribers")));
            assert!(told(tapped + 1).contains(&format!("the first {tapped} of")));
        }
    }

    fn capture(label: &str, unrecovered: u64, payload: &'static [u8]) -> CapturedPeer {
        let packet = |number: u16| CapturedPacket {
            at_unix_ns: 1_700_000_000_123_456_789 + u64::from(number) * 20_000_000,
            ssrc: 0x1234_5678,
            sequence: 65_534u16.wrapping_add(number),
            timestamp: u32::from(number) * 960,
            marker: number == 0,
            payload_type: 111,
            repaired: number == 1,
            payload_bytes: 100,
            payload: payload.into(),
        };
        CapturedPeer {
            id: PeerId::default(),
            label: label.to_owned(),
            local: "127.0.0.1:40000".parse().unwrap(),
            remote: Some("127.0.0.1:7882".parse().unwrap()),
            figures: PeerFigures { unrecovered, ..PeerFigures::default() },
            packets: (0..3).map(packet).collect(),
            dropped: 0,
        }
    }

    fn plan(dir: &Path) -> CaptureSpec {
        let span = Duration::from_secs(10);
        CaptureSpec { dir: dir.to_owned(), span, worst: 1, headers: false }
    }

    #[test]
    fn the_worst_are_written_with_their_timelines() {
        let dir = tempfile::tempdir().unwrap();
        let mut timelines = Timelines::new(true);
        timelines.add("../b", Duration::from_secs(1), || "join".to_owned());
        let captures = vec![capture("a", 1, &[7; 100]), capture("../b", 2, &[7; 100])];
        let plan = plan(dir.path());
        let watched = |identity: &str| match identity {
            "../b" => vec![(Duration::from_secs(2), "interrupted: camera".to_owned())],
            _ => Vec::new(),
        };
        let worst = worst(&plan, captures, &timelines, &watched);
        let (files, lost) = write(&plan, &worst, "-5s");
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(files, [dir.path().join("___b-5s.pcapng")]);
        let text = std::fs::read_to_string(dir.path().join("___b-5s.timeline.txt")).unwrap();
        assert_eq!(text, "    1.000000  join\n    2.000000  interrupted: camera\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let viewers = ["../b", "c"].map(str::to_owned);
        let others = unwatched(&viewers, &worst, &timelines, &watched);
        assert_eq!(others, [("c".to_owned(), String::new())]);
        assert!(write_timelines(&plan, others).is_empty());
        assert!(dir.path().join("c.timeline.txt").exists());
    }

    #[test]
    fn each_file_that_can_t_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(&dir.path().join("gone"));
        let all = vec![(capture("a", 1, &[7; 100]), "timeline".to_owned())];
        let (files, lost) = write(&plan, &all, "");
        assert!(files.is_empty());
        assert_eq!(lost.len(), 2);
        assert!(lost[0].contains("gone/a.pcapng: cannot be written: No such file"), "{lost:?}");
        plan.dir = dir.path().to_owned();
        assert!(write(&plan, &all, "").1.is_empty());
    }

    #[test]
    fn wireshark_reads_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        for payload in [&[7; 100][..], &[]] {
            let path = dir.path().join("x.pcapng");
            std::fs::write(&path, packets(&capture("a", 1, payload)).unwrap()).unwrap();
            let fields = ["rtp.seq", "rtp.ssrc", "rtp.marker", "frame.len", "frame.comment"];
            let fields = fields.iter().flat_map(|field| ["-e", field]);
            let mut command = Command::new("tshark");
            command.arg("-r").arg(&path).args(["-d", "udp.port==40000,rtp", "-T", "fields"]);
            let output = match command.args(["-E", "separator=;"]).args(fields).output() {
                Ok(output) => output,
                Err(error) => {
                    return stampede_testing::skip(format!("tshark can't be run: {error}"));
                }
            };
            let text = String::from_utf8_lossy(&output.stdout);
            let lines: Vec<_> = text.lines().collect();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(lines.len(), 3, "{text}\n{errors}");
            assert!(lines[0].starts_with("65534;0x12345678;"), "{text}");
            assert!(lines[1].ends_with(";140;repaired by RTX"), "{text}");
            assert!(lines[2].starts_with("0;0x12345678;"), "{text}");
        }
    }

    #[test]
    fn memory_decides_how_many_are_tapped() {
        let mut plan = plan(Path::new("x"));
        assert_eq!((tapped_max(&plan), options(&plan, 2).tapped_per_worker_max), (64, 32));
        assert!(describe(&plan, 65).contains("the first 64 of 65"));
        assert!(describe(&plan, 64).contains("all 64"));
        plan.headers = true;
        assert!(tapped_max(&plan) > 800 && !options(&plan, 1).limits.payload);
    }
}
