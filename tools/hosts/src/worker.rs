//! The worker: what it does with what the coordinator says, and when it says nothing any more.

use std::time::Duration;

use crate::messages::{Point, Share, ToWorker, shown};

/// A coordinator that says nothing for so long is lost: it answers twice a second. With the time
/// that leaving takes the load is gone within five seconds.
pub const COORDINATOR_LOST_AFTER: Duration = Duration::from_secs(3);
/// How often the worker asks for the time, which is also the sign that it lives.
pub const ASK_EVERY: Duration = Duration::from_millis(500);
/// Before it is ready it asks so often, so that a short exchange is among them.
pub const ASK_EVERY_AT_FIRST: Duration = Duration::from_millis(20);
/// It has asked often enough.
pub const EXCHANGES_MIN: usize = 16;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Look whether this can start here.
    Prepare(Box<Share>),
    /// Everybody is at this point.
    Go {
        /// Where.
        point: Point,
        /// By the coordinator's clock, nanoseconds since the Unix epoch.
        at_ns: u64,
    },
    /// Start nobody, or go on with it.
    Pause(bool),
    /// End the run in order, and report.
    Stop {
        /// For people.
        why: String,
        /// The threshold that was crossed, if that is why.
        crossed: Option<(String, f64)>,
    },
    /// End the run in order, and write what there is: nobody is there to report to.
    Lost {
        /// For people.
        why: String,
    },
    /// There is nothing to run.
    Dismissed {
        /// For people.
        why: String,
    },
    /// The report is there.
    Taken {
        /// Another run may follow.
        again: bool,
    },
    /// No other run follows.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// For a share.
    Waiting,
    /// A share is prepared, or runs, or its report is on its way.
    Sharing,
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Worker {
    state: State,
    heard: Duration,
    stopping: bool,
}

impl Worker {
    /// One that was admitted `now`.
    pub fn new(now: Duration) -> Self {
        Self { state: State::Waiting, heard: now, stopping: false }
    }

    /// What follows from a message that came `now`.
    pub fn message(&mut self, now: Duration, message: ToWorker) -> Option<Action> {
        self.heard = self.heard.max(now);
        match (self.state, message) {
            (State::Waiting, ToWorker::Share(share)) => {
                self.state = State::Sharing;
                Some(Action::Prepare(Box::new(share)))
            }
            (State::Waiting | State::Sharing, ToWorker::Refused { why }) => {
                self.state = State::Over;
                Some(Action::Dismissed { why: shown(&why) })
            }
            (State::Sharing, ToWorker::Go { point, at_ns }) => Some(Action::Go { point, at_ns }),
            (State::Sharing, ToWorker::Pause { paused }) => Some(Action::Pause(paused)),
            (State::Sharing, ToWorker::Stop { why, crossed }) if !self.stopping => {
                self.stopping = true;
                Some(Action::Stop { why: shown(&why), crossed })
            }
            (State::Sharing, ToWorker::Taken { again }) => {
                self.state = State::Over;
                Some(Action::Taken { again })
            }
            (State::Waiting, ToWorker::Done) => {
                self.state = State::Over;
                Some(Action::Done)
            }
            // Answers to questions of the time need nothing but to be heard; what comes out of turn
            // is of no use.
            _ => None,
        }
    }

    /// What follows when the connection has ended.
    pub fn cut_off(&mut self, why: &str) -> Option<Action> {
        let action = match self.state {
            State::Waiting => {
                Action::Dismissed { why: format!("the coordinator is gone: {}", shown(why)) }
            }
            State::Sharing => {
                Action::Lost { why: format!("the coordinator is gone: {}", shown(why)) }
            }
            State::Over => return None,
        };
        self.state = State::Over;
        Some(action)
    }

    /// What follows when it is `now`.
    pub fn tick(&mut self, now: Duration) -> Option<Action> {
        let silent = now.saturating_sub(self.heard);
        if silent < COORDINATOR_LOST_AFTER {
            return None;
        }
        self.cut_off(&format!("nothing was heard of it for {COORDINATOR_LOST_AFTER:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn share() -> Share {
        Share {
            words: Vec::new(),
            scenario: None,
            run_id: "ab".to_owned(),
            number: 0,
            weights: vec![1],
        }
    }

    fn clock() -> ToWorker {
        ToWorker::Clock { sent_ns: 1, received_ns: 2, answered_ns: 3 }
    }

    #[test]
    fn a_share_is_taken_once_and_runs_to_its_report() {
        let mut worker = Worker::new(Duration::ZERO);
        let go = || ToWorker::Go { point: Point::Start, at_ns: 7 };
        assert_eq!(worker.message(S, go()), None, "there is nothing to start");
        let action = worker.message(S, ToWorker::Share(share()));
        assert_eq!(action, Some(Action::Prepare(Box::new(share()))));
        assert_eq!(worker.message(S, ToWorker::Share(share())), None);
        assert_eq!(worker.message(S, go()), Some(Action::Go { point: Point::Start, at_ns: 7 }));
        let pause = ToWorker::Pause { paused: true };
        assert_eq!(worker.message(S, pause), Some(Action::Pause(true)));
        let stop = || ToWorker::Stop { why: "w".to_owned(), crossed: None };
        assert!(matches!(worker.message(S, stop()), Some(Action::Stop { .. })));
        assert_eq!(worker.message(S, stop()), None, "once");
        let taken = ToWorker::Taken { again: true };
        assert_eq!(worker.message(S, taken), Some(Action::Taken { again: true }));
        assert_eq!(worker.cut_off("closed"), None, "that was to be");
        assert_eq!(worker.tick(99 * S), None);
    }

    #[test]
    fn a_coordinator_that_falls_silent_is_lost_within_three_seconds() {
        let mut worker = Worker::new(Duration::ZERO);
        worker.message(S, ToWorker::Share(share()));
        worker.message(2 * S, clock());
        assert_eq!(worker.tick(4 * S), None);
        let Some(Action::Lost { why }) = worker.tick(5 * S) else { panic!("not lost") };
        assert!(why.contains("3s"), "{why}");
        assert_eq!(worker.tick(6 * S), None, "once");
    }

    #[test]
    fn without_a_share_there_is_nothing_to_write() {
        let mut worker = Worker::new(Duration::ZERO);
        assert!(matches!(worker.cut_off("reset"), Some(Action::Dismissed { .. })));
        let mut worker = Worker::new(Duration::ZERO);
        let refused = worker.message(S, ToWorker::Refused { why: "too\nfew".to_owned() });
        assert_eq!(refused, Some(Action::Dismissed { why: "too few".to_owned() }));
        let mut worker = Worker::new(Duration::ZERO);
        assert_eq!(worker.message(S, ToWorker::Done), Some(Action::Done));
        assert_eq!(worker.cut_off("closed"), None, "that was to be");
    }
}
