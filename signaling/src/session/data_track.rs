//! The data track that a participant publishes (livekit pkg/rtc/participant_data_track.go).

use livekit_protocol as proto;
use proto::request_response::Reason;
use proto::signal_request::Message as Request;

use super::{Session, SessionEvent};

/// What names the data track of ours in its packets. Handles are a participant's own, from 1 on.
pub const DATA_TRACK_HANDLE: u16 = 1;
/// What it is called.
const NAME: &str = "stampede";

/// Where the data track of ours is on its way.
#[derive(Debug, Default)]
pub(super) struct DataTrack {
    wanted: bool,
    /// What the server said of it, for a sync state.
    accepted: Option<proto::PublishDataTrackResponse>,
    refused: bool,
}

impl DataTrack {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// What a server that takes the session up again is to know.
    pub(super) fn accepted(&self) -> Option<&proto::PublishDataTrackResponse> {
        self.accepted.as_ref()
    }
}

impl Session {
    /// Publishes it, unless the server has said something of it already: with a lost websocket the
    /// answer is lost too.
    pub(super) fn publish_data_track(&mut self) {
        let DataTrack { wanted, accepted, refused } = &self.data_track;
        if *wanted && accepted.is_none() && !refused {
            self.send(Request::PublishDataTrackRequest(proto::PublishDataTrackRequest {
                pub_handle: DATA_TRACK_HANDLE.into(),
                name: NAME.to_owned(),
                ..proto::PublishDataTrackRequest::default()
            }));
        }
    }

    pub(super) fn on_data_track_published(&mut self, published: proto::PublishDataTrackResponse) {
        let handle = published.info.as_ref().map_or(0, |info| info.pub_handle);
        if !self.data_track.wanted || handle != u32::from(DATA_TRACK_HANDLE) {
            self.counters.unneeded += 1;
            return;
        }
        self.data_track.accepted = Some(published);
        self.event(SessionEvent::DataTrackPublished { handle: DATA_TRACK_HANDLE });
    }

    pub(super) fn on_data_track_answered(&mut self, reason: Reason) {
        match reason {
            Reason::Ok | Reason::Queued => {}
            // Asked again after a resume: it took the first request.
            Reason::DuplicateHandle | Reason::DuplicateName => {
                self.event(SessionEvent::DataTrackPublished { handle: DATA_TRACK_HANDLE });
            }
            _ => {
                self.data_track.refused = true;
                let reason = reason.as_str_name().to_ascii_lowercase();
                self.event(SessionEvent::DataTrackRefused { reason });
            }
        }
    }
}
