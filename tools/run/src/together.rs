//! One run on several hosts: this host's part of it, whose clock it goes by, and where it waits for
//! the others.

use std::sync::Arc;
use std::time::Instant;

use stampede_hosts::clock::Estimate;
use stampede_hosts::messages::Point;
use stampede_hosts::split::{Member, seed_of, split};
use stampede_scenario::{OwnIdentities, Participants};
use tokio::sync::{mpsc, watch};

/// This host's part of a run.
#[derive(Debug)]
pub struct Together {
    /// Name of the run, which all hosts have in common.
    pub run_id: String,
    /// Which host this is, from 0.
    pub number: u32,
    /// How much each of them takes.
    pub weights: Vec<u64>,
    /// The run's clock against this host's.
    pub clock: Estimate,
    /// Where the hosts wait for each other.
    pub meeting: Meeting,
}

impl Together {
    /// Which of the run's participants are this host's, in the order in which they join.
    pub(crate) fn keeps(&self, all: &Participants) -> Vec<bool> {
        let members = all.rooms_and_parts();
        let members: Vec<Member> =
            members.into_iter().map(|(room, part)| Member { room, part }).collect();
        split(&members, &self.weights).into_iter().map(|host| host == self.number).collect()
    }

    /// Whose stamps can be set against this host's: everybody's of the run, unless its clock is not
    /// known well enough.
    pub(crate) fn comparable(&self, own: &Participants) -> Arc<OwnIdentities> {
        if self.clock.is_sure() { Arc::clone(&own.own) } else { own.identities().into() }
    }

    /// The seed of what this host draws by itself.
    pub(crate) fn seed(&self, of_run: u64) -> u64 {
        seed_of(of_run, self.number)
    }
}

/// Where the hosts of a run wait for each other: this host's end.
#[derive(Debug, Clone)]
pub struct Meeting {
    arrived: mpsc::UnboundedSender<Point>,
    go: watch::Receiver<Option<(Point, Instant)>>,
}

/// The end of whoever speaks with the others. If it is dropped, nobody is waited for any more.
#[derive(Debug)]
pub struct Others {
    /// To which points this host has come; no more than there are.
    pub arrived: mpsc::UnboundedReceiver<Point>,
    /// To which point all hosts have come, and when to go on from it.
    pub go: watch::Sender<Option<(Point, Instant)>>,
}

/// Both ends.
pub fn meeting() -> (Meeting, Others) {
    let (sender, arrived) = mpsc::unbounded_channel();
    let (go, receiver) = watch::channel(None);
    (Meeting { arrived: sender, go: receiver }, Others { arrived, go })
}

impl Meeting {
    /// This host has come to a point: waits until all have, and for the moment to go on. False if
    /// nobody speaks with the others any more.
    pub(crate) async fn at(mut self, point: Point) -> bool {
        let _ = self.arrived.send(point);
        let all_there = |go: &Option<(Point, Instant)>| go.is_some_and(|(at, _)| at >= point);
        let moment = self.go.wait_for(all_there).await.ok().and_then(|go| *go);
        let Some((_, moment)) = moment else { return false };
        tokio::time::sleep_until(moment.into()).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::now;

    #[tokio::test(start_paused = true)]
    async fn a_host_waits_for_the_others_and_for_the_moment() {
        let (meeting, mut others) = meeting();
        let began = now();
        let waits = tokio::spawn(meeting.clone().at(Point::Ramp));
        assert_eq!(others.arrived.recv().await, Some(Point::Ramp));
        let moment = began + Duration::from_secs(7);
        others.go.send_replace(Some((Point::Published, began)));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!waits.is_finished(), "not this point");
        others.go.send_replace(Some((Point::Ramp, moment)));
        assert!(waits.await.unwrap());
        assert!((now() - moment) < Duration::from_millis(2), "{:?}", now() - moment);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_where_nobody_speaks_with_the_others() {
        let (meeting, others) = meeting();
        drop(others);
        assert!(!meeting.at(Point::Start).await);
    }

    #[test]
    fn only_a_clock_that_is_known_makes_stamps_of_others_comparable() {
        use stampede_scenario::{Clips, Draft, Scenario};

        let scenario = Scenario::new(Draft { subscribers: Some(3), ..Draft::default() }).unwrap();
        let mut all = Participants::new(&scenario, &Clips::default(), "ab", 1);
        let together = |bound_ns| Together {
            run_id: "ab".to_owned(),
            number: 1,
            weights: vec![1, 1],
            clock: Estimate { offset_ns: 0, bound_ns },
            meeting: meeting().0,
        };
        let keeps = together(0).keeps(&all);
        assert_eq!(keeps.iter().filter(|kept| **kept).count(), 2, "of four");
        let publisher = all.publishers[0].identity.clone();
        all.keep(&keeps);
        assert!(all.publishers.is_empty(), "the other host's");
        assert!(together(5_000_000).comparable(&all).has(&publisher));
        assert!(!together(5_000_001).comparable(&all).has(&publisher));
        assert!(together(5_000_001).comparable(&all).has(&all.subscribers[0].identity));
    }
}
