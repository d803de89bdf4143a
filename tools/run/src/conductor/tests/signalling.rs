//! What participants tell each other over a scripted server, in virtual time.

use proto::signal_request::Message as Asked;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;

/// How long the server takes to tell the others of an update, and to answer a ping.
const TOLD_AFTER: Duration = ms(100);
const PONG_AFTER: Duration = ms(40);

/// Everybody who has joined a scripted server: what they say of themselves goes to the others.
type Members = Rc<RefCell<Vec<UnboundedSender<proto::ParticipantInfo>>>>;

/// Serves one participant, the `number`th; who is `deaf` is told nothing of the others.
async fn relay(number: usize, mut socket: Socket, members: Members, deaf: bool) {
    let (sender, mut others) = unbounded_channel();
    members.borrow_mut().push(sender);
    let sid = format!("PA_{number}");
    let participant = proto::ParticipantInfo { sid: sid.clone(), ..Default::default() };
    socket
        .send(Response::Join(proto::JoinResponse {
            participant: Some(participant),
            subscriber_primary: true,
            ping_interval: 5,
            ping_timeout: 15,
            ..Default::default()
        }))
        .await;
    let (r#type, sdp) = ("offer".to_owned(), "v=0\r\n".to_owned());
    let offer = proto::SessionDescription { r#type, sdp, id: 1, ..Default::default() };
    socket.send(Response::Offer(offer)).await;
    loop {
        tokio::select! {
            message = socket.0.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Binary(bytes) = message else { continue };
                let asked = proto::SignalRequest::decode(bytes).unwrap().message;
                match asked {
                    Some(Asked::UpdateMetadata(update)) => {
                        assert_ne!(update.request_id, 0);
                        let info = proto::ParticipantInfo {
                            sid: sid.clone(),
                            identity: format!("stampede-test-sub-1-{number}"),
                            attributes: update.attributes,
                            ..Default::default()
                        };
                        let members = Rc::clone(&members);
                        spawn_local(async move {
                            tokio::time::sleep(TOLD_AFTER).await;
                            // Oneself too, as servers do.
                            for member in &*members.borrow() {
                                let _ = member.send(info.clone());
                            }
                        });
                    }
                    Some(Asked::PingReq(ping)) => {
                        tokio::time::sleep(PONG_AFTER).await;
                        let last_ping_timestamp = ping.timestamp;
                        let pong = proto::Pong { last_ping_timestamp, ..Default::default() };
                        socket.send(Response::PongResp(pong)).await;
                    }
                    _ => {}
                }
            }
            Some(info) = others.recv(), if !deaf => {
                let update = proto::ParticipantUpdate { participants: vec![info] };
                socket.send(Response::Update(update)).await;
            }
        }
    }
}

fn updating() -> Draft {
    Draft {
        subscribers: Some(3),
        no_media: true,
        duration: Some(ms(30_000)),
        metadata_updates_per_second: Some(1.0),
        ..Draft::default()
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_hears_of_everybody_and_pings_take_as_long_as_they_do() {
    let members = Members::default();
    let played = Rig::new()
        .play(updating(), async move |number, socket| {
            relay(number, socket, Rc::clone(&members), false).await;
        })
        .await;
    assert_eq!((played.joins.counted.joined, played.joins.counted.dropped), (3, 0));
    let SignallingSection { ping_rtt_ms, metadata, .. } = played.signalling;
    let counted = metadata.counted;
    assert!((88..=93).contains(&counted.sent), "{counted:?}");
    // But for the last of them, which had no time.
    assert!(counted.seen + 6 >= counted.sent * 2, "{counted:?}");
    assert_eq!((counted.expected, counted.missing), (counted.seen, 0), "{counted:?}");
    let latency = metadata.latency_ms.unwrap();
    assert!((99.0..101.0).contains(&latency.min) && latency.max < 150.0, "{latency:?}");
    let rtt = ping_rtt_ms.unwrap();
    assert!(rtt.count >= 15 && (39.0..41.0).contains(&rtt.p50), "{rtt:?}");
}

#[tokio::test(start_paused = true)]
async fn whom_the_server_does_not_tell_misses_every_update_that_had_time() {
    let members = Members::default();
    let played = Rig::new()
        .play(updating(), async move |number, socket| {
            relay(number, socket, Rc::clone(&members), number == 1).await;
        })
        .await;
    let counted = played.signalling.metadata.counted;
    // Two others of the deaf one, for 25 of the 30 s: the last 5 s are no time.
    assert!((46..=54).contains(&counted.missing), "{counted:?}");
    assert_eq!(counted.expected, counted.seen + counted.missing);
}
