//! Whose an address is: NATs move clients to other ports, and not every check from an address is
//! of who lives there.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Client, drive, grants, row, run_for, start, subscribe, vp8};
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use proto::signal_request::Message as Request;
use stampede_sfu::Sfu;
use str0m::media::{MediaKind, Mid};
use tokio::net::TcpSocket;

const ROOM: &str = "room";

/// A client checks every 3 s at least; this is one check and what it takes.
const CHECKED_MAX: Duration = Duration::from_secs(4);

/// A publisher, its track, and what it has sent of it.
struct Camera {
    mid: Mid,
    track: String,
    sent: u64,
    /// It sends deltas, not keyframes.
    deltas: bool,
}

impl Camera {
    async fn publish(sfu: &Sfu, identity: &str) -> (Client, Self) {
        let grants = VideoGrants { can_subscribe: Some(false), ..grants(ROOM) };
        let mut client = Client::connect(sfu, identity, grants).await;
        let mid = client.publish("camera", MediaKind::Video, &[]).await;
        drive(&mut [&mut client], |c| {
            c[0].publisher.connected && c[0].published("camera").is_some()
        })
        .await;
        let track = client.published("camera").unwrap();
        (client, Self { mid, track, sent: 0, deltas: false })
    }

    /// The first client, the publisher, sends a frame every 5 ms while the clients run, until the
    /// condition holds; how long that took.
    async fn stream(
        &mut self,
        clients: &mut [&mut Client],
        mut until: impl FnMut(&Self, &[&mut Client]) -> bool,
    ) -> Duration {
        let began = Instant::now();
        while !until(self, clients) {
            assert!(began.elapsed() < Duration::from_secs(20), "the condition was not met");
            let (seq, time) = (1_000 + self.sent, 450 * self.sent as u32);
            let payload = vp8(self.sent as u16, !self.deltas, 0, 300);
            clients[0].write(self.mid, None, seq, time, payload);
            self.sent += 1;
            run_for(clients, Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    async fn stream_for(&mut self, clients: &mut [&mut Client], duration: Duration) {
        let end = Instant::now() + duration;
        self.stream(clients, |_, _| Instant::now() >= end).await;
    }

    /// Packets a viewer got.
    fn seen(&self, viewer: &Client) -> usize {
        viewer.packets.get(&self.track).map_or(0, Vec::len)
    }

    /// Loses the next packet to this viewer and waits until it asked for that and got it again.
    async fn repairs(&mut self, sfu: &Sfu, viewer_at: usize, clients: &mut [&mut Client]) {
        let media = |viewer: &Client| {
            let known = viewer.ssrc_track.iter();
            let mut known = known.filter(|(_, of)| **of == (self.track.clone(), false));
            *known.next().unwrap().0
        };
        let (ssrc, mut left) = (media(clients[viewer_at]), 1);
        clients[viewer_at].subscriber.lose = Some(Box::new(move |of, _| {
            let loses = of == ssrc && left > 0;
            left -= u32::from(loses);
            loses
        }));
        let identity = "viewer";
        let resent = |camera: &Self| row(sfu, ROOM, identity, &camera.track).counts.retransmitted;
        let before = resent(self);
        self.stream(clients, |camera, _| resent(camera) > before).await;
    }
}

/// Wire sequence numbers without a hole, whatever repairs there were.
fn assert_whole(viewer: &Client, track: &str) {
    let mut seqs: Vec<u64> = viewer.packets[track].iter().map(|packet| packet.seq).collect();
    seqs.sort_unstable();
    for pair in seqs.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "a hole or a repetition");
    }
}

#[tokio::test]
async fn a_check_from_anothers_address_takes_nothing_from_who_lives_there() {
    let sfu = start("", 1);
    let (mut publisher, mut camera) = Camera::publish(&sfu, "publisher").await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    let mut above = subscribe(&sfu, ROOM, "above", &camera.track).await;
    let mut below = subscribe(&sfu, ROOM, "below", &camera.track).await;
    above.subscriber.checks_from = Some(publisher.publisher.socket.try_clone().unwrap());
    below.subscriber.checks_from = Some(viewer.subscriber.socket.try_clone().unwrap());
    {
        let clients = &mut [&mut publisher, &mut viewer, &mut above, &mut below];
        camera
            .stream(clients, |_, c| c[2].subscriber.diverted >= 2 && c[3].subscriber.diverted >= 2)
            .await;
        camera.repairs(&sfu, 1, clients).await;
    }
    // They leave, and take no address with them.
    for client in [&mut above, &mut below] {
        client.send(Request::Leave(proto::LeaveRequest::default())).await;
        drive(&mut [client], |c| c[0].closed).await;
    }
    let clients = &mut [&mut publisher, &mut viewer];
    camera.stream_for(clients, Duration::from_millis(200)).await;
    camera.repairs(&sfu, 1, clients).await;
    drive(clients, |c| camera.seen(c[1]) as u64 == camera.sent).await;
    assert_whole(&viewer, &camera.track);
    assert_eq!(sfu.ledger().unwrap().totals.upstream.publisher_packets_lost, 0);
}

#[tokio::test]
async fn a_viewer_whose_port_changes_is_followed_at_its_next_check() {
    let sfu = start("", 1);
    let (mut publisher, mut camera) = Camera::publish(&sfu, "publisher").await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    let clients = &mut [&mut publisher, &mut viewer];
    // More often than there is room for old addresses, and back to none of them.
    for _ in 0..3 {
        camera.stream(clients, |camera, c| camera.seen(c[1]) > 10).await;
        clients[1].subscriber.change_port();
        let before = camera.seen(clients[1]);
        let took = camera.stream(clients, |camera, c| camera.seen(c[1]) > before).await;
        assert!(took < CHECKED_MAX, "{took:?}");
        camera.repairs(&sfu, 1, clients).await;
    }
}

#[tokio::test]
async fn a_publisher_whose_port_changes_is_heard_again_at_its_next_check() {
    let sfu = start("", 1);
    let (mut publisher, mut camera) = Camera::publish(&sfu, "publisher").await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    let clients = &mut [&mut publisher, &mut viewer];
    camera.stream(clients, |camera, c| camera.seen(c[1]) > 10).await;
    clients[0].publisher.change_port();
    let before = camera.seen(clients[1]);
    let took = camera.stream(clients, |camera, c| camera.seen(c[1]) > before).await;
    assert!(took < CHECKED_MAX, "{took:?}");
    // What was lost meanwhile is resent, keyframes too, and what a late viewer needs after that is
    // asked for, both at the new port.
    camera.deltas = true;
    camera.stream_for(clients, Duration::from_secs(1)).await;
    assert!(camera.seen(clients[1]) > before + 10, "nothing resent, or nothing went on");
    let asked = clients[0].keyframe_requests.len();
    let late = &mut subscribe(&sfu, ROOM, "late", &camera.track).await;
    let clients = &mut [&mut publisher, &mut viewer, late];
    camera.stream(clients, |_, c| c[0].keyframe_requests.len() > asked).await;
}

#[tokio::test]
async fn two_clients_that_got_each_others_ports_are_followed() {
    let sfu = start("", 1);
    let (mut publisher, mut camera) = Camera::publish(&sfu, "publisher").await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    let (mut other, mut other_camera) = Camera::publish(&sfu, "other").await;
    let mut watching = subscribe(&sfu, ROOM, "watching", &other_camera.track).await;
    {
        let clients = &mut [&mut publisher, &mut viewer];
        camera.stream(clients, |camera, c| camera.seen(c[1]) > 10).await;
    }
    // What comes for one is the other's: neither can open it.
    std::mem::swap(&mut viewer.subscriber.socket, &mut other.publisher.socket);
    let before = camera.seen(&viewer);
    let all = &mut [&mut publisher, &mut viewer, &mut other, &mut watching];
    let took = camera.stream(all, |camera, c| camera.seen(c[1]) > before + 10).await;
    // The first check finds somebody there, the second finds that it left.
    assert!(took < 2 * CHECKED_MAX, "{took:?}");
    camera.repairs(&sfu, 1, all).await;
    let all = &mut [&mut other, &mut watching];
    other_camera.stream(all, |camera, c| camera.seen(c[1]) > 10).await;
}

#[tokio::test]
async fn a_tcp_connection_from_somebodys_udp_address_takes_nothing() {
    let sfu = start("", 1);
    let (mut publisher, mut camera) = Camera::publish(&sfu, "publisher").await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    let clients = &mut [&mut publisher, &mut viewer];
    camera.stream(clients, |camera, c| camera.seen(c[1]) > 10).await;
    let tcp = TcpSocket::new_v4().unwrap();
    tcp.bind(clients[1].subscriber.socket.local_addr().unwrap()).unwrap();
    let _connection = tcp.connect(clients[1].subscriber.remote.unwrap()).await.unwrap();
    // Till it is accepted, and after.
    camera.stream_for(clients, Duration::from_millis(200)).await;
    let before = camera.seen(clients[1]);
    camera.stream(clients, |camera, c| camera.seen(c[1]) > before).await;
    camera.repairs(&sfu, 1, clients).await;
    drive(clients, |c| camera.seen(c[1]) as u64 == camera.sent).await;
    assert_whole(&viewer, &camera.track);
    assert_eq!(sfu.ledger().unwrap().workers[0].counted.send_queue_full, 0);
}
