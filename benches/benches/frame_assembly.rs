//! What does it cost to put a frame together again for a recording, and what to read all that its
//! payloads say: ns a frame, by codec and size.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stampede_media::{
    AssemblerPacket, Codec, FrameAssembler, MediaClip, av1, builtin, h264, h265, vp8, vp9,
};

/// Frames of a clip over and over, as packets in order.
struct Playing<'a> {
    clip: &'a MediaClip,
    frame: usize,
    lap: u64,
    sequence: u64,
}

impl<'a> Playing<'a> {
    fn new(clip: &'a MediaClip) -> Self {
        Self { clip, frame: 0, lap: 0, sequence: 1 << 16 }
    }

    fn next(&mut self, mut take: impl FnMut(AssemblerPacket<'_>)) {
        let frame = &self.clip.frames[self.frame];
        let ticks = self.lap * self.clip.duration_ticks + frame.timestamp_ticks;
        for (index, payload) in frame.packets.iter().enumerate() {
            take(AssemblerPacket {
                sequence: self.sequence,
                timestamp: ticks as u32,
                marker: self.clip.codec.is_video() && index + 1 == frame.packets.len(),
                payload: black_box(payload),
            });
            self.sequence += 1;
        }
        self.frame += 1;
        if self.frame == self.clip.frames.len() {
            (self.frame, self.lap) = (0, self.lap + 1);
        }
    }
}

/// Reads a payload; true if that was possible.
fn is_readable(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Vp8 => black_box(vp8::Descriptor::parse(payload)).is_ok(),
        Codec::Vp9 => black_box(vp9::Descriptor::parse(payload)).is_ok(),
        Codec::H264 => black_box(h264::Summary::of(payload)).is_ok(),
        Codec::H265 => black_box(h265::Summary::of(payload)).is_ok(),
        Codec::Av1 => black_box(av1::Payload::parse(payload)).is_ok(),
        Codec::Opus => true,
    }
}

fn frame_assembly(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame_assembly");
    group.sample_size(10).warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(1)).throughput(Throughput::Elements(1));
    let mut clips = Vec::new();
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
        clips.extend(builtin::video(codec).unwrap());
    }
    for clip in &clips {
        let name = format!("{}/{}p", clip.codec, clip.height);
        let mut playing = Playing::new(clip);
        group.bench_function(BenchmarkId::new("read", &name), |bench| {
            bench.iter(|| {
                playing.next(|packet| assert!(is_readable(clip.codec, packet.payload)));
            });
        });
        // Other codecs can't be recorded yet.
        let Ok(mut assembler) = FrameAssembler::new(clip.codec) else { continue };
        let mut playing = Playing::new(clip);
        group.bench_function(BenchmarkId::new("assemble", &name), |bench| {
            bench.iter_custom(|frames| {
                let (begun, mut whole) = (Instant::now(), 0);
                for _ in 0..frames {
                    playing.next(|packet| assembler.push(packet));
                    whole += std::iter::from_fn(|| assembler.poll()).map(black_box).count() as u64;
                }
                let taken = begun.elapsed();
                assert_eq!(whole, frames);
                taken
            });
        });
    }
    group.finish();
}

criterion_group!(benches, frame_assembly);
criterion_main!(benches);
