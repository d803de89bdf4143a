//! The rooms in virtual time: a hub whose one worker is a queue of commands.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod backups;
mod maxima;

use std::net::{Ipv4Addr, SocketAddr};

use livekit_protocol::leave_request::Action;
use prost::Message as _;
use proto::DisconnectReason as Reason;
use proto::signal_request::Message as Request;
use stampede_udp::{BackendChoice, BackendLimits};
use tokio::sync::mpsc;

use super::outbox::OutboxItem;
use super::*;
use crate::bench_support::rooms::{claims, outbox};
use crate::media::failure::PeerFailure;
use crate::media::handle::Inbox;
use crate::media::message::Event;

const ROOM: &str = "room";
const DEPARTURE: Duration = Duration::from_secs(5);
const JOIN_TIMEOUT: Duration = session::JOIN_TIMEOUT;
const MS: Duration = Duration::from_millis(1);

struct Rig {
    hub: Hub,
    inbox: Inbox,
    start: Instant,
}

/// A client's websocket.
struct Socket {
    key: SignalKey,
    queue: mpsc::Receiver<OutboxItem>,
}

impl Rig {
    fn new() -> Self {
        // Only for its waker, which nothing else can make.
        let backend = stampede_udp::open(BackendChoice::Auto, BackendLimits::default());
        let waker = backend.unwrap().0.waker();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let (worker, inbox) = WorkerHandle::new(waker, address);
        let start = Instant::now();
        let hub = Hub::new(vec![worker], Refusals::new(0.0), DEPARTURE, 1, start);
        Self { hub, inbox, start }
    }

    /// So long after the start.
    fn at(&mut self, since: Duration) -> &mut Hub {
        self.hub.begin_turn(self.start + since);
        self.hub.tick();
        &mut self.hub
    }

    fn join(&mut self, identity: &str) -> (Socket, PeerKey) {
        let (outbox, queue) = outbox();
        let request = JoinRequest {
            claims: claims(identity),
            connections: Connections::Dual { protocol: 17 },
            auto_subscribe: true,
            auto_subscribe_data_track: true,
            client: Client::default(),
            adaptive_stream: false,
            allow_pause: false,
            sdk: String::new(),
        };
        let key = self.hub.join(request, outbox).unwrap();
        let added = self.commands().into_iter().find_map(|command| match command {
            Command::AddPeer { peer, .. } => Some(peer),
            _ => None,
        });
        (Socket { key, queue }, added.unwrap())
    }

    fn resume(&mut self, identity: &str) -> Result<Socket, UnknownParticipant> {
        let (outbox, queue) = outbox();
        let key = self.hub.resume(&claims(identity), outbox)?;
        Ok(Socket { key, queue })
    }

    fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.inbox.pressing().or_else(|| self.inbox.command().ok())).collect()
    }

    fn participants(&self) -> usize {
        self.hub.rooms.get(ROOM).map_or(0, |room| room.participants.len())
    }
}

impl Socket {
    /// What it was told, and whether it is to be closed.
    fn told(&mut self) -> (Vec<Message>, bool) {
        let mut messages = Vec::new();
        while let Ok(item) = self.queue.try_recv() {
            match item {
                OutboxItem::Frame(frame) => {
                    messages.extend(proto::SignalResponse::decode(frame).unwrap().message);
                }
                OutboxItem::FreshToken => {}
                OutboxItem::Close(_) => return (messages, true),
            }
        }
        (messages, false)
    }

    /// Its goodbye: the last message, after which it is to be closed.
    fn goodbye(&mut self) -> Option<(Action, Reason)> {
        let (messages, closed) = self.told();
        assert!(closed, "{messages:?}");
        match messages.last() {
            Some(Message::Leave(leave)) => Some((leave.action(), leave.reason())),
            _ => None,
        }
    }
}

#[test]
fn who_never_connects_is_told_so_after_a_minute() {
    let mut rig = Rig::new();
    let (mut socket, _) = rig.join("viewer");
    let (mut connected, peer) = rig.join("other");
    rig.hub.event(Event::Connected { peer });
    rig.at(JOIN_TIMEOUT - MS);
    assert_eq!(rig.participants(), 2);
    rig.at(JOIN_TIMEOUT);
    assert_eq!(socket.goodbye(), Some((Action::Disconnect, Reason::JoinFailure)));
    assert!(!connected.told().1);
    assert_eq!((rig.participants(), rig.hub.counted.joins_timed_out), (1, 1));
    assert!(rig.commands().iter().any(|command| matches!(command, Command::RemovePeer(_))));
}

#[test]
fn a_lost_websocket_ends_who_was_never_connected() {
    let mut rig = Rig::new();
    let (socket, peer) = rig.join("viewer");
    rig.hub.signal_lost(socket.key);
    assert_eq!(rig.participants(), 0);
    assert!(rig.commands().iter().any(|it| matches!(it, Command::RemovePeer(key) if *key == peer)));
    assert_eq!(rig.resume("viewer").err(), Some(UnknownParticipant));
}

#[test]
fn who_lingers_is_told_nothing_until_it_resumes_and_then_everything() {
    let mut rig = Rig::new();
    let (mut socket, peer) = rig.join("viewer");
    rig.hub.event(Event::Connected { peer });
    rig.hub.signal_lost(socket.key);
    assert!(matches!(rig.commands()[..], [Command::Suspend(key)] if key == peer));
    socket.told();
    let (_gone, other) = rig.join("gone");
    rig.hub.event(Event::Connected { peer: other });
    rig.at(JOIN_TIMEOUT * 9);
    assert_eq!(rig.participants(), 2, "its media lives");
    rig.hub.remove_participant(ROOM, "gone");
    rig.commands();
    let mut again = rig.resume("viewer").unwrap();
    let (messages, closed) = again.told();
    assert!(!closed && socket.told().0.is_empty());
    let [
        Message::Reconnect(_),
        Message::Update(departed),
        Message::Update(present),
        Message::RoomUpdate(_),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    let names = |update: &proto::ParticipantUpdate| {
        update.participants.iter().map(|info| info.identity.clone()).collect::<Vec<_>>()
    };
    assert_eq!((names(departed), names(present)), (vec!["gone".into()], vec!["viewer".into()]));
    let commands = rig.commands();
    let [Command::Suspend(suspended), Command::RestartIce(restarted)] = commands[..] else {
        panic!("{}", commands.len())
    };
    assert_eq!((suspended, restarted), (peer, peer));
    // What the former websocket says or suffers is nobody's.
    assert!(!rig.hub.request(socket.key, proto::signal_request::Message::Ping(1)));
    rig.hub.signal_lost(socket.key);
    assert!(rig.hub.request(again.key, proto::signal_request::Message::Ping(1)));
    assert!(matches!(again.told(), (pong, false) if pong == [Message::Pong(1)]));
}

#[test]
fn whose_media_is_lost_is_told_to_resume_and_has_its_departure_time() {
    let mut rig = Rig::new();
    let (mut socket, peer) = rig.join("viewer");
    rig.hub.event(Event::Connected { peer });
    rig.hub.event(Event::Lost { peer, failure: PeerFailure::Silent });
    assert_eq!(socket.goodbye(), Some((Action::Resume, Reason::ConnectionTimeout)));
    rig.at(DEPARTURE - MS);
    let resumed = rig.resume("viewer").unwrap();
    rig.at(DEPARTURE * 9);
    assert_eq!(rig.participants(), 1, "it resumed in time");
    // Its ICE was not restarted in the end, and now its websocket is lost too.
    rig.hub.signal_lost(resumed.key);
    rig.at(DEPARTURE * 10 - MS);
    assert_eq!(rig.participants(), 1);
    rig.at(DEPARTURE * 10);
    assert_eq!((rig.participants(), rig.hub.counted.departures), (0, 1));
    assert_eq!(rig.resume("viewer").err(), Some(UnknownParticipant));
}

#[test]
fn a_new_websocket_closes_the_one_before() {
    let mut rig = Rig::new();
    let (mut first, peer) = rig.join("viewer");
    rig.hub.event(Event::Connected { peer });
    let mut second = rig.resume("viewer").unwrap();
    assert!(first.told().1);
    let _third = rig.resume("viewer").unwrap();
    assert!(second.told().1);
    assert_eq!((rig.participants(), rig.hub.signals.len()), (1, 1));
}

#[test]
fn nothing_is_left_of_who_leaves_while_it_lingers() {
    let mut rig = Rig::new();
    let (socket, peer) = rig.join("viewer");
    rig.hub.event(Event::Connected { peer });
    rig.hub.signal_lost(socket.key);
    let (_next, _) = rig.join("viewer");
    assert_eq!((rig.participants(), rig.hub.peers.len(), rig.hub.signals.len()), (1, 1, 1));
    assert_eq!(rig.hub.load, [1]);
    rig.hub.shut_down();
    assert!(rig.hub.peers.is_empty() && rig.hub.signals.is_empty());
    let counted = rig.hub.counted.attendance;
    assert_eq!((counted.joins, counted.leaves, rig.hub.load[0]), (2, 2, 0));
}

const SINGLE_OFFER: &str = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=setup:actpass\r\n\
    a=sendonly\r\na=msid:stream camera\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=recvonly\r\n";

fn single(identity: &str, sdp: &str) -> JoinRequest {
    let offer = proto::SessionDescription { id: 7, sdp: sdp.into(), ..Default::default() };
    let track = proto::AddTrackRequest {
        cid: "camera".into(),
        r#type: proto::TrackType::Video as i32,
        ..proto::AddTrackRequest::default()
    };
    JoinRequest {
        claims: claims(identity),
        connections: Connections::Single { offer: Some(offer), tracks: vec![track] },
        auto_subscribe: true,
        auto_subscribe_data_track: true,
        client: Client::default(),
        adaptive_stream: false,
        allow_pause: false,
        sdk: String::new(),
    }
}

/// What is done on purpose to what the SFU sends is not done to the connection of who gets nothing.
#[test]
fn who_may_not_subscribe_has_a_connection_that_nothing_is_sent_over() {
    let mut rig = Rig::new();
    let (outbox, _queue) = outbox();
    let mut request = single("one", SINGLE_OFFER);
    request.claims.video.can_subscribe = Some(false);
    rig.hub.join(request, outbox).unwrap();
    let commands = rig.commands();
    let Some(Command::AddPeer { role, .. }) = commands.first() else { panic!() };
    assert_eq!(*role, Role::Publisher);
}

#[test]
fn who_joins_by_v1_has_one_connection_and_publishes_along_with_it() {
    let mut rig = Rig::new();
    let (outbox, queue) = outbox();
    let key = rig.hub.join(single("one", SINGLE_OFFER), outbox).unwrap();
    let mut socket = Socket { key, queue };
    let commands = rig.commands();
    let [
        Command::AddPeer { peer, role: Role::Single, .. },
        Command::Offer { peer: offering, id: 7, sdp, tracks },
    ] = &commands[..]
    else {
        panic!("{}", commands.len())
    };
    assert_eq!((peer, tracks.len()), (offering, 1));
    assert!(sdp.contains("a=setup:passive"), "so that the SFU is the DTLS client");
    let (peer, track) = (*peer, tracks[0].track);
    let [Message::Join(join), Message::TrackPublished(published)] = &socket.told().0[..] else {
        panic!()
    };
    assert!(!join.subscriber_primary && published.cid == "camera");

    let (mut viewer, _) = rig.join("viewer");
    let mid_to_track_id = vec![("1".to_owned(), "TR_any".to_owned())];
    let codecs = vec![(track, None)];
    rig.hub.event(Event::Answer { peer, id: 7, sdp: "v=0".into(), codecs, mid_to_track_id });
    let missing = stampede_sdp::Slots { audio: 1, video: 2 };
    rig.hub.event(Event::SlotsWanted { peer, missing });
    let told = socket.told().0;
    let [Message::Answer(answer), Message::Trickle(_), Message::MediaSectionsRequirement(wanted)] =
        &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((answer.id, answer.mid_to_track_id.len()), (7, 1));
    assert_eq!((wanted.num_audios, wanted.num_videos), (1, 2));
    assert!(viewer.told().0.iter().any(|it| matches!(it, Message::Update(_))), "it is published");

    // Its media is that of its only connection.
    rig.hub.event(Event::Connected { peer });
    rig.commands();
    rig.hub.signal_lost(socket.key);
    assert!(matches!(rig.commands()[..], [Command::Suspend(key)] if key == peer));
    rig.resume("one").unwrap();
    rig.hub.remove_participant(ROOM, "one");
    let removed = rig.commands().into_iter().filter(|it| matches!(it, Command::RemovePeer(_)));
    assert_eq!((removed.count(), rig.hub.peers.len()), (1, 1));
    assert_eq!(rig.hub.counted.joins_v1, 1);
}

#[test]
fn a_first_offer_that_cant_be_read_ends_a_stay_with_a_goodbye() {
    let mut rig = Rig::new();
    let (outbox, queue) = outbox();
    let key = rig.hub.join(single("one", "nothing"), outbox).unwrap();
    let mut socket = Socket { key, queue };
    assert_eq!(socket.goodbye(), Some((Action::Reconnect, Reason::StateMismatch)));
    assert_eq!((rig.participants(), rig.hub.peers.len(), rig.hub.signals.len()), (0, 0, 0));
}

fn publish_data(pub_handle: u32, name: &str) -> Request {
    let name = name.to_owned();
    let request = proto::PublishDataTrackRequest {
        pub_handle,
        name,
        ..proto::PublishDataTrackRequest::default()
    };
    Request::PublishDataTrackRequest(request)
}

/// The handles in the last message about them, with their tracks.
fn handles(told: &[Message]) -> Option<Vec<(u32, String)>> {
    let of = |message: &Message| match message {
        Message::DataTrackSubscriberHandles(handles) => {
            let handles = handles.sub_handles.iter();
            Some(handles.map(|(handle, track)| (*handle, track.track_sid.clone())).collect())
        }
        _ => None,
    };
    told.iter().rev().find_map(of)
}

#[test]
fn data_tracks_are_passed_on_under_each_subscribers_handle() {
    let mut rig = Rig::new();
    let (mut alice, from) = rig.join("alice");
    let (mut bob, to) = rig.join("bob");
    for peer in [from, to] {
        rig.hub.event(Event::Connected { peer });
    }
    rig.hub.request(alice.key, publish_data(300, "position"));
    let told = alice.told().0;
    let Some(Message::PublishDataTrackResponse(published)) =
        told.iter().find(|it| matches!(it, Message::PublishDataTrackResponse(_)))
    else {
        panic!("{told:?}")
    };
    let sid = published.info.as_ref().unwrap().sid.clone();
    assert_eq!(handles(&told), None, "her own is none of hers");
    let told = bob.told().0;
    let [(handle, track)] = &handles(&told).unwrap()[..] else { panic!("{told:?}") };
    assert_eq!(*track, sid);
    let knows = |update: &proto::ParticipantUpdate| {
        update.participants.iter().any(|one| one.data_tracks.iter().any(|track| track.sid == sid))
    };
    assert!(told.iter().any(|it| matches!(it, Message::Update(update) if knows(update))));
    // Whoever comes later finds it.
    let (mut carol, late) = rig.join("carol");
    rig.hub.event(Event::Connected { peer: late });
    assert_eq!(handles(&carol.told().0).unwrap()[0].1, sid);
    rig.commands();
    let packet =
        |handle: u16| [&[0x18, 0][..], &handle.to_be_bytes(), &[0; 8], b"payload"].concat();
    let sent = |rig: &mut Rig, handle| {
        let (channel, payload) = ("_data_track".to_owned(), packet(handle));
        rig.hub.event(Event::Data { peer: from, channel, payload });
        rig.commands()
    };
    let [Command::DataTrack { targets, .. }] = &sent(&mut rig, 300)[..] else { panic!() };
    assert_eq!(targets.len(), 2);
    assert!(targets.contains(&(to, *handle as u16)));
    assert!(sent(&mut rig, 301).is_empty(), "there is no such track");
    // Handles and names are a participant's own.
    for (number, name, reason) in [
        (300, "other", proto::request_response::Reason::DuplicateHandle),
        (301, "position", proto::request_response::Reason::DuplicateName),
        (0, "other", proto::request_response::Reason::InvalidHandle),
        (65_536, "other", proto::request_response::Reason::InvalidHandle),
        (301, "", proto::request_response::Reason::InvalidName),
    ] {
        rig.hub.request(alice.key, publish_data(number, name));
        let told = alice.told().0;
        let is =
            |it: &Message| matches!(it, Message::RequestResponse(one) if one.reason() == reason);
        assert!(told.iter().any(is), "{reason:?}: {told:?}");
    }
    // Who does not want it is not sent it any more, and may want it again.
    let update = |subscribe| {
        let update = proto::update_data_subscription::Update {
            track_sid: sid.clone(),
            subscribe,
            options: None,
        };
        Request::UpdateDataSubscription(proto::UpdateDataSubscription { updates: vec![update] })
    };
    rig.hub.request(bob.key, update(false));
    assert_eq!(handles(&bob.told().0), Some(vec![]));
    let [Command::DataTrack { targets, .. }] = &sent(&mut rig, 300)[..] else { panic!() };
    assert_eq!(targets.len(), 1);
    rig.hub.request(bob.key, update(true));
    assert_eq!(handles(&bob.told().0).unwrap().len(), 1);
    // A resume knows it.
    rig.hub.signal_lost(alice.key);
    let mut alice = rig.resume("alice").unwrap();
    let info = proto::DataTrackInfo { sid: sid.clone(), ..proto::DataTrackInfo::default() };
    let state = proto::SyncState {
        publish_data_tracks: vec![proto::PublishDataTrackResponse { info: Some(info) }],
        ..proto::SyncState::default()
    };
    assert!(rig.hub.request(alice.key, Request::SyncState(state)));
    alice.told();
    rig.hub.remove_participant(ROOM, "alice");
    assert_eq!(handles(&bob.told().0), Some(vec![]), "she is gone");
}

#[test]
fn calls_go_to_who_is_named_even_if_it_only_sends() {
    let mut rig = Rig::new();
    let (_alice, from) = rig.join("alice");
    rig.join("bob");
    let (outbox, _queue) = outbox();
    let mut request = single("carol", "v=0\r\n");
    request.claims.video.can_subscribe = Some(false);
    request.connections = Connections::Single { offer: None, tracks: vec![] };
    rig.hub.join(request, outbox).unwrap();
    let added = rig.commands();
    let [Command::AddPeer { peer: to, .. }] = &added[..] else { panic!("{}", added.len()) };
    let call = proto::RpcRequest { id: "1".to_owned(), ..proto::RpcRequest::default() };
    let packet = proto::DataPacket {
        destination_identities: vec!["carol".to_owned()],
        value: Some(proto::data_packet::Value::RpcRequest(call)),
        ..proto::DataPacket::default()
    };
    let (channel, payload) = ("_reliable".to_owned(), packet.encode_to_vec());
    rig.hub.event(Event::Data { peer: from, channel, payload });
    let [Command::Data { targets, payload, .. }] = &rig.commands()[..] else { panic!() };
    assert_eq!(targets[..], [*to]);
    let packet = proto::DataPacket::decode(&payload[..]).unwrap();
    assert_eq!(packet.participant_identity, "alice");
}

#[test]
fn what_a_data_track_may_say_of_itself_is_bounded() {
    let mut rig = Rig::new();
    let (mut alice, from) = rig.join("alice");
    rig.hub.event(Event::Connected { peer: from });
    let schema = |bytes| proto::DataTrackSchemaId { name: "s".repeat(bytes), ..Default::default() };
    let request = |pub_handle, bytes| {
        let Request::PublishDataTrackRequest(request) =
            publish_data(pub_handle, &pub_handle.to_string())
        else {
            unreachable!()
        };
        proto::PublishDataTrackRequest { schema: Some(schema(bytes)), ..request }
    };
    // Its length is no longer than that of its parts.
    let around = request(1, 900).encoded_len() - 900;
    for (handle, bytes, published) in [(1, 1_024 - around, true), (2, 1_025 - around, false)] {
        rig.hub.request(alice.key, Request::PublishDataTrackRequest(request(handle, bytes)));
        let told = alice.told().0;
        let refused = |it: &Message| match it {
            Message::RequestResponse(one) => {
                one.reason() == proto::request_response::Reason::LimitExceeded
            }
            _ => false,
        };
        let is = |it: &Message| matches!(it, Message::PublishDataTrackResponse(_));
        assert_eq!((told.iter().any(is), told.iter().any(refused)), (published, !published));
    }
    // Of fewer characters, of two bytes each.
    let name = "é".repeat(data_tracks::NAME_BYTES_MAX / 2 + 1);
    rig.hub.request(alice.key, publish_data(3, &name));
    let told = alice.told().0;
    let invalid = |it: &Message| match it {
        Message::RequestResponse(one) => {
            one.reason() == proto::request_response::Reason::InvalidName
        }
        _ => false,
    };
    assert!(told.iter().any(invalid), "{told:?}");
}

#[test]
fn handles_end_with_their_tracks_and_with_whoever_published_them() {
    let mut rig = Rig::new();
    let (alice, from) = rig.join("alice");
    let (mut bob, to) = rig.join("bob");
    for peer in [from, to] {
        rig.hub.event(Event::Connected { peer });
    }
    let handle = |told: &[Message]| {
        let mut handles: Vec<u32> = handles(told).unwrap().iter().map(|(it, _)| *it).collect();
        handles.sort_unstable();
        handles
    };
    for number in [1, 2] {
        rig.hub.request(alice.key, publish_data(number, &format!("track {number}")));
    }
    assert_eq!(handle(&bob.told().0), [1, 2]);
    let unpublish = proto::UnpublishDataTrackRequest { pub_handle: 1 };
    rig.hub.request(alice.key, Request::UnpublishDataTrackRequest(unpublish));
    assert_eq!(handle(&bob.told().0), [2]);
    rig.hub.request(alice.key, publish_data(1, "track 3"));
    assert_eq!(handle(&bob.told().0), [2, 3]);
    rig.hub.remove_participant(ROOM, "alice");
    assert_eq!(handle(&bob.told().0), [0u32; 0]);
}

#[test]
fn who_is_moved_is_told_of_data_tracks_behind_its_new_room() {
    let mut rig = Rig::new();
    let (alice, from) = rig.join("alice");
    let (mut bob, to) = rig.join("bob");
    for peer in [from, to] {
        rig.hub.event(Event::Connected { peer });
    }
    rig.hub.request(alice.key, publish_data(1, "here"));
    assert_eq!(handles(&bob.told().0).unwrap().len(), 1);
    let mut move_bob = |room: &str, destination: &str| {
        let request = proto::MoveParticipantRequest {
            room: room.to_owned(),
            identity: "bob".to_owned(),
            destination_room: destination.to_owned(),
        };
        rig.hub.move_participant(&request, |_| None).unwrap();
        bob.told().0
    };
    let behind = |told: &[Message]| {
        let is = |it: &Message| matches!(it, Message::RoomMoved(_));
        let moved = told.iter().position(is).unwrap();
        assert_eq!(handles(&told[..moved]), None, "{told:?}");
        handles(&told[moved..]).unwrap().len()
    };
    assert_eq!(behind(&move_bob(ROOM, "other")), 0, "those of the old room are over");
    assert_eq!(behind(&move_bob("other", ROOM)), 1);
}

#[test]
fn rooms_and_participants_are_bounded() {
    let mut rig = Rig::new();
    let (_first, _) = rig.join("first");
    let request = |name: String| proto::CreateRoomRequest { name, ..Default::default() };
    for n in 1..limits::ROOMS_MAX {
        assert!(rig.hub.create_room(&request(format!("room-{n}"))).is_some());
    }
    assert!(rig.hub.create_room(&request("further".into())).is_none());
    assert!(rig.hub.create_room(&request(ROOM.into())).is_some(), "it is there");
    let refused = |rig: &mut Rig, identity: &str, room: &str| {
        let mut request = single(identity, SINGLE_OFFER);
        request.claims.video.room = room.into();
        rig.hub.join(request, outbox().0).err()
    };
    assert_eq!(refused(&mut rig, "second", "further"), Some(Reason::JoinFailure));
    assert_eq!(refused(&mut rig, "second", ROOM), None);
    let moved = proto::MoveParticipantRequest {
        room: ROOM.into(),
        identity: "first".into(),
        destination_room: "further".into(),
    };
    assert_eq!(rig.hub.move_participant(&moved, |_| None), Err(MoveError::Full));
    rig.hub.load[0] = limits::PARTICIPANTS_MAX;
    assert_eq!(refused(&mut rig, "third", ROOM), Some(Reason::JoinFailure));
    assert_eq!(rig.hub.counted.joins_refused, 2);
    assert_eq!(rig.participants(), 2);
}

#[test]
fn tracks_are_found_by_their_sid_until_they_end() {
    let mut rig = Rig::new();
    let (outbox, queue) = outbox();
    let key = rig.hub.join(single("one", SINGLE_OFFER), outbox).unwrap();
    let mut socket = Socket { key, queue };
    let commands = rig.commands();
    let Some(Command::Offer { peer, tracks, .. }) = commands.get(1) else { panic!() };
    let (peer, track, sid) = (*peer, tracks[0].track, tracks[0].sid.to_string());
    let codecs = vec![(track, None)];
    rig.hub.event(Event::Answer {
        peer,
        id: 7,
        sdp: "v=0".into(),
        codecs,
        mid_to_track_id: vec![],
    });
    let (viewer, _) = rig.join("viewer");
    rig.commands();
    let subscribe = |rig: &mut Rig, subscribe: bool| {
        let mut track_sids = vec!["TR_none".to_owned(); crate::bounded::TRACKS_MAX / 2];
        track_sids.extend(vec![sid.clone(); crate::bounded::TRACKS_MAX / 2]);
        let update = proto::UpdateSubscription { track_sids, subscribe, ..Default::default() };
        assert!(rig.hub.request(viewer.key, Request::Subscription(update)));
        rig.commands()
    };
    assert!(
        matches!(subscribe(&mut rig, false)[..], [Command::Unsubscribe { track: it, .. }] if it == track)
    );
    assert!(
        matches!(&subscribe(&mut rig, true)[..], [Command::Subscribe { track: it, .. }] if it.track == track)
    );
    assert!(subscribe(&mut rig, true).is_empty(), "it is subscribed");
    // A setting that says what counts already is no news for the worker.
    let setting = |disabled| {
        let track_sids = vec![sid.clone(); 1_000];
        Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids,
            disabled,
            ..Default::default()
        })
    };
    assert!(rig.hub.request(viewer.key, setting(true)));
    assert!(matches!(rig.commands()[..], [Command::Setting { .. }]));
    let mute = proto::MuteTrackRequest { sid: sid.clone(), muted: true };
    socket.told();
    assert!(rig.hub.request(key, Request::Mute(mute)));
    let room = &rig.hub.rooms[ROOM];
    assert_eq!(room.tracks.of_sid(&sid), Some(track));
    assert!(room.tracks.get(&track).unwrap().info.muted);
    rig.hub.remove_participant(ROOM, "one");
    assert_eq!(rig.hub.rooms[ROOM].tracks.of_sid(&sid), None);
}

#[test]
fn messages_for_who_has_no_connection_are_counted() {
    let mut rig = Rig::new();
    let (_sender, peer) = rig.join("sender");
    let (outbox, _queue) = outbox();
    let mut request = single("deaf", SINGLE_OFFER);
    (request.claims.video.can_subscribe, request.connections) =
        (Some(false), Connections::Dual { protocol: 17 });
    rig.hub.join(request, outbox).unwrap();
    let data =
        |bytes: &[u8]| Event::Data { peer, channel: "_reliable".into(), payload: bytes.into() };
    rig.hub.event(data(&[]));
    rig.hub.event(data(&[0xff]));
    let counted = rig.hub.counted;
    assert_eq!((counted.messages_undeliverable, counted.messages_refused), (1, 1));
}
