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
    /// All get the backup from now on.
    regressed: bool,
    told: Wanted,
}

/// In which of a track's codecs a subscriber can receive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Takes {
    /// In its own; and so it is while nothing else is known.
    #[default]
    Own,
    /// In the backup only.
    Backup,
    /// In none.
    Neither,
}

/// What the publisher is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    own: bool,
    backup: bool,
}

impl Backup {
    /// Of a track that was announced so; `None` if it has one codec.
    pub(super) fn of(info: &proto::TrackInfo) -> Option<Self> {
        let second = info.codecs.get(1)?;
        let told = Wanted { own: true, backup: false };
        Some(Self {
            mime_type: second.mime_type.clone(),
            policy: info.backup_codec_policy(),
            track: None,
            regressed: false,
            told,
        })
    }

    /// Which of the codecs to send to a client that takes these (LiveKit `pkg/sfu/downtrack.go`, `Bind`:
    /// the first of the publisher's that it takes).
    pub(super) fn choose(&self, own: &str, taken: &[&str]) -> Takes {
        let has = |mime_type: &str| taken.iter().any(|one| one.eq_ignore_ascii_case(mime_type));
        match (has(own), has(&self.mime_type)) {
            (true, _) => Takes::Own,
            (false, true) => Takes::Backup,
            (false, false) => Takes::Neither,
        }
    }

    /// It is published as this track, in a room of so many participants: whether that is new. From then
    /// on all get it, if the policy says so (LiveKit `pkg/rtc/mediatrack.go`, `enableRegression`).
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

    /// It is published no longer.
    pub(super) fn unpublish(&mut self) {
        self.track = None;
        self.regressed = false;
    }

    /// What it is forwarded by, once it is published.
    pub(super) fn track(&self) -> Option<TrackKey> {
        self.track
    }

    /// Which track who takes this is sent; `own` is the one in the track's own codec.
    pub(super) fn sent(&self, own: TrackKey, takes: Takes) -> TrackKey {
        let backup = self.track.filter(|_| self.regressed || takes == Takes::Backup);
        backup.unwrap_or(own)
    }

    /// What the publisher is to send to those who take this; `None` if that is what it was told last.
    /// A track that nobody gets goes on in its own codec.
    pub(super) fn news(&mut self, takes: impl IntoIterator<Item = Takes>) -> Option<Wanted> {
        let mut wanted = Wanted { own: false, backup: self.regressed };
        for takes in takes {
            wanted.own |= takes == Takes::Own;
            wanted.backup |= takes == Takes::Backup;
        }
        wanted.own = !self.regressed && (wanted.own || !wanted.backup);
        (std::mem::replace(&mut self.told, wanted) != wanted).then_some(wanted)
    }

    /// What it was told last, if that is not what it does by itself.
    pub(super) fn told(&self) -> Option<Wanted> {
        Some(self.told).filter(|told| *told != Wanted { own: true, backup: false })
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

    fn backup(policy: Policy) -> Backup {
        let codec = |mime_type: &str| proto::SimulcastCodecInfo {
            mime_type: mime_type.to_owned(),
            ..proto::SimulcastCodecInfo::default()
        };
        let info = proto::TrackInfo {
            codecs: vec![codec("video/VP9"), codec("video/VP8")],
            backup_codec_policy: policy as i32,
            ..proto::TrackInfo::default()
        };
        Backup::of(&info).unwrap()
    }

    #[test]
    fn the_own_codec_is_chosen_where_both_are_taken() {
        let backup = backup(Policy::Simulcast);
        let choose = |taken: &[&str]| backup.choose("video/VP9", taken);
        assert_eq!(choose(&["video/VP8", "video/vp9"]), Takes::Own);
        assert_eq!(choose(&["video/H264", "video/VP8"]), Takes::Backup);
        assert_eq!(choose(&["video/H264"]), Takes::Neither);
        assert_eq!(Backup::of(&proto::TrackInfo::default()), None);
    }

    #[test]
    fn both_codecs_are_asked_for_as_long_as_somebody_takes_them() {
        let mut backup = backup(Policy::Simulcast);
        let wanted = |own, backup| Some(Wanted { own, backup });
        assert_eq!((backup.news([Takes::Own]), backup.told()), (None, None));
        assert_eq!(backup.news([Takes::Own, Takes::Backup]), wanted(true, true));
        assert_eq!(backup.news([Takes::Backup, Takes::Own]), None, "told");
        assert_eq!(backup.sent(OWN, Takes::Backup), OWN, "not published yet");
        assert!(backup.publish(BACKUP, 2) && !backup.publish(BACKUP, 2));
        assert_eq!(backup.sent(OWN, Takes::Backup), BACKUP);
        assert_eq!(backup.sent(OWN, Takes::Own), OWN);
        assert_eq!(backup.news([Takes::Backup, Takes::Neither]), wanted(false, true));
        assert_eq!(backup.told(), wanted(false, true));
        assert_eq!(backup.news([Takes::Neither]), wanted(true, false));
    }

    #[test]
    fn all_get_the_backup_where_the_policy_says_so() {
        for (policy, participants, regresses) in [
            (Policy::PreferRegression, REGRESSION_PARTICIPANTS - 1, true),
            (Policy::PreferRegression, REGRESSION_PARTICIPANTS, false),
            (Policy::Simulcast, 2, false),
            (Policy::Regression, 100, true),
        ] {
            let mut backup = backup(policy);
            backup.news([Takes::Own, Takes::Backup]);
            backup.publish(BACKUP, participants);
            let sent = if regresses { BACKUP } else { OWN };
            assert_eq!(backup.sent(OWN, Takes::Own), sent, "{policy:?} {participants}");
            let news = regresses.then_some(Wanted { own: false, backup: true });
            assert_eq!(backup.news([Takes::Own, Takes::Backup]), news, "{policy:?}");
            backup.unpublish();
            assert_eq!(backup.sent(OWN, Takes::Own), OWN);
        }
    }

    #[test]
    fn the_publisher_is_told_by_codec() {
        let mut backup = backup(Policy::Simulcast);
        let wanted = backup.news([Takes::Backup]).unwrap();
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
