//! What the rooms do at the maxima of what they keep of participants and tracks.

use proto::request_response::Reason as Refused;

use super::*;
use crate::hub::data_tracks::DATA_TRACKS_MAX;
use crate::hub::requests::PENDING_TRACKS_MAX;
use crate::hub::room::DEPARTED_MAX;
use crate::media::message::TrackKey;

/// Why the last request was refused, if it was.
fn refused(socket: &mut Socket) -> Option<Refused> {
    let is = |message: &Message| match message {
        Message::RequestResponse(response) => Some(response.reason()),
        _ => None,
    };
    socket.told().0.iter().find_map(is)
}

fn add_track(rig: &mut Rig, socket: &mut Socket) -> Option<Refused> {
    let request = proto::AddTrackRequest {
        cid: "camera".into(),
        r#type: proto::TrackType::Video as i32,
        ..proto::AddTrackRequest::default()
    };
    assert!(rig.hub.request(socket.key, Request::AddTrack(request)));
    refused(socket)
}

#[test]
fn tracks_that_are_announced_and_not_offered_are_bounded() {
    let mut rig = Rig::new();
    let (mut socket, _) = rig.join("publisher");
    for _ in 0..PENDING_TRACKS_MAX {
        assert_eq!(add_track(&mut rig, &mut socket), None);
    }
    assert_eq!(add_track(&mut rig, &mut socket), Some(Refused::LimitExceeded));
    assert_eq!(rig.participants(), 1, "it may go on");
}

#[test]
fn who_has_so_many_offers_unanswered_is_not_read() {
    let mut rig = Rig::new();
    let (mut socket, _) = rig.join("publisher");
    let sdp = SINGLE_OFFER.to_owned();
    for _ in 0..OFFERS_OUT_MAX {
        assert!(!rig.hub.offers_wait(socket.key));
        let offer = proto::SessionDescription { sdp: sdp.clone(), ..Default::default() };
        assert!(rig.hub.request(socket.key, Request::Offer(offer)), "{:?}", socket.told());
    }
    assert!(rig.hub.offers_wait(socket.key));
    let offered = rig.commands().into_iter().find_map(|command| match command {
        Command::Offer { peer, .. } => Some(peer),
        _ => None,
    });
    let (peer, id, codecs, mid_to_track_id) = (offered.unwrap(), 0, Vec::new(), Vec::new());
    rig.hub.event(Event::Answer { peer, id, sdp, codecs, mid_to_track_id });
    assert!(!rig.hub.offers_wait(socket.key), "one was answered");
}

#[test]
fn a_participant_publishes_so_many_tracks_and_no_more() {
    let mut rig = Rig::new();
    let (mut socket, _) = rig.join("publisher");
    let mut with_tracks = |tracks: usize| {
        let room = rig.hub.rooms.get_mut(ROOM).unwrap();
        let participant = room.participants.values_mut().next().unwrap();
        participant.tracks = (0..tracks as u64).map(TrackKey).collect();
        add_track(&mut rig, &mut socket)
    };
    assert_eq!(with_tracks(limits::TRACKS_MAX - 1), None);
    assert_eq!(with_tracks(limits::TRACKS_MAX), Some(Refused::LimitExceeded));
}

#[test]
fn what_is_said_of_a_track_has_so_many_bytes_and_layers() {
    let mut rig = Rig::new();
    let (mut socket, _) = rig.join("publisher");
    let mut with = |layers: usize, bytes: usize| {
        let mut request = proto::AddTrackRequest {
            r#type: proto::TrackType::Video as i32,
            layers: vec![proto::VideoLayer::default(); layers],
            // So long that it takes two bytes to say how long it is.
            name: "x".repeat(200),
            ..proto::AddTrackRequest::default()
        };
        request.name = "x".repeat(bytes + 200 - request.encoded_len());
        assert_eq!(request.encoded_len(), bytes);
        assert!(rig.hub.request(socket.key, Request::AddTrack(request)));
        refused(&mut socket)
    };
    let most = limits::ADD_TRACK_BYTES_MAX;
    assert_eq!(with(limits::LAYERS_MAX, most), None);
    assert_eq!(with(limits::LAYERS_MAX + 1, most), Some(Refused::LimitExceeded));
    assert_eq!(with(1, most + 1), Some(Refused::LimitExceeded));
}

#[test]
fn a_participant_publishes_so_many_data_tracks_and_no_more() {
    let mut rig = Rig::new();
    let (mut socket, peer) = rig.join("publisher");
    rig.hub.event(Event::Connected { peer });
    let mut publish = |number: usize| {
        rig.hub.request(socket.key, publish_data(number as u32, &format!("track {number}")));
        refused(&mut socket)
    };
    assert!((1..=DATA_TRACKS_MAX).all(|number| publish(number).is_none()));
    assert_eq!(publish(DATA_TRACKS_MAX + 1), Some(Refused::LimitExceeded));
}

#[test]
fn beyond_so_many_a_room_announces_publishers_alone() {
    let mut rig = Rig::new();
    let mut last = None;
    for number in 0..ANNOUNCED_SUBSCRIBERS_MAX + 2 {
        let (socket, peer) = rig.join(&format!("viewer-{number}"));
        rig.hub.event(Event::Connected { peer });
        last = Some(socket);
    }
    let announced = |rig: &Rig| {
        let room = &rig.hub.rooms[ROOM];
        let announced = room.participants.values().filter(|one| one.announced).count();
        (room.announced_subscribers, announced)
    };
    let most = ANNOUNCED_SUBSCRIBERS_MAX;
    assert_eq!(announced(&rig), (most, most));
    assert_eq!(rig.participants(), most + 2, "but they are there");
    rig.hub.request(last.unwrap().key, publish_data(1, "track"));
    assert_eq!(announced(&rig), (most, most + 1));
}

#[test]
fn of_closed_rooms_the_oldest_is_forgotten() {
    let mut rig = Rig::new();
    let name = |number: usize| format!("room-{number}");
    for number in 0..=CLOSED_ROOMS_MAX {
        let mut request = single("one", SINGLE_OFFER);
        request.claims.video.room = name(number);
        rig.hub.join(request, outbox().0).unwrap();
        rig.hub.remove_participant(&name(number), "one");
        rig.commands();
        // An empty room stays for a while.
        rig.at(Duration::from_secs(3_600) * (number as u32 + 1));
    }
    assert_eq!((rig.hub.closed.len(), rig.hub.counts.len()), (CLOSED_ROOMS_MAX, CLOSED_ROOMS_MAX));
    let is_known = |number| rig.hub.counts.contains_key(&name(number));
    assert!(!is_known(0) && is_known(1) && is_known(CLOSED_ROOMS_MAX));
    assert_eq!(rig.hub.counted.attendance.leaves, CLOSED_ROOMS_MAX as u64 + 1, "in the sums it is");
}

#[test]
fn of_those_who_left_the_first_is_forgotten() {
    let mut rig = Rig::new();
    let (_socket, _) = rig.join("viewer");
    let start = rig.start;
    let room = rig.hub.rooms.get_mut(ROOM).unwrap();
    for number in 0..=DEPARTED_MAX {
        let info = proto::ParticipantInfo { sid: number.to_string(), ..Default::default() };
        room.note_departed(info, start);
    }
    let departed = room.departed_since(start);
    assert_eq!((departed.len(), &*departed[0].sid), (DEPARTED_MAX, "1"));
}
