//! The codecs of a track that has two: its own, and the backup for those who can't receive that. Pure.

use livekit_protocol as proto;
use proto::BackupCodecPolicy as Policy;

use crate::media::message::TrackKey;

/// From so many participants on a track stays in both codecs unless its publisher says otherwise
/// (LiveKit `pkg/config/config.go`, `CodecRegressionThreshold`).
const REGRESSION_PARTICIPANTS: usize = 5;

/// The backup of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backup {
    mime_type: String,
    policy: Policy,
    /// By which it is forwarded, once its m-line was answered.
    track: Option<TrackKey>,
    /// All who can get the backup from now on.
    regressed: bool,
    /// What the publisher was told last, if it was told anything.
    told: Option<Wanted>,
}

/// In which of a track's codecs a subscriber can receive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Takes {
    pub(super) own: bool,
    pub(super) backup: bool,
}

impl Takes {
    /// In both, while nothing else is known.
    pub(super) const BOTH: Self = Self { own: true, backup: true };
    /// In none.
    pub(super) const NEITHER: Self = Self { own: false, backup: false };
}

/// What the publisher is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    own: bool,
    backup: bool,
}

impl Wanted {
    /// What a publisher sends that was told nothing.
    const UNTOLD: Self = Self { own: true, backup: false };
}

impl Backup {
    /// Of a track that was announced so; `None` if it has one codec, or is audio: nobody is asked for
    /// that in another.
    pub(super) fn of(info: &proto::TrackInfo) -> Option<Self> {
        let second = info.codecs.get(1).filter(|_| info.r#type() == proto::TrackType::Video)?;
        Some(Self {
            mime_type: second.mime_type.clone(),
            policy: info.backup_codec_policy(),
            track: None,
            regressed: false,
            told: None,
        })
    }

    /// This is its codec.
    pub(super) fn is_in(&self, mime_type: &str) -> bool {
        self.mime_type.eq_ignore_ascii_case(mime_type)
    }

    /// Which of the codecs a client takes that takes these.
    pub(super) fn choose(&self, own: &str, taken: &[&str]) -> Takes {
        let has = |mime_type: &str| taken.iter().any(|one| one.eq_ignore_ascii_case(mime_type));
        Takes { own: has(own), backup: has(&self.mime_type) }
    }

    /// It is published as this track, in a room of so many participants: whether that is new. From then
    /// on all who can get it, if the policy says so (LiveKit `pkg/rtc/mediatrack.go`, `enableRegression`).
    pub(super) fn publish(&mut self, track: TrackKey, participants: usize) -> bool {
        if self.track.replace(track) == Some(track) {
            return false;
        }
        self.regressed |= match self.policy {
            Policy::PreferRegression => participants < REGRESSION_PARTICIPANTS,
            Policy::Simulcast => false,
            Policy::Regression => true,
        };
        true
    }

    /// It is published no longer. If it is still wanted, the publisher is to be told once more: it
    /// takes the backup for unwanted that it has ended.
    pub(super) fn unpublish(&mut self) {
        self.track = None;
        self.regressed = false;
        if let Some(told) = &mut self.told {
            told.backup = false;
        }
    }

    /// What it is forwarded by, once it is published.
    pub(super) fn track(&self) -> Option<TrackKey> {
        self.track
    }

    /// Which track who takes this is sent; `own` is the one in the track's own codec. Of both codecs that
    /// is the own (LiveKit `pkg/sfu/downtrack.go`, `Bind`: the first of the publisher's that it takes),
    /// unless all who can are to get the backup.
    pub(super) fn sent(&self, own: TrackKey, takes: Takes) -> TrackKey {
        self.track.filter(|_| self.needs_backup(takes)).unwrap_or(own)
    }

    fn needs_backup(&self, takes: Takes) -> bool {
        takes.backup && (self.regressed || !takes.own)
    }

    /// What the publisher is to send to those who take this; `None` if that is what it was told last.
    /// A track that nobody gets goes on in its own codec.
    pub(super) fn news(&mut self, takes: impl IntoIterator<Item = Takes>) -> Option<Wanted> {
        let mut wanted = Wanted { own: false, backup: self.regressed };
        for takes in takes {
            let backup = self.needs_backup(takes);
            wanted.backup |= backup;
            wanted.own |= takes.own && !backup;
        }
        wanted.own |= !wanted.backup;
        if self.told.unwrap_or(Wanted::UNTOLD) == wanted {
            return None;
        }
        self.told = Some(wanted);
        self.told
    }

    /// What it was told last, if it was told anything.
    pub(super) fn told(&self) -> Option<Wanted> {
        self.told
    }

    /// The message that says so of the track with this id, in LiveKit's words (`pkg/rtc/participant.go`,
    /// `onSubscribedMaxQualityChange`).
    pub(super) fn message(
        &self,
        info: &proto::TrackInfo,
        wanted: Wanted,
    ) -> proto::SubscribedQualityUpdate {
        let codec = |mime_type: &str, enabled| proto::SubscribedCodec {
            codec: mime_type.trim_start_matches("video/").to_ascii_lowercase(),
            qualities: qualities(enabled),
        };
        #[allow(deprecated)] // `subscribed_qualities` is what clients without other codecs read
        proto::SubscribedQualityUpdate {
            track_sid: info.sid.clone(),
            subscribed_qualities: qualities(wanted.own),
            subscribed_codecs: vec![
                codec(&info.mime_type, wanted.own),
                codec(&self.mime_type, wanted.backup),
            ],
        }
    }
}

fn qualities(enabled: bool) -> Vec<proto::SubscribedQuality> {
    let all = [proto::VideoQuality::Low, proto::VideoQuality::Medium, proto::VideoQuality::High];
    let quality = |quality| proto::SubscribedQuality { quality: quality as i32, enabled };
    all.map(quality).to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    const OWN: TrackKey = TrackKey(1);
    const BACKUP: TrackKey = TrackKey(2);
    const RICH: Takes = Takes::BOTH;
    const POOR: Takes = Takes { own: false, backup: true };
    /// Takes the own codec alone.
    const OTHER: Takes = Takes { own: true, backup: false };

    fn backup(policy: Policy) -> Backup {
        let codec = |mime_type: &str| proto::SimulcastCodecInfo {
            mime_type: mime_type.to_owned(),
            ..proto::SimulcastCodecInfo::default()
        };
        let info = proto::TrackInfo {
            r#type: proto::TrackType::Video as i32,
            codecs: vec![codec("video/VP9"), codec("video/VP8")],
            backup_codec_policy: policy as i32,
            ..proto::TrackInfo::default()
        };
        Backup::of(&info).unwrap()
    }

    fn wanted(own: bool, backup: bool) -> Option<Wanted> {
        Some(Wanted { own, backup })
    }

    #[test]
    fn the_own_codec_is_sent_where_both_are_taken() {
        let mut backup = backup(Policy::Simulcast);
        backup.publish(BACKUP, 2);
        let sent = |taken: &[&str]| backup.sent(OWN, backup.choose("video/VP9", taken));
        assert_eq!(sent(&["video/VP8", "video/vp9"]), OWN);
        assert_eq!(sent(&["video/H264", "video/VP8"]), BACKUP);
        assert_eq!(backup.choose("video/VP9", &["video/H264"]), Takes::NEITHER);
    }

    #[test]
    fn only_video_of_two_codecs_has_a_backup() {
        let codecs = vec![proto::SimulcastCodecInfo::default(); 2];
        let mut info = proto::TrackInfo { codecs, ..proto::TrackInfo::default() };
        assert_eq!((info.r#type(), Backup::of(&info)), (proto::TrackType::Audio, None));
        info.r#type = proto::TrackType::Video as i32;
        assert!(Backup::of(&info).is_some());
        info.codecs.truncate(1);
        assert_eq!(Backup::of(&info), None);
    }

    #[test]
    fn both_codecs_are_asked_for_as_long_as_somebody_takes_them() {
        let mut backup = backup(Policy::Simulcast);
        assert_eq!((backup.news([RICH]), backup.told()), (None, None));
        assert_eq!(backup.news([RICH, POOR]), wanted(true, true));
        assert_eq!(backup.news([POOR, RICH]), None, "told");
        assert_eq!(backup.sent(OWN, POOR), OWN, "not published yet");
        assert!(backup.publish(BACKUP, 2) && !backup.publish(BACKUP, 2));
        assert_eq!(backup.sent(OWN, POOR), BACKUP);
        assert_eq!(backup.sent(OWN, RICH), OWN);
        assert_eq!(backup.news([POOR, Takes::NEITHER]), wanted(false, true));
        assert_eq!(backup.told(), wanted(false, true));
        assert_eq!(backup.news([Takes::NEITHER]), wanted(true, false));
        assert_eq!(backup.told(), wanted(true, false), "it may not have heard that");
    }

    #[test]
    fn all_who_can_get_the_backup_where_the_policy_says_so() {
        for (policy, participants, regresses) in [
            (Policy::PreferRegression, REGRESSION_PARTICIPANTS - 1, true),
            (Policy::PreferRegression, REGRESSION_PARTICIPANTS, false),
            (Policy::Simulcast, 2, false),
            (Policy::Regression, 100, true),
        ] {
            let mut backup = backup(policy);
            backup.news([RICH, POOR]);
            backup.publish(BACKUP, participants);
            let sent = if regresses { BACKUP } else { OWN };
            assert_eq!(backup.sent(OWN, RICH), sent, "{policy:?} {participants}");
            assert_eq!(backup.sent(OWN, OTHER), OWN, "{policy:?}");
            assert_eq!(backup.news([RICH, POOR, OTHER]), None, "{policy:?}");
            let news = regresses.then_some(Wanted { own: false, backup: true });
            assert_eq!(backup.news([RICH, POOR]), news, "{policy:?}");
            backup.unpublish();
            assert_eq!(backup.sent(OWN, RICH), OWN);
        }
    }

    #[test]
    fn who_ends_a_backup_that_is_wanted_is_told_again() {
        for policy in [Policy::Simulcast, Policy::Regression] {
            let mut backup = backup(policy);
            backup.news([RICH, POOR]);
            backup.publish(BACKUP, 2);
            backup.news([RICH, POOR]);
            backup.unpublish();
            assert_eq!(backup.news([RICH, POOR]), wanted(true, true), "{policy:?}");
            backup.publish(BACKUP, 2);
            backup.news([POOR]);
            backup.unpublish();
            assert_eq!(backup.news([RICH]), wanted(true, false), "{policy:?}: the own stood still");
        }
    }

    #[test]
    fn the_publisher_is_told_by_codec() {
        let mut backup = backup(Policy::Simulcast);
        let wanted = backup.news([POOR]).unwrap();
        let info = proto::TrackInfo {
            sid: "TR_V".to_owned(),
            mime_type: "video/VP9".to_owned(),
            ..proto::TrackInfo::default()
        };
        let message = backup.message(&info, wanted);
        assert_eq!(message.track_sid, "TR_V");
        let enabled: Vec<(&str, Vec<bool>)> = message
            .subscribed_codecs
            .iter()
            .map(|one| (one.codec.as_str(), one.qualities.iter().map(|it| it.enabled).collect()))
            .collect();
        assert_eq!(enabled, [("vp9", vec![false; 3]), ("vp8", vec![true; 3])]);
    }
}
