//! What signalling tells a peer's media plane beyond SDP: whose clock stamps a track, mutes, and
//! which layers anybody wants.

use std::sync::Arc;

use stampede_core::{Callee, PeerUpdate};
use stampede_scenario::OwnIdentities;
use stampede_signaling::session::{LocalTrack, Quality, SessionEvent, WantedCodec};

/// The first server protocol that knows packet trailers (livekit
/// pkg/rtc/types/protocol_version.go, `SupportsPacketTrailer`). It came with the stripping of
/// trailers for subscribers that don't know them (livekit #4361, release 1.10.1); `stampede sfu`
/// strips nothing and speaks 16. Never send a trailer to a server below it.
const PACKET_TRAILER_PROTOCOL: i32 = 17;

/// What one participant's peer has to know.
pub(super) struct PeerUpdates {
    own: Arc<OwnIdentities>,
    stamps: Arc<OwnIdentities>,
    obey_dynacast: bool,
    publishes: bool,
    /// Who alone is called.
    callee: Option<Arc<str>>,
    /// Client ids of our tracks by the server's ids.
    cids: Vec<(String, String)>,
    /// Codecs of what backs our tracks up, by the tracks' client ids.
    backups: Vec<(String, String)>,
}

impl PeerUpdates {
    /// `own` are the identities of this run's participants.
    /// `stamps` are those whose stamps can be set against this host's clock.
    pub(super) fn new(
        [own, stamps]: [Arc<OwnIdentities>; 2],
        obey_dynacast: bool,
        tracks: &[LocalTrack],
    ) -> Self {
        let backup = |track: &LocalTrack| {
            track.backup.as_ref().map(|backup| (track.cid.clone(), backup.codec.clone()))
        };
        let backups = tracks.iter().filter_map(backup).collect();
        Self {
            own,
            stamps,
            obey_dynacast,
            publishes: !tracks.is_empty(),
            callee: None,
            cids: Vec::new(),
            backups,
        }
    }

    /// One of a peer that calls nobody but this one, or all others of this run.
    pub(super) fn calling(self, callee: Option<Arc<str>>) -> Self {
        Self { callee, ..self }
    }

    fn calls(&self, identity: &str) -> bool {
        match &self.callee {
            Some(callee) => **callee == *identity,
            None => self.own.has(identity),
        }
    }

    /// What the peer has to know of an event.
    pub(super) fn of(&mut self, event: &SessionEvent) -> Option<PeerUpdate> {
        match event {
            SessionEvent::Joined(joined) => (self.publishes
                && joined.protocol >= PACKET_TRAILER_PROTOCOL)
                .then_some(PeerUpdate::PacketTrailer),
            SessionEvent::TrackAvailable(track) => Some(PeerUpdate::Track {
                track_id: track.sid.clone(),
                // Only this run's publishers: another host's clock is another clock, unless it is known
                // how far off it is.
                same_clock: self.stamps.has(&track.publisher_identity),
                muted: track.muted,
            }),
            SessionEvent::TrackMuted { sid, muted } => {
                Some(PeerUpdate::Muted { track_id: sid.clone(), muted: *muted })
            }
            SessionEvent::TrackGone { sid, departure } => Some(PeerUpdate::TrackGone {
                track_id: sid.clone(),
                orderly: departure.is_orderly(),
            }),
            SessionEvent::StreamState { sid, paused } => {
                Some(PeerUpdate::Paused { track_id: sid.clone(), paused: *paused })
            }
            SessionEvent::TrackWanted { sid, wanted, .. } => {
                Some(PeerUpdate::Paused { track_id: sid.clone(), paused: !wanted })
            }
            SessionEvent::TrackPublished { cid, sid } => {
                self.cids.push((sid.clone(), cid.clone()));
                None
            }
            SessionEvent::BackupPublished { cid } => {
                Some(PeerUpdate::BackupWanted { cid: cid.clone() })
            }
            SessionEvent::QualityWanted { sid, codecs } => {
                let cid = self.cid(sid)?;
                let backup = self.backups.iter().find(|(of, _)| *of == cid);
                let is_backup = |one: &&WantedCodec| {
                    let codec = one.codec.strip_prefix("video/").unwrap_or(&one.codec);
                    backup.is_some_and(|(_, backup)| backup.eq_ignore_ascii_case(codec))
                };
                Some(PeerUpdate::LayersWanted {
                    wanted: wanted(codecs.iter().filter(|one| !is_backup(one))),
                    backup: wanted(codecs.iter().filter(is_backup)),
                    cid,
                    obey: self.obey_dynacast,
                })
            }
            SessionEvent::PublishedTrackMuted { sid, muted } => {
                Some(PeerUpdate::PublishMuted { cid: self.cid(sid)?, muted: *muted })
            }
            SessionEvent::OthersMet(others) => {
                let others = others.iter().filter(|other| self.calls(&other.identity));
                let others: Vec<_> = others
                    .map(|other| Callee {
                        sid: other.sid.clone(),
                        identity: other.identity.clone(),
                        client_protocol: other.client_protocol,
                    })
                    .collect();
                (!others.is_empty()).then_some(PeerUpdate::Met { others })
            }
            SessionEvent::OthersParted(sids) => Some(PeerUpdate::Parted { sids: sids.clone() }),
            SessionEvent::DataTrackPublished { handle } => {
                Some(PeerUpdate::DataTrackPublished { handle: *handle })
            }
            SessionEvent::Moved { .. } => Some(PeerUpdate::Moved),
            _ => None,
        }
    }

    fn cid(&self, sid: &str) -> Option<String> {
        self.cids.iter().find(|(known, _)| known == sid).map(|(_, cid)| cid.clone())
    }
}

/// Low, medium, high: wanted with any of these codecs. A server that names none wants all.
fn wanted<'a>(codecs: impl Iterator<Item = &'a WantedCodec> + Clone) -> [bool; 3] {
    let named = || codecs.clone().flat_map(|codec| &codec.qualities);
    if named().next().is_none() {
        return [true; 3];
    }
    [Quality::Low, Quality::Medium, Quality::High]
        .map(|quality| named().any(|(named, enabled)| *named == quality && *enabled))
}

#[cfg(test)]
mod tests {
    use stampede_core::MediaKind;
    use stampede_signaling::session::{LocalBackup, RemoteTrack, TrackSource};

    use super::*;

    fn updates() -> PeerUpdates {
        let track = LocalTrack {
            cid: "cam".to_owned(),
            name: String::new(),
            kind: MediaKind::Video,
            source: TrackSource::Camera,
            codec: "vp9".to_owned(),
            width: 0,
            height: 0,
            layers: Vec::new(),
            red: false,
            dtx: false,
            layers_in_one_stream: true,
            backup: Some(Box::new(LocalBackup {
                cid: "cam-backup".to_owned(),
                codec: "vp8".to_owned(),
                layers: Vec::new(),
            })),
        };
        let own = OwnIdentities::prefixed("stampede-ab-pub-".to_owned()).into();
        PeerUpdates::new([Arc::clone(&own), own], true, &[track])
    }

    #[test]
    fn only_this_runs_publishers_share_our_clock() {
        for (identity, same) in
            [("stampede-ab-pub-1-0", true), ("stampede-cd-pub-1-0", false), ("alice", false)]
        {
            let track = RemoteTrack {
                sid: "TR_1".to_owned(),
                kind: MediaKind::Video,
                source: TrackSource::Camera,
                publisher_sid: "PA_1".to_owned(),
                publisher_identity: identity.to_owned(),
                width: 0,
                height: 0,
                mime_type: String::new(),
                muted: true,
                layers: Vec::new(),
            };
            let update = updates().of(&SessionEvent::TrackAvailable(Box::new(track)));
            let track_id = "TR_1".to_owned();
            assert_eq!(update, Some(PeerUpdate::Track { track_id, same_clock: same, muted: true }));
        }
    }

    #[test]
    fn layers_are_named_by_our_own_track_id() {
        let mut updates = updates();
        let qualities =
            vec![(Quality::Low, true), (Quality::Medium, false), (Quality::High, false)];
        let none: Vec<_> = qualities.iter().map(|(quality, _)| (*quality, false)).collect();
        let codecs = vec![
            WantedCodec { codec: "vp9".to_owned(), qualities },
            WantedCodec { codec: "video/VP8".to_owned(), qualities: none },
        ];
        let event = SessionEvent::QualityWanted { sid: "TR_1".to_owned(), codecs };
        assert_eq!(updates.of(&event), None, "not our track");
        let (cid, sid) = ("cam".to_owned(), "TR_1".to_owned());
        assert_eq!(updates.of(&SessionEvent::TrackPublished { cid, sid }), None);
        let wanted = [true, false, false];
        let cid = "cam".to_owned();
        let backup = [false; 3];
        let update = PeerUpdate::LayersWanted { cid, wanted, backup, obey: true };
        assert_eq!(updates.of(&event), Some(update));
        assert_eq!(super::wanted([].iter()), [true; 3]);
        let cid = "cam-backup".to_owned();
        let asked = updates.of(&SessionEvent::BackupPublished { cid: cid.clone() });
        assert_eq!(asked, Some(PeerUpdate::BackupWanted { cid }));
    }
}
