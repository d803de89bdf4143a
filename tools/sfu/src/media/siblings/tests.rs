//! What another worker has no room for.

use std::time::Instant;

use stampede_core::MediaKind;
use stampede_udp::{BackendChoice, BackendLimits};

use super::*;
use crate::media::connection::codecs;
use crate::media::handle::MEDIA_BATCHES_MAX;
use crate::media::message::{PeerLabel, PublishedTrack, Role, TrackKey};
use crate::media::packet::{Extensions, MediaPacket};
use crate::media::rewrite::{Numbers, Vp8Numbers};
use crate::media::source::Source;

fn packet(seq: u64) -> MediaPacket {
    let numbers = Numbers {
        source: 1,
        seq,
        timestamp: 0,
        vp8: Vp8Numbers::default(),
        captured_at_unix_us: None,
        arrived_at: Instant::now(),
    };
    MediaPacket {
        layer: 0,
        numbers,
        marker: false,
        starts_keyframe: false,
        extensions: Extensions::default(),
        payload: [0; 4].as_slice().into(),
        primary_at: None,
        frame: None,
    }
}

/// A track that another worker wants.
fn track() -> Track {
    let mut track = Track::new(TrackKey(1), MediaKind::Video, 1, 0);
    let label = PeerLabel { room: "room".into(), identity: "publisher".into() };
    let published = PublishedTrack {
        track: TrackKey(1),
        sid: "TR_1".into(),
        mid: "0".into(),
        kind: MediaKind::Video,
        mime_type: String::new(),
        dtx: false,
        red: false,
        microphone: false,
    };
    track.set_source(|| Source::new(0, &label, &published));
    track.source_mut().unwrap().set_interest(0, true);
    track
}

#[test]
fn media_that_finds_no_room_at_another_worker_is_counted_by_its_packets() {
    let backend = stampede_udp::open(BackendChoice::Mmsg, BackendLimits::default());
    let waker = backend.unwrap().0.waker();
    let (other, inbox) = WorkerHandle::new(waker, ([127, 0, 0, 1], 1).into());
    let mut siblings = Siblings::new(Arc::new(OnceLock::from(vec![other.clone()])));
    let params = codecs(Role::Publisher).params()[0];
    let batch = || MediaBatch { track: TrackKey(1), params, packets: Vec::new() };
    assert!((0..MEDIA_BATCHES_MAX).all(|_| other.try_media(batch())));
    let mut track = track();
    track.extend(params, (0..3).map(packet));
    siblings.share(&mut track);
    assert_eq!(siblings.packets_dropped(), 3);
    // What is taken out makes room, and what was dropped does not come twice.
    assert!(inbox.media().is_some());
    track.extend(params, (3..5).map(packet));
    siblings.share(&mut track);
    assert_eq!(siblings.packets_dropped(), 3);
    let newest = std::iter::from_fn(|| inbox.media()).last().unwrap();
    assert_eq!(newest.packets.iter().map(|it| it.numbers.seq).collect::<Vec<_>>(), [3, 4]);
}
