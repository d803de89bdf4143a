//! What was recorded, and what was not.

use std::path::Path;

use stampede_media::disk::DiskReport;

use super::{Played, assembled, equal, play};
use crate::accounts::Watched;
use crate::client::Client;
use crate::link::Class;
use crate::plan::{Culprit, Plan};

/// Header of IVF, and that of each of its frames, in bytes.
const IVF_HEADER: usize = 32;
const IVF_FRAME_HEADER: usize = 12;

/// Looks at the recordings of a run.
pub(super) fn look(played: &Played, wrongs: &mut Vec<String>) {
    let Some(report) = &played.recordings else { return };
    books(played, report, wrongs);
    files(played, report, wrongs);
    let planned = &played.world.plan.faults;
    if planned.iter().any(|planned| planned.fault.culprit() == Culprit::Disk) {
        watched(played, wrongs);
    } else {
        let what = || "frames dropped by a disk that nothing happened to".to_owned();
        equal(wrongs, what, report.frames_dropped + report.errors_total, 0);
    }
}

/// Each frame that was to be written is in a file, came before anything could be shown, or is dropped;
/// and what the network lost is told from what the disk did.
fn books(played: &Played, report: &DiskReport, wrongs: &mut Vec<String>) {
    let recorders = played.world.clients.iter().filter_map(Client::recorder);
    let frames: u64 = recorders.map(|recorder| recorder.frames).sum();
    let of_files = |of: fn(&stampede_media::disk::FileReport) -> u64| -> u64 {
        report.files.iter().map(of).sum()
    };
    let early = of_files(|file| file.frames_before_keyframe);
    let written = of_files(|file| file.frames);
    let what = || "frames to be recorded, and what became of them".to_owned();
    equal(wrongs, what, frames, written + early + report.frames_dropped);
    let of_each = of_files(|file| file.frames_dropped);
    if of_each > report.frames_dropped {
        wrongs.push(format!("books: files lack {of_each} frames, all {}", report.frames_dropped));
    }
    let failed = report.files.iter().filter(|file| file.failed.is_some()).count() as u64;
    if failed > report.errors_total {
        wrongs.push(format!("books: {failed} files failed, of {} errors", report.errors_total));
    }
    let ways = &played.world.ways;
    let lost: u64 = ways
        .iter()
        .flat_map(|way| [&way.up, &way.down])
        .map(|link| link.book(Class::Rtp).lost + link.book(Class::Rtp).stray)
        .sum();
    let clean = played
        .world
        .plan
        .faults
        .iter()
        .all(|planned| matches!(planned.fault.culprit(), Culprit::Disk | Culprit::Nobody));
    if clean && lost == 0 {
        let incomplete = assembled(&played.world).frames_incomplete;
        equal(
            wrongs,
            || "frames that the network broke, and it broke none".to_owned(),
            incomplete,
            0,
        );
    }
}

/// What is on the disk is what the report says.
fn files(played: &Played, report: &DiskReport, wrongs: &mut Vec<String>) {
    let disk = played.world.files.borrow();
    let mut on_disk = disk.files();
    for file in &report.files {
        let name = || file.path.display().to_string();
        let Some(bytes) = on_disk.remove(Path::new(&file.path)) else {
            equal(wrongs, || name() + ": is not there, and its frames", file.frames, 0);
            continue;
        };
        equal(wrongs, || name() + ": bytes", file.bytes, bytes.len() as u64);
        if file.path.extension().is_some_and(|extension| extension == "ivf") {
            let frames = ivf_frames(bytes);
            let Some(frames) = frames else {
                wrongs.push(format!("disk: {}: ends in the middle of a frame", name()));
                continue;
            };
            equal(wrongs, || name() + ": frames in it", file.frames, frames);
        }
    }
    for (path, bytes) in on_disk {
        wrongs.push(format!("disk: {} has {} bytes of nobody", path.display(), bytes.len()));
    }
}

/// Frames of a whole IVF file.
fn ivf_frames(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return Some(0);
    }
    let mut rest = bytes.get(IVF_HEADER..)?;
    let mut frames = 0;
    while let Some((head, behind)) = rest.split_first_chunk::<IVF_FRAME_HEADER>() {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        rest = behind.get(len..)?;
        frames += 1;
    }
    rest.is_empty().then_some(frames)
}

/// A disk changes nothing of what was watched.
fn watched(played: &Played, wrongs: &mut Vec<String>) {
    let plan = Plan { records: None, ..played.world.plan.clone() };
    let other = play(plan);
    let differs = |(one, other): &(&Watched, &Watched)| {
        (&one.tally, one.model) != (&other.tally, other.model)
    };
    let all = played.watched.iter().zip(&other.watched);
    if let Some((one, other)) = all.clone().find(differs) {
        wrongs.push(format!("disk: {one:?} was watched, and without recordings {other:?}"));
    }
    let trace = |played: &Played| played.world.trace.clone();
    if trace(played) != trace(&other) {
        wrongs.push("disk: without recordings other things happened".to_owned());
    }
}
