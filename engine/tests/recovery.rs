//! A publisher and a subscriber of one engine over loopback, whose networks change.
//!
//! One test, because it counts the descriptors of its process.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_engine::core::{AudioOptions, MediaKind, PublishLayer, PublishTrack, Slots};
use stampede_engine::{
    BackendChoice, Engine, EngineEvent, EngineOptions, PeerCommand, PeerId, PeerNotice, PeerRole,
    PeerSpec,
};
use stampede_media::builtin;

const PATIENCE: Duration = Duration::from_secs(20);
const CHANGES: usize = 1_000;

struct Rig {
    engine: Engine,
    offers: u32,
    /// What was told and nobody has asked for.
    told: Vec<(PeerId, u64, PeerNotice)>,
}

impl Rig {
    fn add(&self, label: &str, role: PeerRole) -> PeerId {
        let local_ip = Some(Ipv4Addr::LOCALHOST.into());
        let spec = PeerSpec { label: label.to_owned(), role, local_ip, cohort: 0, beside: None };
        self.engine.add_peer(spec).unwrap()
    }

    fn command(&self, peer: PeerId, command: PeerCommand) {
        self.engine.command(peer, command).unwrap();
    }

    /// The first notice of this peer that `pick` takes, told already or to come; and its stamp.
    fn wait<T>(&mut self, peer: PeerId, pick: impl Fn(&PeerNotice) -> Option<T>) -> (T, u64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let found =
                self.told.iter().position(|(of, _, notice)| *of == peer && pick(notice).is_some());
            if let Some(index) = found {
                let (_, at_unix_ns, notice) = self.told.remove(index);
                return (pick(&notice).unwrap(), at_unix_ns);
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.engine.events().recv_timeout(left) {
                Ok(EngineEvent::Peer { peer, at_unix_ns, notice }) => {
                    self.told.push((peer, at_unix_ns, notice));
                }
                Ok(_) => {}
                Err(error) => panic!("{error}: {:?}", self.told),
            }
        }
    }

    fn wait_for(&mut self, peer: PeerId, wanted: fn(&PeerNotice) -> bool) -> u64 {
        self.wait(peer, |notice| wanted(notice).then_some(())).1
    }

    /// Lets the subscriber answer the publisher's offer.
    fn negotiate(&mut self, publisher: PeerId, subscriber: PeerId) {
        let (sdp, _) = self.wait(publisher, |notice| match notice {
            PeerNotice::Offer { sdp, .. } => Some(sdp.clone()),
            _ => None,
        });
        self.offers += 1;
        let id = self.offers;
        let mid_to_track_id = Vec::new();
        self.command(subscriber, PeerCommand::Offer { id, sdp, mid_to_track_id });
        let (sdp, _) = self.wait(subscriber, |notice| match notice {
            PeerNotice::Answer { offer_id, sdp } if *offer_id == id => Some(sdp.clone()),
            _ => None,
        });
        self.command(publisher, PeerCommand::Answer { sdp, mid_to_track_id: Vec::new() });
    }

    fn last_frame(&mut self, peer: PeerId) -> Option<u64> {
        self.command(peer, PeerCommand::LastFrame);
        let (at_unix_ns, _) = self.wait(peer, |notice| match notice {
            PeerNotice::LastFrame { at_unix_ns } => Some(*at_unix_ns),
            _ => None,
        });
        at_unix_ns
    }

    /// When the next frame came or left.
    fn next_frame(&mut self, peer: PeerId) -> u64 {
        self.command(peer, PeerCommand::NextFrame);
        self.wait_for(peer, |notice| matches!(notice, PeerNotice::NextFrame))
    }
}

fn is_ice(notice: &PeerNotice) -> bool {
    matches!(notice, PeerNotice::IceConnected)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn networks_change_and_media_goes_on_and_nothing_stays_open() {
    let backend = BackendChoice::Mmsg;
    let options = EngineOptions { workers: 1, backend, ..EngineOptions::default() };
    let engine = Engine::start(options).unwrap();
    let mut rig = Rig { engine, offers: 0, told: Vec::new() };
    let before = descriptors();
    let [clip, ..] = builtin::video_layers().unwrap();
    let track = PublishTrack {
        cid: "cam".to_owned(),
        kind: MediaKind::Video,
        layers: vec![PublishLayer { rid: None, clip: Arc::new(clip) }],
        start_offset: Duration::ZERO,
        speaking: None,
        audio: AudioOptions::default(),
    };
    let publisher = rig.add("pub-1", PeerRole::publisher(vec![track]));
    let subscriber = rig.add("sub-1", PeerRole::subscriber(false));
    let idle = rig.add("sub-2", PeerRole::subscriber(false));
    assert_eq!(rig.last_frame(subscriber), None);
    assert_eq!(rig.last_frame(publisher), None);
    rig.command(
        publisher,
        PeerCommand::CreateOffer { id: 1, added: Slots::default(), publish: true },
    );
    rig.negotiate(publisher, subscriber);
    rig.wait_for(subscriber, |notice| matches!(notice, PeerNotice::FirstKeyframe));
    for peer in [publisher, subscriber] {
        rig.wait_for(peer, is_ice);
    }
    let open = descriptors();
    assert_eq!(open, before + 3);

    for _ in 0..CHANGES {
        for peer in [publisher, subscriber, idle] {
            rig.command(peer, PeerCommand::ChangeNetwork);
        }
    }
    let last = rig.last_frame(subscriber).unwrap();
    rig.last_frame(idle);
    assert_eq!(descriptors(), open);
    rig.told.retain(|(_, _, notice)| !is_ice(notice));
    rig.command(publisher, PeerCommand::RestartIce { id: 2 });
    rig.negotiate(publisher, subscriber);
    for peer in [publisher, subscriber] {
        rig.wait_for(peer, is_ice);
    }
    let next = rig.next_frame(subscriber);
    assert!(next > last && rig.next_frame(publisher) > last);

    let lasts = Duration::from_millis(500);
    rig.command(subscriber, PeerCommand::CutOff { lasts });
    let cut = rig.last_frame(subscriber).unwrap();
    let back = rig.next_frame(subscriber);
    // None is counted that came meanwhile, by the worker's clock; the stamps are the kernel's.
    assert!(back - cut > lasts.as_nanos() as u64 * 9 / 10, "{cut} {back}");

    assert!(!rig.told.iter().any(|(_, _, told)| matches!(told, PeerNotice::Disconnected { .. })));
    for peer in [publisher, subscriber, idle] {
        rig.command(peer, PeerCommand::Close);
        rig.wait_for(peer, |notice| matches!(notice, PeerNotice::Closed));
    }
    assert_eq!(descriptors(), before);
    let report = rig.engine.stop();
    let row = report.workers[0].peers.iter().find(|row| row.label == "sub-1").unwrap();
    assert_eq!(row.report.streams.len(), 1, "the same stream all the time");
    let injected = row.report.counters.impairment;
    let counted = report.workers[0].counted.impairment;
    assert!(counted.dropped > 0 && counted.unsent > 0, "{counted:?} {injected:?}");
}
