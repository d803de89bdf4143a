//! Where a participant's stay is between its first message and its end, whatever room it is in.
//! Pure: [`now`](std::time::Instant) is always an argument.

use std::time::{Duration, Instant};

use crate::media::message::Role;

/// A participant whose primary connection is not up after this long is sent away (LiveKit
/// `pkg/rtc/room.go`, `Join`).
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a simulated end of a resume waits for one (LiveKit `pkg/rtc/room.go`,
/// `simulateDisconnectSignalTimeout`).
pub(super) const SIMULATED_RESUME_TIMEOUT: Duration = Duration::from_secs(5);

/// Resumes that end before any message, once that is simulated (LiveKit `pkg/rtc/room.go`,
/// `ResumeParticipant`: its service layer tries as often by itself).
const RESUMES_WITHOUT_MESSAGES: u8 = 3;

/// A participant's stay.
#[derive(Debug)]
pub(super) struct Session {
    joined_at: Instant,
    /// When the client was last heard on its websocket.
    heard_at: Instant,
    /// Its primary connection was up once.
    is_active: bool,
    /// Any connection of it was up once.
    has_connected: bool,
    /// Which connections have no way to the client, by role.
    lost: [bool; Role::COUNT],
    departs_at: Option<Instant>,
    simulated: SimulatedResume,
    speaks_until: Option<Instant>,
}

/// What is done on purpose to the next resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct SimulatedResume {
    /// Ends after its messages, if it comes until then.
    after_messages_until: Option<Instant>,
    /// End before any, if they come until then; so many more.
    without_messages: Option<(Instant, u8)>,
}

/// How a resume ends on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResumeEnd {
    /// Its websocket is closed before any message.
    WithoutMessages,
    /// Its websocket is closed after the messages of a resume.
    AfterMessages,
}

/// What a lost websocket means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalLost {
    /// The participant was never connected: it is removed.
    Remove,
    /// It stays while its media does, or for its departure time if that is lost too.
    Linger,
}

/// Why a stay is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Its primary connection was never up.
    NeverConnected,
    /// Its media was lost, and nobody resumed it in time.
    Departed,
}

impl Session {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            joined_at: now,
            heard_at: now,
            is_active: false,
            has_connected: false,
            lost: [false; Role::COUNT],
            departs_at: None,
            simulated: SimulatedResume::default(),
            speaks_until: None,
        }
    }

    /// The client has said something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Since when messages may not have reached it.
    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// A connection is up for the first time.
    pub(super) fn connected(&mut self, primary: bool) {
        self.has_connected = true;
        self.is_active |= primary;
    }

    /// A connection has no way to the client: it may resume for so long.
    pub(super) fn media_lost(&mut self, role: Role, now: Instant, departure_time: Duration) {
        self.lost[role as usize] = true;
        self.departs_at.get_or_insert(now + departure_time);
    }

    /// A connection has one again.
    pub(super) fn media_recovered(&mut self, role: Role) {
        self.lost[role as usize] = false;
    }

    /// The websocket is gone. LiveKit keeps whoever was connected by any connection
    /// (`pkg/rtc/participant.go`, `HandleSignalSourceClose`).
    pub(super) fn signal_lost(&mut self, now: Instant, departure_time: Duration) -> SignalLost {
        if !self.has_connected {
            return SignalLost::Remove;
        }
        if self.lost != [false; Role::COUNT] {
            // Nothing would ever end it: what is lost is not lost again.
            self.departs_at.get_or_insert(now + departure_time);
        }
        SignalLost::Linger
    }

    /// A websocket has come, and ICE is restarted.
    pub(super) fn resumed(&mut self, now: Instant) {
        self.heard_at = now;
        self.departs_at = None;
    }

    /// The next resume is to end like this.
    pub(super) fn simulate_resume(&mut self, end: ResumeEnd, now: Instant) {
        let until = now + SIMULATED_RESUME_TIMEOUT;
        match end {
            ResumeEnd::AfterMessages => self.simulated.after_messages_until = Some(until),
            ResumeEnd::WithoutMessages => {
                self.simulated.without_messages = Some((until, RESUMES_WITHOUT_MESSAGES));
            }
        }
    }

    /// How this resume is to end, if on purpose. It counts as one.
    pub(super) fn take_resume_end(&mut self, now: Instant) -> Option<ResumeEnd> {
        if let Some((until, left)) = self.simulated.without_messages.take()
            && now < until
        {
            self.simulated.without_messages = (left > 1).then(|| (until, left - 1));
            return Some(ResumeEnd::WithoutMessages);
        }
        let until = self.simulated.after_messages_until.take()?;
        (now < until).then_some(ResumeEnd::AfterMessages)
    }

    /// It counts as speaking until then; an earlier end is forgotten.
    pub(super) fn speak_until(&mut self, until: Instant) {
        self.speaks_until = Some(until);
    }

    /// Whether it has just fallen silent.
    pub(super) fn take_silence(&mut self, now: Instant) -> bool {
        self.speaks_until.take_if(|until| *until <= now).is_some()
    }

    /// Why it has to end now, if it has to.
    pub(super) fn overdue(&self, now: Instant) -> Option<Overdue> {
        if self.departs_at.is_some_and(|at| now >= at) {
            return Some(Overdue::Departed);
        }
        let late = now.saturating_duration_since(self.joined_at) >= JOIN_TIMEOUT;
        (late && !self.is_active).then_some(Overdue::NeverConnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPARTURE: Duration = Duration::from_secs(5);
    const MS: Duration = Duration::from_millis(1);

    fn connected(now: Instant) -> Session {
        let mut session = Session::new(now);
        session.connected(true);
        session
    }

    #[test]
    fn who_is_not_connected_after_a_minute_is_sent_away() {
        let start = Instant::now();
        let mut session = Session::new(start);
        assert_eq!(session.overdue(start + JOIN_TIMEOUT - MS), None);
        assert_eq!(session.overdue(start + JOIN_TIMEOUT), Some(Overdue::NeverConnected));
        session.connected(false);
        assert_eq!(session.overdue(start + JOIN_TIMEOUT), Some(Overdue::NeverConnected));
        session.connected(true);
        assert_eq!(session.overdue(start + 9 * JOIN_TIMEOUT), None);
    }

    #[test]
    fn a_lost_websocket_ends_only_who_was_never_connected() {
        let start = Instant::now();
        let mut session = Session::new(start);
        assert_eq!(session.signal_lost(start, DEPARTURE), SignalLost::Remove);
        session.connected(false);
        assert_eq!(session.signal_lost(start, DEPARTURE), SignalLost::Linger);
        let session = connected(start);
        assert_eq!(session.overdue(start + 1_000 * JOIN_TIMEOUT), None, "its media lives");
    }

    #[test]
    fn whose_media_is_lost_departs_unless_it_resumes() {
        let start = Instant::now();
        let mut session = connected(start);
        session.media_lost(Role::Subscriber, start, DEPARTURE);
        session.media_lost(Role::Publisher, start + DEPARTURE / 2, DEPARTURE);
        assert_eq!(session.overdue(start + DEPARTURE - MS), None);
        assert_eq!(session.overdue(start + DEPARTURE), Some(Overdue::Departed));
        session.resumed(start + DEPARTURE);
        assert_eq!(session.overdue(start + 9 * DEPARTURE), None);
        session.media_recovered(Role::Subscriber);
        // The publisher's connection is as lost as it was.
        let again = start + 9 * DEPARTURE;
        assert_eq!(session.signal_lost(again, DEPARTURE), SignalLost::Linger);
        assert_eq!(session.overdue(again + DEPARTURE), Some(Overdue::Departed));
        session.resumed(again);
        session.media_recovered(Role::Publisher);
        assert_eq!(session.signal_lost(again, DEPARTURE), SignalLost::Linger);
        assert_eq!(session.overdue(again + 9 * DEPARTURE), None);
    }

    #[test]
    fn simulated_ends_of_resumes_are_as_many_as_the_servers_and_expire() {
        let start = Instant::now();
        let mut session = connected(start);
        assert_eq!(session.take_resume_end(start), None);
        session.simulate_resume(ResumeEnd::WithoutMessages, start);
        session.simulate_resume(ResumeEnd::AfterMessages, start);
        for _ in 0..RESUMES_WITHOUT_MESSAGES {
            assert_eq!(session.take_resume_end(start), Some(ResumeEnd::WithoutMessages));
        }
        assert_eq!(session.take_resume_end(start), Some(ResumeEnd::AfterMessages));
        assert_eq!(session.take_resume_end(start), None);
        session.simulate_resume(ResumeEnd::WithoutMessages, start);
        session.simulate_resume(ResumeEnd::AfterMessages, start);
        assert_eq!(session.take_resume_end(start + SIMULATED_RESUME_TIMEOUT), None);
        assert_eq!(session.take_resume_end(start), None, "forgotten");
    }

    #[test]
    fn silence_comes_once() {
        let start = Instant::now();
        let mut session = connected(start);
        session.speak_until(start + DEPARTURE);
        assert!(!session.take_silence(start));
        assert!(session.take_silence(start + DEPARTURE));
        assert!(!session.take_silence(start + DEPARTURE));
    }
}
