//! Why tries to join end: what it is called in `join.errors`, and what it means.

use std::borrow::Cow;

use stampede_core::MediaFailure;
use stampede_report::errors::ErrorClass;
use stampede_signaling::ErrorKind;

/// Why a try ended, or what else went wrong with a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// Signalling, or RoomService.
    Signalling(ErrorKind),
    /// The media plane could not connect; by its key.
    Media(&'static str, ErrorClass),
    /// This machine had no socket for its peer.
    NoResources,
    /// Its worker takes no commands.
    WorkerOverloaded,
    /// Its task was too far behind.
    SignallingOverloaded,
    /// No token could be made.
    BadToken,
    /// The session ended without saying why.
    SignalEnded,
    /// No ICE and DTLS in time.
    MediaTimeout,
    /// The server did not take a track, for this reason.
    PublishRefused(String),
    /// The server did not take a data track, for this reason.
    DataTrackRefused(String),
    /// The server could not give a track, for this reason.
    Subscription(String),
}

impl JoinError {
    /// Its key in `join.errors`.
    pub(crate) fn key(&self) -> Cow<'static, str> {
        match self {
            Self::Signalling(kind) => kind.key().into(),
            Self::Media(key, _) => (*key).into(),
            Self::NoResources => "local_resources".into(),
            Self::WorkerOverloaded => "worker_overloaded".into(),
            Self::SignallingOverloaded => "signalling_overloaded".into(),
            Self::BadToken => "bad_token".into(),
            Self::SignalEnded => "signal_ended".into(),
            Self::MediaTimeout => "media_timeout".into(),
            Self::PublishRefused(reason) => format!("publish_refused_{reason}").into(),
            Self::DataTrackRefused(reason) => format!("data_track_refused_{reason}").into(),
            Self::Subscription(reason) => format!("subscription_{reason}").into(),
        }
    }

    /// What it means to the verdict.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Signalling(kind) if kind.is_flood() => ErrorClass::Flooded,
            Self::Signalling(ErrorKind::ServerAskedResume) => ErrorClass::MediaLost,
            Self::Signalling(kind) if kind.is_ended_by_server() => ErrorClass::EndedByServer,
            Self::Signalling(kind) if kind.is_refusal() => ErrorClass::Refused,
            Self::Signalling(kind) if kind.is_shortage() => ErrorClass::NoResources,
            Self::Signalling(ErrorKind::PingTimeout) => ErrorClass::Unanswered,
            Self::Signalling(ErrorKind::Refused) => ErrorClass::NobodyListens,
            Self::Signalling(kind) if kind.is_signalling_lost() => ErrorClass::SignallingLost,
            Self::Signalling(_) | Self::BadToken | Self::MediaTimeout | Self::Subscription(_) => {
                ErrorClass::Other
            }
            Self::Media(_, class) => *class,
            Self::NoResources => ErrorClass::NoResources,
            Self::WorkerOverloaded | Self::SignallingOverloaded => ErrorClass::Overloaded,
            Self::SignalEnded => ErrorClass::SignallingLost,
            Self::PublishRefused(_) | Self::DataTrackRefused(_) => ErrorClass::Refused,
        }
    }
}

impl From<ErrorKind> for JoinError {
    fn from(kind: ErrorKind) -> Self {
        Self::Signalling(kind)
    }
}

impl From<&MediaFailure> for JoinError {
    fn from(failure: &MediaFailure) -> Self {
        let class = match failure {
            MediaFailure::NoCandidatePair(pair) if pair.refused_local.is_some() => {
                ErrorClass::NoResources
            }
            MediaFailure::NoCandidatePair(pair) => {
                ErrorClass::Hung { by_server: pair.remotes.is_empty() }
            }
            MediaFailure::Dtls { .. } => ErrorClass::Hung { by_server: false },
            MediaFailure::NotNegotiated { .. }
            | MediaFailure::Closed
            | MediaFailure::Broke { .. } => ErrorClass::Other,
        };
        Self::Media(failure.kind(), class)
    }
}

#[cfg(test)]
mod tests {
    use stampede_signaling::Flooded;

    use super::*;

    #[test]
    fn what_the_server_answers_is_told_from_what_nobody_says() {
        for (kind, class) in [
            (ErrorKind::http(503), ErrorClass::Refused),
            (ErrorKind::PublishRefused, ErrorClass::Refused),
            (ErrorKind::Closed(1001.into()), ErrorClass::EndedByServer),
            (ErrorKind::ServerAskedReconnect, ErrorClass::EndedByServer),
            (ErrorKind::ServerAskedResume, ErrorClass::MediaLost),
            (ErrorKind::Closed(1006.into()), ErrorClass::SignallingLost),
            (ErrorKind::SignalLost, ErrorClass::SignallingLost),
            (ErrorKind::PingTimeout, ErrorClass::Unanswered),
            (ErrorKind::ServerFlooded(Flooded::Offers), ErrorClass::Flooded),
            (ErrorKind::LocalResources, ErrorClass::NoResources),
            (ErrorKind::Refused, ErrorClass::NobodyListens),
        ] {
            assert_eq!(JoinError::from(kind).class(), class, "{kind}");
            assert_eq!(JoinError::from(kind).key(), kind.key());
        }
        let refused = JoinError::DataTrackRefused("not_allowed".to_owned());
        assert_eq!(refused.key(), "data_track_refused_not_allowed");
        assert_eq!(refused.class(), ErrorClass::Refused);
    }
}
