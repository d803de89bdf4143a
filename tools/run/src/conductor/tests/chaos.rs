//! A few participants under everything at once, in virtual time: a server that does what it likes with
//! each websocket, media connections that come and go, and every fault there is. Whatever happens,
//! nobody has two connections, nothing is left behind, and the books balance.

use stampede_impair::{Rng, seeded};

use super::*;

/// Runs; each from its own seed, so that one that fails can be played again.
const SEEDS: u64 = 150;
const PARTICIPANTS: u32 = 3;

/// What a server does with a websocket.
async fn serve_badly(mut rng: Rng, number: usize, mut socket: Socket) {
    // A resume is answered as if it were a join now and then, and the other way round.
    match rng.u32(..10) {
        0..=4 => socket.admit().await,
        5..=7 => socket.take_up(number as u32 + 1).await,
        8 => socket.leave(proto::leave_request::Action::Reconnect).await,
        // Says nothing.
        _ => {}
    }
    let lasts = ms(rng.u64(..20_000));
    let _ = tokio::time::timeout(lasts, async { while let Some(Ok(_)) = socket.0.next().await {} })
        .await;
    match rng.u32(..6) {
        0 => socket.leave(proto::leave_request::Action::Resume).await,
        1 => socket.leave(proto::leave_request::Action::Reconnect).await,
        2 => socket.send_away(proto::DisconnectReason::ServerShutdown).await,
        // Closed in order, or not at all.
        3 => drop(socket.0.close(None).await),
        _ => {}
    }
}

/// A media plane whose connections come, go and come again.
pub(super) async fn connect_badly(
    mut commands: mpsc::UnboundedReceiver<(PeerId, PeerCommand)>,
    context: Rc<Context>,
    workers: Rc<RefCell<Workers>>,
    mut rng: Rng,
) {
    let tell = move |peer, notice| {
        let at_unix_ns = context.clock.unix_ns(now());
        router::handle(&context, &workers, EngineEvent::Peer { peer, at_unix_ns, notice });
    };
    let later = |rng: &mut Rng, up_to_ms: u64, peer, notices: Vec<PeerNotice>| {
        let (tell, after) = (tell.clone(), ms(rng.u64(..up_to_ms)));
        spawn_local(async move {
            tokio::time::sleep(after).await;
            notices.into_iter().for_each(|notice| tell(peer, notice));
        });
    };
    while let Some((peer, command)) = commands.recv().await {
        match command {
            PeerCommand::Offer { id, .. } => {
                tell(peer, PeerNotice::Answer { offer_id: id, sdp: "v=0\r\n".to_owned() });
                if rng.u32(..10) > 0 {
                    let up = vec![PeerNotice::IceConnected, PeerNotice::Connected];
                    later(&mut rng, 3_000, peer, up);
                }
                if rng.u32(..4) == 0 {
                    let reason = "lost".to_owned();
                    let failure = Box::new(stampede_core::MediaFailure::Broke { reason });
                    later(&mut rng, 20_000, peer, vec![PeerNotice::Disconnected { failure }]);
                }
            }
            PeerCommand::LastFrame => tell(peer, PeerNotice::LastFrame { at_unix_ns: None }),
            PeerCommand::NextFrame => later(&mut rng, 500, peer, vec![PeerNotice::NextFrame]),
            PeerCommand::Close => tell(peer, PeerNotice::Closed),
            _ => {}
        }
    }
}

fn draft(seed: u64) -> Draft {
    let faults = [
        "signal_drop,every=7s,share=50%",
        "signal_stall,for=20s,every=29s,share=50%",
        "network_change,every=11s,share=50%",
        "outage,for=6s,every=17s,share=50%",
        "leave_rejoin,every=23s,share=34%",
        "simulate=migration,every=13s,share=34%",
    ];
    Draft {
        subscribers: Some(PARTICIPANTS),
        duration: Some(ms(120_000)),
        joins_per_second: 1.0,
        retry: 2,
        audience: AudienceDraft {
            stay: seed.is_multiple_of(3).then(|| ms(40_000)),
            rejoin: seed.is_multiple_of(3).then_some(0.5),
            ..AudienceDraft::default()
        },
        faults: faults.map(|text| text.parse().unwrap()).to_vec(),
        ..Draft::default()
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_nobody_has_two_connections_and_nothing_is_left_behind() {
    let (mut recovered, mut gave_up) = ([0; 3], 0);
    for seed in 0..SEEDS {
        let mut rig = Rig::new();
        rig.media = Some(seeded(seed, "media"));
        let wire = Arc::clone(&rig.wire);
        let played = rig
            .play(draft(seed), async move |number, socket| {
                serve_badly(seeded(seed, &format!("socket {number}")), number, socket).await;
            })
            .await;
        let told = format!("seed {seed}: {:?} {:?}", played.joins.counted, played.joins.errors);
        assert!(played.over, "somebody never ended: {told}");
        assert!(wire.open.most.load(Ordering::Relaxed) <= PARTICIPANTS as usize, "{told}");
        assert_eq!(wire.open.open.load(Ordering::Relaxed), 0, "a stream is open yet: {told}");
        assert_eq!(played.peers_open, 0, "a peer is open yet: {told}");
        let groups = played.recoveries;
        for ways in [groups.resume, groups.ice_restart, groups.full_reconnect, groups.moved] {
            let RecoveryCounters { tries, recovered, failed, unfinished } = ways;
            assert_eq!(tries, recovered + failed + unfinished, "{ways:?} {told}");
        }
        let counted = &played.joins.counted;
        let placed = counted.joined + counted.failed + counted.pending + counted.not_started;
        assert_eq!(counted.requested, placed, "{told}");
        assert!(counted.dropped <= counted.drops, "{told}");
        assert!(counted.dropped + counted.failed == 0 || !played.joins.errors.is_empty(), "{told}");
        for row in &played.faults {
            let ends = row.recovered + row.failed + row.unfinished + row.sent_away;
            // One hit may have to come back more than once.
            assert!(row.hit > 0 || ends == 0, "{row:?} {told}");
        }
        let ways = [groups.resume, groups.ice_restart, groups.full_reconnect];
        recovered.iter_mut().zip(ways).for_each(|(sum, way)| *sum += way.recovered);
        gave_up += counted.dropped;
    }
    // It was not all of one kind.
    assert!(
        recovered.iter().all(|count| *count > SEEDS / 2) && gave_up > SEEDS / 10,
        "{recovered:?} {gave_up}"
    );
}
