//! Our own offers, of which one at a time is under way: a publisher's, and over a single connection
//! everybody's.

use std::time::{Duration, Instant};

use stampede_sdp::{SLOTS_MAX, Slots};

use super::{FIRST_OFFER_ID, FIRST_SLOTS, MediaCommand};

/// How long what is wanted of an offer is gathered once another one was answered (client-sdk-js
/// src/room/PCTransport.ts, `debounceInterval`). An offer that follows the first answer at once can
/// reach livekit-server before its ICE has begun: pion (`ICETransport.haveRemoteCredentialsChange`)
/// takes it for a restart of ICE, and answers with credentials that nobody asked for.
const OFFER_DEBOUNCE: Duration = Duration::from_millis(20);

/// Where the latest offer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// There is none yet.
    #[default]
    NotAsked,
    /// The engine makes it.
    Asked,
    /// The server has it.
    Sent,
    /// The server has answered.
    Answered,
}

/// What an offer has more than the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// M-lines to receive by.
    pub(super) added: Slots,
    /// Our tracks.
    pub(super) publish: bool,
}

/// Our own offers.
#[derive(Debug, Default)]
pub(super) struct OwnOffers {
    state: State,
    /// Id of the latest that was asked for. One that the engine made before it is outdated: with it
    /// the engine has forgotten what an answer would be to.
    asked: u32,
    /// M-lines to receive by that were asked for so far.
    slots: Slots,
    /// Our tracks are in the latest that was asked for.
    publish: bool,
    /// An offer with our tracks was answered.
    tracks_answered: bool,
    /// What the next one adds, if one is wanted.
    wanted: Option<Wanted>,
    /// When to ask for it at the earliest.
    not_before: Option<Instant>,
}

impl OwnOffers {
    /// The first offer went along with the join.
    pub(super) fn sent_with_join(&mut self) {
        (self.state, self.asked) = (State::Sent, FIRST_OFFER_ID);
        self.slots = FIRST_SLOTS;
    }

    /// True once one was asked for.
    pub(super) fn is_begun(&self) -> bool {
        self.state != State::NotAsked
    }

    /// True once an offer with our tracks was answered.
    pub(super) fn are_tracks_answered(&self) -> bool {
        self.tracks_answered
    }

    /// Of so many m-lines as many as there is room for, all of which [`SLOTS_MAX`] bounds.
    pub(super) fn fitting(&self, asked: Slots) -> Slots {
        let Slots { audio, video } = plus(self.slots, self.wanted.unwrap_or_default().added);
        let room = SLOTS_MAX.saturating_sub(audio.saturating_add(video));
        let audio = asked.audio.min(room);
        Slots { audio, video: asked.video.min(room - audio) }
    }

    /// An offer with this is wanted; what the engine is to do for it, if not later.
    pub(super) fn want(&mut self, now: Instant, wanted: Wanted) -> Option<MediaCommand> {
        let before = self.wanted.unwrap_or_default();
        let publish = before.publish || wanted.publish;
        self.wanted = Some(Wanted { added: plus(before.added, wanted.added), publish });
        match self.state {
            State::NotAsked => self.ask_for_wanted(),
            State::Asked | State::Sent => None,
            State::Answered => {
                self.not_before.get_or_insert(now + OFFER_DEBOUNCE);
                None
            }
        }
    }

    fn ask_for_wanted(&mut self) -> Option<MediaCommand> {
        let Wanted { added, publish } = self.wanted.take()?;
        self.not_before = None;
        self.slots = plus(self.slots, added);
        self.publish |= publish;
        Some(MediaCommand::CreateOffer { id: self.ask(), added, publish })
    }

    /// ICE is to be restarted by an offer, if there was one. One that was asked for and did not get
    /// out is for that too, and what was sent is answered by nobody. What is wanted then is an offer:
    /// what m-lines it lacks the server says again.
    pub(super) fn restart(&mut self) -> Option<MediaCommand> {
        self.wanted = self.wanted.map(|wanted| Wanted { added: Slots::default(), ..wanted });
        self.is_begun().then(|| MediaCommand::RestartIce { id: self.ask() })
    }

    fn ask(&mut self) -> u32 {
        self.state = State::Asked;
        self.asked = self.asked.wrapping_add(1);
        self.asked
    }

    /// The engine has made this one; true if it is the one that was asked for.
    pub(super) fn made(&mut self, id: u32) -> bool {
        let expected = (self.state, self.asked) == (State::Asked, id);
        if expected {
            self.state = State::Sent;
        }
        expected
    }

    /// True if this is the answer that is waited for. Servers before ids say 0.
    pub(super) fn answered(&mut self, now: Instant, id: u32) -> bool {
        let expected = self.state == State::Sent && (id == 0 || id == self.asked);
        if expected {
            self.state = State::Answered;
            self.tracks_answered |= self.publish;
            self.not_before = self.wanted.map(|_| now + OFFER_DEBOUNCE);
        }
        expected
    }

    /// When [`Self::next`] has something to be done.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.state == State::Answered)
    }

    /// What is to be done for the next one, if one is wanted, none is under way, and it is time.
    pub(super) fn next(&mut self, now: Instant) -> Option<MediaCommand> {
        self.next_at().filter(|at| now >= *at)?;
        self.ask_for_wanted()
    }
}

fn plus(one: Slots, other: Slots) -> Slots {
    Slots {
        audio: one.audio.saturating_add(other.audio),
        video: one.video.saturating_add(other.video),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that passes the debounce with each look.
    fn later(now: &mut Instant) -> Instant {
        *now += OFFER_DEBOUNCE;
        *now
    }

    fn slots(audio: u32, video: u32) -> Slots {
        Slots { audio, video }
    }

    fn wanted(audio: u32, video: u32) -> Wanted {
        Wanted { added: slots(audio, video), publish: false }
    }

    #[test]
    fn one_offer_is_under_way_and_what_is_wanted_meanwhile_is_one_more() {
        let (mut offers, mut now) = (OwnOffers::default(), Instant::now());
        offers.sent_with_join();
        assert_eq!(offers.want(now, wanted(0, 2)), None);
        assert_eq!(offers.want(now, wanted(0, 0)), None, "an empty one is an offer too");
        assert_eq!(offers.next(later(&mut now)), None);
        assert!(!offers.answered(now, 7) && offers.answered(now, 1) && !offers.answered(now, 1));
        assert_eq!(
            offers.next(later(&mut now)),
            Some(MediaCommand::CreateOffer { id: 2, added: slots(0, 2), publish: false })
        );
        assert!(offers.made(2) && !offers.made(2));
        assert!(offers.answered(now, 0));
        assert_eq!(offers.next(later(&mut now)), None);
        let third = MediaCommand::CreateOffer { id: 3, added: slots(0, 0), publish: false };
        // What is wanted between two is gathered for a moment.
        assert_eq!(offers.want(now, wanted(0, 0)), None);
        assert_eq!(offers.next(now), None);
        assert_eq!(offers.next_at(), Some(now + OFFER_DEBOUNCE));
        assert_eq!(offers.next(later(&mut now)), Some(third));
        assert_eq!(offers.next_at(), None);
    }

    #[test]
    fn a_restart_takes_the_place_of_what_was_lost_and_an_offer_stays_wanted() {
        let (mut offers, mut now) = (OwnOffers::default(), Instant::now());
        assert_eq!(offers.restart(), None, "there is nothing to restart");
        offers.sent_with_join();
        offers.want(now, wanted(1, 0));
        assert_eq!(offers.restart(), Some(MediaCommand::RestartIce { id: 2 }));
        assert!(!offers.answered(now, 1), "that one is lost");
        // The websocket is lost again before the engine has made it.
        assert_eq!(offers.restart(), Some(MediaCommand::RestartIce { id: 3 }));
        assert!(!offers.made(2), "its credentials are none any more");
        assert!(offers.made(3) && offers.answered(now, 3));
        assert_eq!(
            offers.next(later(&mut now)),
            Some(MediaCommand::CreateOffer { id: 4, added: slots(0, 0), publish: false })
        );
    }

    #[test]
    fn a_server_gets_no_more_m_lines_than_there_may_be() {
        let (mut offers, mut now) = (OwnOffers::default(), Instant::now());
        offers.sent_with_join();
        let room = SLOTS_MAX - FIRST_SLOTS.audio - FIRST_SLOTS.video;
        assert_eq!(offers.fitting(slots(u32::MAX, u32::MAX)), slots(room, 0));
        assert_eq!(offers.fitting(slots(1, u32::MAX)), slots(1, room - 1));
        offers.want(now, wanted(1, room - 1));
        assert_eq!(offers.fitting(slots(1, 1)), slots(0, 0), "those wanted count too");
        assert!(offers.answered(now, 1) && offers.next(later(&mut now)).is_some());
        assert_eq!(offers.fitting(slots(1, 1)), slots(0, 0));
    }

    #[test]
    fn tracks_wait_for_an_offer_that_is_under_way_and_are_answered_with_theirs() {
        let (mut offers, mut now) = (OwnOffers::default(), Instant::now());
        offers.sent_with_join();
        assert_eq!(offers.want(now, Wanted { added: slots(0, 0), publish: true }), None);
        assert_eq!(offers.want(now, wanted(0, 1)), None);
        assert!(offers.answered(now, 1) && !offers.are_tracks_answered());
        let both = MediaCommand::CreateOffer { id: 2, added: slots(0, 1), publish: true };
        assert_eq!(offers.next(later(&mut now)), Some(both));
        assert!(offers.made(2) && offers.answered(now, 2) && offers.are_tracks_answered());
    }
}
