//! The accounting proved right: codec × loss × rate × repair, in virtual time, against a ledger of
//! everything that was dropped and delivered, and a reference that replays it.
//!
//! A failure prints its cell with the seed. `STAMPEDE_MATRIX_SEEDS=N` runs every cell with N seeds
//! instead of one.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests may panic")]

#[path = "../common/mod.rs"]
mod common;
mod latency;
mod reference;
mod rig;

use rig::{Cell, Media, Outcome, Repair};
use stampede_core::{MediaCounters, PacketCounters};

fn seeds() -> u64 {
    let seeds = std::env::var("STAMPEDE_MATRIX_SEEDS").ok();
    seeds.map_or(1, |seeds| seeds.parse().unwrap())
}

/// A cell without anything beside loss; the rest varies from cell to cell.
fn cell(media: Media, impair: &str, repair: Repair, number: u64, seed: u64) -> Cell {
    // In turn, so that neighbours in the matrix differ, and seeds do.
    let turn = number + seed * 7;
    // Frames without numbers can be counted once their rate is known, AV1's once its structure is.
    let whole = match media {
        Media::H264 | Media::H265 | Media::Av1 => 13,
        Media::Av1Described => 1,
        _ => turn % 2,
    };
    Cell {
        media,
        impair: impair.to_owned(),
        repair,
        first_sequence: if turn.is_multiple_of(3) { 65_480 } else { 1 + turn * 977 % 40_000 },
        padding: turn % 4 == 1,
        mute: turn % 5 == 2,
        measured: false,
        whole_frames: whole as usize,
        seconds: if impair.starts_with("loss=0.1%") { 30 } else { 10 },
        seed: number * 1_000 + seed,
    }
}

/// How packets of this kind come again where the matrix says "with RTX": audio has none.
fn with_rtx(media: Media) -> Repair {
    if media == Media::Opus { Repair::Resent } else { Repair::Rtx }
}

/// Without what the reference does not know, and with `pending` where it counts them.
fn comparable(packets: &PacketCounters) -> PacketCounters {
    let unrecovered = packets.unrecovered + packets.pending;
    PacketCounters { bytes: 0, pending: 0, unrecovered, ..*packets }
}

fn run(cell: &Cell) -> Outcome {
    let outcome = cell.run(|packets, story| {
        assert_eq!(comparable(packets), story.packets(), "on the way: {cell:?}");
    });
    let report = &outcome.report;
    assert_eq!(report.packets.pending, 0, "{cell:?}");
    assert_eq!(comparable(&report.packets), outcome.story.packets(), "{cell:?}");
    if cell.media != Media::Opus {
        let (frames, freezes) = outcome.story.frames();
        assert_eq!(report.frames, frames, "{cell:?}");
        assert_eq!(report.freezes, freezes, "{cell:?}");
    }
    // The ledger itself, where nothing but loss happened.
    let plain = cell.impair.is_empty() || !cell.impair.contains(['j', 'd']);
    let plain = plain && !cell.impair.contains("reorder") && cell.repair != Repair::Resent;
    if plain && !cell.padding && cell.whole_frames > 0 && !cell.mute {
        assert_eq!(report.packets.missing, outcome.dropped, "{cell:?}");
    }
    outcome
}

/// Sums over cells, to see that there was something to count.
fn run_all(cells: &[Cell]) -> MediaCounters {
    let mut sum = MediaCounters::default();
    for cell in cells {
        let report = run(cell).report;
        sum.packets.merge(&report.packets);
        sum.frames.merge(&report.frames);
        sum.freezes.merge(&report.freezes);
    }
    sum
}

/// Loss model × rate × repair of one kind of media.
fn matrix(media: Media) -> Vec<Cell> {
    let mut losses = vec![String::new()];
    for rate in ["0.1%", "1%", "5%", "20%"] {
        losses.extend([format!("loss={rate}"), format!("loss={rate},burst=4")]);
    }
    let mut cells = Vec::new();
    for seed in 0..seeds() {
        for repair in [Repair::Never, with_rtx(media)] {
            for loss in &losses {
                let number = (cells.len() as u64) % (losses.len() as u64 * 2);
                cells.push(cell(media, loss, repair, number, seed));
            }
        }
    }
    cells
}

/// The same with packets that change places, come twice, and come so late that some repairs miss
/// their deadline; half of them with a measured window that begins later.
fn weather(media: Media) -> Vec<Cell> {
    let impairs = [
        "reorder=3%",
        "duplicate=3%",
        "loss=2%,reorder=2%,duplicate=2%",
        "loss=5%,burst=3,jitter=15ms,delay=30ms,reorder=1%,duplicate=1%",
        "loss=5%,delay=470ms,jitter=45ms",
        "loss=8%,burst=6,delay=380ms,jitter=150ms,reorder=2%",
    ];
    let mut cells = Vec::new();
    for seed in 0..seeds() {
        for repair in [Repair::Never, with_rtx(media), Repair::Resent] {
            for impair in impairs {
                let number = 50 + (cells.len() % (impairs.len() * 3)) as u64;
                let cell = cell(media, impair, repair, number, seed);
                // What is lost before anything was counted is not told from what never was.
                let whole_frames = cell.whole_frames.max(1);
                // Signalling that overtakes the media by half a second leaves frames without numbers
                // uncountable.
                let mute = cell.mute && media.numbers_frames();
                // Padding at the beginning of the window hides whether a lost frame is of it.
                let measured = number.is_multiple_of(2) && !cell.padding;
                cells.push(Cell { measured, mute, whole_frames, ..cell });
            }
        }
    }
    cells
}

fn prove(media: Media) {
    let cells = [matrix(media), weather(media)].concat();
    let sum = run_all(&cells);
    let packets = sum.packets;
    assert!(packets.late > 20 && packets.duplicate > 20 && packets.reordered > 20, "{packets:?}");
    assert!(packets.missing > 100 && packets.repaired > 40, "{packets:?}");
    assert!(packets.unrecovered > 40 && packets.padding_only > 20, "{packets:?}");
    if media != Media::Opus {
        assert!(sum.frames.dropped > Some(100) && sum.freezes.count > 5, "{sum:?}");
    }
}

#[test]
fn vp8_equals_the_ledger_and_the_replay() {
    prove(Media::Vp8);
}

#[test]
fn vp9_equals_the_ledger_and_the_replay() {
    prove(Media::Vp9);
}

#[test]
fn h264_equals_the_ledger_and_the_replay() {
    prove(Media::H264);
}

#[test]
fn h265_equals_the_ledger_and_the_replay() {
    prove(Media::H265);
}

#[test]
fn av1_equals_the_ledger_and_the_replay() {
    prove(Media::Av1);
}

#[test]
fn av1_with_descriptors_equals_the_ledger_and_the_replay() {
    prove(Media::Av1Described);
}

#[test]
fn opus_equals_the_ledger() {
    prove(Media::Opus);
}
