//! Tracks in a second codec.

use proto::BackupCodecPolicy as Policy;
use proto::request_response::Reason;

use super::*;
use crate::media::message::{TrackKey, Wanted};

const VP8: &str = "video/VP8";
const VP9: &str = "video/VP9";
const NOTHING: &str = "";

/// Somebody who publishes a camera in VP9, with VP8 for those who need it.
struct Camera {
    socket: Socket,
    publisher: PeerKey,
    own: TrackKey,
    sid: String,
}

/// A room with a camera, and a worker that is told what is done.
struct Scene {
    rig: Rig,
    camera: Camera,
}

/// An offer of so many cameras, or of m-lines that send nothing.
fn offer(cids: &[&str]) -> Request {
    let media = cids.iter().enumerate().map(|(mid, cid)| {
        let sends = match *cid {
            NOTHING => "a=inactive".to_owned(),
            cid => format!("a=sendonly\r\na=msid:stream {cid}"),
        };
        format!("m=video 9 UDP/TLS/RTP/SAVPF 98\r\na=mid:{mid}\r\na=setup:actpass\r\n{sends}\r\n")
    });
    let sdp = format!("v=0\r\n{}", media.collect::<String>());
    Request::Offer(proto::SessionDescription { id: 1, sdp, ..Default::default() })
}

fn codec(codec: &str, cid: &str) -> proto::SimulcastCodec {
    let (codec, cid) = (codec.to_owned(), cid.to_owned());
    proto::SimulcastCodec { codec, cid, ..Default::default() }
}

fn announced(sid: &str, cid: &str, codecs: Vec<proto::SimulcastCodec>, policy: Policy) -> Request {
    Request::AddTrack(proto::AddTrackRequest {
        sid: sid.to_owned(),
        cid: cid.to_owned(),
        r#type: proto::TrackType::Video as i32,
        simulcast_codecs: codecs,
        backup_codec_policy: policy as i32,
        ..Default::default()
    })
}

/// Which of VP9 and VP8 the publisher was told to send, if it was told anything.
fn wanted(told: &[Message]) -> Option<(bool, bool)> {
    let update = told.iter().rev().find_map(|message| match message {
        Message::SubscribedQualityUpdate(update) => Some(update),
        _ => None,
    })?;
    let enabled = |name: &str| {
        let one = update.subscribed_codecs.iter().find(|one| one.codec == name).unwrap();
        one.qualities.iter().any(|quality| quality.enabled)
    };
    Some((enabled("vp9"), enabled("vp8")))
}

fn switches(commands: Vec<Command>) -> Vec<(PeerKey, TrackKey, TrackKey)> {
    let switch = |command| match command {
        Command::Switch { peer, from, to } => Some((peer, from, to)),
        _ => None,
    };
    commands.into_iter().filter_map(switch).collect()
}

impl Scene {
    fn new(policy: Policy) -> Self {
        let mut rig = Rig::new();
        let (mut socket, _) = rig.join("camera");
        let codecs = vec![codec("vp9", "camera"), codec("vp8", "")];
        rig.hub.request(socket.key, announced("", "camera", codecs, policy));
        let published = socket.told().0.into_iter().find_map(|message| match message {
            Message::TrackPublished(published) => published.track,
            _ => None,
        });
        let info = published.unwrap();
        let codecs: Vec<_> = info.codecs.iter().map(|codec| codec.mime_type.as_str()).collect();
        assert_eq!(codecs, [VP9, VP8]);
        let (publisher, tracks) = Self::offer(&mut rig, &socket, &["camera"]);
        let own = tracks[0];
        let camera = Camera { socket, publisher, own, sid: info.sid };
        let mut scene = Self { rig, camera };
        scene.answered(&[(own, VP9)]);
        scene
    }

    fn offer(rig: &mut Rig, socket: &Socket, cids: &[&str]) -> (PeerKey, Vec<TrackKey>) {
        rig.hub.request(socket.key, offer(cids));
        let offered = rig.commands().into_iter().find_map(|command| match command {
            Command::Offer { peer, mut tracks, .. } => {
                tracks.sort_by(|a, b| a.mid.cmp(&b.mid));
                Some((peer, tracks.iter().map(|track| track.track).collect()))
            }
            _ => None,
        });
        offered.unwrap()
    }

    fn answered(&mut self, codecs: &[(TrackKey, &'static str)]) {
        let codecs = codecs.iter().map(|(track, codec)| (*track, Some(*codec))).collect();
        let (peer, mid_to_track_id) = (self.camera.publisher, Vec::new());
        let answer = Event::Answer { peer, id: 1, sdp: "v=0".into(), codecs, mid_to_track_id };
        self.rig.hub.event(answer);
    }

    /// Joins, and is asked which codecs it takes.
    fn join(&mut self, identity: &str, codecs: &[&'static str]) -> (Socket, PeerKey) {
        let (socket, peer) = self.rig.join(identity);
        let room = &self.rig.hub.rooms[ROOM];
        let sid = &room.identities[identity];
        let track = room.subscribed(sid, self.camera.own).unwrap();
        let codecs = codecs.to_vec();
        self.rig.hub.event(Event::Takes { peer, track, codecs });
        (socket, peer)
    }

    /// The camera sends VP8 too; its key.
    fn back_up(&mut self) -> TrackKey {
        let (sid, codecs) = (self.camera.sid.clone(), vec![codec("vp8", "backup")]);
        let request = announced(&sid, "backup", codecs, Policy::default());
        self.rig.hub.request(self.camera.socket.key, request);
        let told = self.camera.socket.told().0;
        let is_taken = |message: &Message| match message {
            Message::TrackPublished(taken) => {
                let track = taken.track.as_ref().unwrap();
                taken.cid == "backup" && track.sid == sid && track.codecs[1].cid == "backup"
            }
            _ => false,
        };
        assert!(told.iter().any(is_taken), "{told:?}");
        let cids = ["camera", "backup"];
        let (_, tracks) = Self::offer(&mut self.rig, &self.camera.socket, &cids);
        let [own, backup] = tracks[..] else { panic!("{tracks:?}") };
        assert_eq!(own, self.camera.own);
        self.rig.commands();
        self.answered(&[(own, VP9), (backup, VP8)]);
        assert_eq!(switches(self.rig.commands()), [], "nothing has come");
        self.came(backup, VP9);
        assert_eq!(switches(self.rig.commands()), [], "it came in the codec that they lack");
        self.began(backup);
        backup
    }

    fn began(&mut self, track: TrackKey) {
        self.came(track, VP8);
    }

    fn came(&mut self, track: TrackKey, codec: &'static str) {
        let peer = self.camera.publisher;
        self.rig.hub.event(Event::Began { peer, track, codec: Some(codec) });
    }

    fn wanted(&mut self) -> Option<(bool, bool)> {
        wanted(&self.camera.socket.told().0)
    }
}

#[test]
fn who_lacks_a_codec_is_sent_the_backup_once_it_is_published() {
    let mut scene = Scene::new(Policy::Simulcast);
    let own = scene.camera.own;
    let (_rich, _) = scene.join("rich", &[VP8, VP9]);
    assert_eq!(scene.wanted(), None);
    let (poor, poor_peer) = scene.join("poor", &[VP8]);
    assert_eq!(scene.wanted(), Some((true, true)));
    scene.rig.commands();
    let backup = scene.back_up();
    assert_eq!(switches(scene.rig.commands()), [(poor_peer, own, backup)]);
    assert_eq!(scene.wanted(), None, "known");

    // To the room it is one track.
    let room = &scene.rig.hub.rooms[ROOM];
    let shown = room.visible().map(|info| info.tracks.len()).max();
    assert_eq!((shown, room.published().count()), (Some(1), 1));
    // What it wants of it, by the id that both have.
    let settings = proto::UpdateTrackSettings {
        track_sids: vec![scene.camera.sid.clone()],
        quality: proto::VideoQuality::Low as i32,
        ..Default::default()
    };
    scene.rig.hub.request(poor.key, Request::TrackSetting(settings));
    let is_set = |command: &Command| {
        matches!(command, Command::Setting { peer, track, wanted: Wanted { limit: 0, .. } }
            if *peer == poor_peer && *track == backup)
    };
    assert!(scene.rig.commands().iter().any(is_set));

    // Who resumes may not have heard.
    let mut resumed = scene.rig.resume("camera").unwrap();
    assert_eq!(wanted(&resumed.told().0), Some((true, true)));
    scene.camera.socket = resumed;
    // Nobody is left who needs it.
    scene.rig.hub.request(poor.key, Request::Leave(proto::LeaveRequest::default()));
    assert_eq!(scene.wanted(), Some((true, false)));
    assert_eq!(scene.rig.hub.rooms[ROOM].tracks.iter().count(), 2);
    // Its m-line is gone: both are one track no longer.
    Scene::offer(&mut scene.rig, &scene.camera.socket, &["camera", NOTHING]);
    assert_eq!(scene.rig.hub.rooms[ROOM].tracks.iter().count(), 1);
}

#[test]
fn where_all_get_the_backup_the_own_codec_is_wanted_no_longer() {
    let mut scene = Scene::new(Policy::PreferRegression);
    let own = scene.camera.own;
    let (_rich, rich_peer) = scene.join("rich", &[VP9, VP8]);
    let (_poor, poor_peer) = scene.join("poor", &[VP8]);
    scene.wanted();
    scene.rig.commands();
    let backup = scene.back_up();
    let mut moved = switches(scene.rig.commands());
    moved.sort_by_key(|(peer, ..)| peer.0);
    assert_eq!(moved, [(rich_peer, own, backup), (poor_peer, own, backup)]);
    assert_eq!(scene.wanted(), Some((false, true)));
    // Who comes later gets it at once.
    let (_later, _) = scene.join("later", &[VP9, VP8]);
    assert_eq!(switches(scene.rig.commands()), []);
    let room = &scene.rig.hub.rooms[ROOM];
    let later = &room.participants[&room.identities["later"]];
    assert_eq!(later.subscriptions.keys().collect::<Vec<_>>(), [&backup]);

    // Without its m-line everybody goes back.
    Scene::offer(&mut scene.rig, &scene.camera.socket, &["camera", NOTHING]);
    assert_eq!(scene.wanted(), Some((true, true)), "some still need it");
    let room = &scene.rig.hub.rooms[ROOM];
    let keys = |identity: &str| {
        let participant = &room.participants[&room.identities[identity]];
        participant.subscriptions.keys().copied().collect::<Vec<_>>()
    };
    assert_eq!(["rich", "poor", "later"].map(keys), [[own]; 3]);
}

#[test]
fn a_backup_moves_along_with_its_track() {
    let mut scene = Scene::new(Policy::Simulcast);
    let (_poor, _) = scene.join("poor", &[VP8]);
    scene.back_up();
    let request = proto::MoveParticipantRequest {
        room: ROOM.to_owned(),
        identity: "camera".to_owned(),
        destination_room: "other".to_owned(),
    };
    // Another is announced, and not offered yet.
    let codecs = vec![codec("vp8", "more")];
    let another = announced(&scene.camera.sid, "more", codecs, Policy::default());
    scene.rig.hub.request(scene.camera.socket.key, another);
    scene.rig.hub.move_participant(&request, |_| None).unwrap();
    assert_eq!(scene.rig.hub.rooms[ROOM].tracks.iter().count(), 0);
    let moved = scene.rig.hub.rooms["other"].tracks.iter().find(|(_, it)| it.backup_of.is_some());
    let moved = *moved.unwrap().0;
    scene.began(moved);
    let room = &scene.rig.hub.rooms["other"];
    let (own, backup) = room.tracks.iter().partition::<Vec<_>, _>(|(_, it)| it.backup.is_some());
    let ([(own, track)], [(backup, same)]) = (&own[..], &backup[..]) else { panic!() };
    assert_eq!((same.backup_of, track.backup_of), (Some(**own), None));
    assert_eq!(track.backup.as_ref().unwrap().track(), Some(**backup));
    assert_eq!(room.published().collect::<Vec<_>>(), [**own]);
    let participant = &room.participants[&room.identities["camera"]];
    let pending: Vec<_> = participant.pending.iter().map(|pending| pending.backup_of).collect();
    assert_eq!(pending, [Some(**own)]);
}

#[test]
fn nothing_else_can_be_backed_up() {
    let mut scene = Scene::new(Policy::Simulcast);
    let (mut other, _) = scene.join("other", &[VP8]);
    let (sid, codecs) = (scene.camera.sid.clone(), vec![codec("vp8", "backup")]);
    let key = scene.camera.socket.key;
    for (key, sid) in [(key, "TR_unknown"), (other.key, sid.as_str())] {
        let request = announced(sid, "backup", codecs.clone(), Policy::default());
        scene.rig.hub.request(key, request);
    }
    let refused = |told: Vec<Message>| {
        told.into_iter().find_map(|message| match message {
            Message::RequestResponse(response) => Some(response.reason()),
            _ => None,
        })
    };
    assert_eq!(refused(scene.camera.socket.told().0), Some(Reason::NotFound));
    assert_eq!(refused(other.told().0), Some(Reason::NotFound), "another's");
}

#[test]
fn who_gets_a_backup_goes_straight_to_the_one_that_replaces_it() {
    let mut scene = Scene::new(Policy::PreferRegression);
    let (_poor, peer) = scene.join("poor", &[VP8]);
    let former = scene.back_up();
    let codecs = vec![codec("vp8", "more")];
    let another = announced(&scene.camera.sid, "more", codecs, Policy::default());
    scene.rig.hub.request(scene.camera.socket.key, another);
    let cids = ["camera", "backup", "more"];
    let (_, tracks) = Scene::offer(&mut scene.rig, &scene.camera.socket, &cids);
    scene.wanted();
    scene.began(tracks[2]);
    assert_eq!(switches(scene.rig.commands()), [(peer, former, tracks[2])]);
    assert_eq!(scene.wanted(), None);
    assert!(!scene.rig.hub.rooms[ROOM].tracks.contains_key(&former));
}
