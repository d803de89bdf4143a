//! What is known of a peer's ICE beside str0m: whether it has a way to the client, and by which
//! names the client's checks may call it. Pure.

use std::time::{Duration, Instant};

/// User name fragments that a peer answers to: the one it has, and the one it offers or had before.
/// A check that uses the wrong one of them is thrown away by str0m, which tells it from a stranger's.
const UFRAGS_MAX: usize = 2;

/// How long a client may take to check a pair after a restart. LiveKit's agents fail as late
/// (`pkg/rtc/transport.go`, `iceDisconnectedTimeout` and `iceFailedTimeout`).
const RESTART_TIMEOUT: Duration = Duration::from_secs(15);

/// By what a client is known to be who it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) ufrag: Box<str>,
    pub(crate) password: Box<str>,
}

impl Credentials {
    /// The first of a description; an offer and an answer of WebRTC have the same for all m-lines.
    pub(crate) fn of(sdp: &str) -> Option<Self> {
        let value = |name: &str| sdp.lines().find_map(|line| line.strip_prefix(name));
        let (ufrag, password) = (value("a=ice-ufrag:")?, value("a=ice-pwd:")?);
        Some(Self { ufrag: ufrag.trim_end().into(), password: password.trim_end().into() })
    }
}

/// By which names checks call a peer, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Ufrags(Vec<String>);

impl Ufrags {
    /// Adds a name; the one that was forgotten for it, if any.
    pub(crate) fn add(&mut self, ufrag: String) -> Option<String> {
        self.0.retain(|known| *known != ufrag);
        self.0.push(ufrag);
        (self.0.len() > UFRAGS_MAX).then(|| self.0.remove(0))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }
}

/// Whether ICE has a way to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Way {
    /// It has, or is looking for its first.
    #[default]
    Open,
    /// It was restarted and has none yet. What it had before may still be used, unless it was lost.
    Restarting {
        /// Until when it may take.
        deadline: Instant,
        lost: bool,
    },
    /// The client has fallen silent.
    Lost,
}

impl Way {
    /// Whether packets may be sent: during a restart they go on where they went (RFC 8445 §9).
    pub(crate) fn is_usable(self) -> bool {
        match self {
            Self::Open => true,
            Self::Restarting { lost, .. } => !lost,
            Self::Lost => false,
        }
    }

    /// ICE was restarted.
    pub(crate) fn restart(&mut self, now: Instant) {
        *self = Self::Restarting { deadline: now + RESTART_TIMEOUT, lost: !self.is_usable() };
    }

    /// A pair works. Whether that is new.
    pub(crate) fn recover(&mut self) -> bool {
        std::mem::replace(self, Self::Open) != Self::Open
    }

    /// None works any more. Whether that is new.
    pub(crate) fn lose(&mut self) -> bool {
        std::mem::replace(self, Self::Lost) != Self::Lost
    }

    /// Until when a restart may take, if there is one.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Restarting { deadline, .. } => Some(deadline),
            Self::Open | Self::Lost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credentials_of_a_description_are_its_first() {
        let sdp = "v=0\r\nm=video 9 X 96\r\na=ice-ufrag:ab\r\na=ice-pwd:secret\r\nm=audio 9 X 0\r\n\
                   a=ice-ufrag:cd\r\na=ice-pwd:other\r\n";
        let own = Credentials { ufrag: "ab".into(), password: "secret".into() };
        assert_eq!(Credentials::of(sdp), Some(own));
        assert_eq!(Credentials::of("v=0\r\na=ice-ufrag:ab\r\n"), None);
    }

    #[test]
    fn a_peer_answers_to_two_names_at_most() {
        let mut ufrags = Ufrags::default();
        assert_eq!(ufrags.add("a".into()), None);
        assert_eq!(ufrags.add("b".into()), None);
        assert_eq!(ufrags.add("b".into()), None, "known");
        assert_eq!(ufrags.add("c".into()), Some("a".into()));
        assert_eq!(ufrags.iter().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(ufrags.iter().count(), UFRAGS_MAX);
    }

    #[test]
    fn media_goes_on_through_a_restart_unless_its_way_was_lost() {
        let now = Instant::now();
        let mut way = Way::Open;
        assert!(!way.recover() && way.is_usable());
        way.restart(now);
        assert_eq!((way.is_usable(), way.deadline()), (true, Some(now + RESTART_TIMEOUT)));
        assert!(way.recover() && way.deadline().is_none());
        assert!(way.lose() && !way.lose() && !way.is_usable());
        way.restart(now);
        assert!(!way.is_usable());
        way.restart(now);
        assert!(!way.is_usable(), "it is as lost as before");
        assert!(way.lose(), "a restart that failed is said again");
        way.restart(now);
        assert!(way.recover() && way.is_usable());
    }
}
