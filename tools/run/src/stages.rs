//! Plays the stages of `--stage`: subscribers come and go on an open-loop schedule.

use std::iter::Peekable;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stampede_core::{PacketCounters, PeerCounters};
use stampede_report::types::{Fault, StageRow};
use stampede_scenario::{Places, StageRun, timeline};

use crate::clock::now;
use crate::conductor::{Conductor, Stop};
use crate::context::Tasks;
use crate::data::Measured;
use crate::joins::ParticipantId;
use crate::participant::{Orders, Participant};
use crate::progress::Phase;

/// Longest wait for the workers' sums between two stages.
const READING_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between looks for the workers' answers.
const ANSWER_LOOK_EVERY: Duration = Duration::from_millis(5);

/// The subscribers of a run by what has become of them.
struct Crowd {
    /// This host's, with their places among all of the run.
    waiting: Peekable<std::vec::IntoIter<(usize, Participant)>>,
    /// How many of the run were told to join.
    called: usize,
    /// Told to join and not to leave, in this order; `None` is another host's.
    inside: Vec<Option<(ParticipantId, Rc<Orders>)>>,
    joined: u64,
    left: u64,
}

impl Conductor<'_> {
    /// All stages, then the hold. The measured window begins when the first stage ends.
    pub(super) async fn stages(
        &mut self,
        subscribers: Vec<Participant>,
        places: &Places,
        measured: &mut Measured,
        tasks: &mut Tasks,
    ) -> Result<(), Stop> {
        let begin = now();
        let placed: Vec<_> = places.at.iter().copied().zip(subscribers).collect();
        let waiting = placed.into_iter().peekable();
        let mut crowd = Crowd { waiting, called: 0, inside: Vec::new(), joined: 0, left: 0 };
        measured.stages = Some(Vec::new());
        self.state.phase.set(Phase::Stages);
        let runs = timeline(&self.scenario.shape.stages);
        if let Some(last) = runs.last() {
            self.state.ends.set(Some(begin + last.end + self.scenario.duration));
        }
        // `None` when a reading failed: the next stage's growth is not known then either.
        let mut before = Some(PeerCounters::default());
        for (number, run) in runs.iter().enumerate() {
            self.stage(begin, run, &mut crowd, tasks).await?;
            let after = self.reading(number as u64).await?;
            let row = row(run, &crowd, self.context.joins.borrow().subscribers_connected(), {
                before.zip(after)
            });
            self.state.stages.borrow_mut().push(row.clone());
            measured.stages.get_or_insert_default().push(row);
            (crowd.joined, crowd.left) = (0, 0);
            before = after;
            if number == 0 {
                // Of several hosts one may have nobody in the first stage.
                let alone = self.context.meeting.is_none();
                if alone && self.context.joins.borrow().connected() == 0 {
                    return Err(Stop::early(Fault::Unknown, "nobody is left in the room"));
                }
                self.begin_measuring(measured).await?;
                // Accounts begin anew with the window.
                before = Some(PeerCounters::default());
            }
        }
        if self.scenario.duration.is_zero() { Ok(()) } else { self.hold().await }
    }

    /// One stage: a late change does not move the later ones.
    async fn stage(
        &mut self,
        begin: Instant,
        run: &StageRun,
        crowd: &mut Crowd,
        tasks: &mut Tasks,
    ) -> Result<(), Stop> {
        for change in &run.changes {
            self.watch_until(begin + change.at).await?;
            if change.join {
                let place = crowd.called;
                crowd.called += 1;
                let Some((_, mut participant)) = crowd.waiting.next_if(|(own, _)| *own == place)
                else {
                    crowd.inside.push(None);
                    continue;
                };
                participant.scheduled = begin + change.at;
                crowd.inside.push(Some((participant.id, Rc::clone(&participant.orders))));
                crowd.joined += 1;
                self.start(participant, tasks);
            } else if let Some(Some((id, last))) = crowd.inside.pop() {
                crowd.left += 1;
                self.context.joins.borrow_mut().planned_to_leave(id);
                last.leave();
            }
        }
        self.watch_until(begin + run.end).await
    }

    /// The workers' sums at this moment; `None` if they do not come in time.
    async fn reading(&mut self, tag: u64) -> Result<Option<PeerCounters>, Stop> {
        let workers = match self.context.engine() {
            Some(engine) if engine.read_totals(tag).is_ok() => engine.workers(),
            _ => return Ok(None),
        };
        let deadline = now() + READING_TIMEOUT;
        while now() < deadline {
            let answer = self.workers.borrow().readings.get(&tag).copied();
            if let Some((answers, sum)) = answer
                && answers >= workers
            {
                return Ok(Some(sum));
            }
            self.pause_until(now() + ANSWER_LOOK_EVERY).await?;
        }
        tracing::warn!("the workers did not say in time what they had counted");
        Ok(None)
    }
}

/// What a stage came to; `counted` are the sums before and after it.
fn row(
    run: &StageRun,
    crowd: &Crowd,
    connected: usize,
    counted: Option<(PeerCounters, PeerCounters)>,
) -> StageRow {
    let packets = |counters: &PeerCounters| {
        let mut sum: PacketCounters = counters.video.packets;
        sum.merge(&counters.audio.packets);
        sum
    };
    let grown = counted.map(|(before, after)| {
        let (before, after) = (packets(&before), packets(&after));
        let grown = |of: fn(&PacketCounters) -> u64| of(&after).saturating_sub(of(&before));
        PacketCounters {
            expected: grown(|packets| packets.expected),
            missing: grown(|packets| packets.missing),
            unrecovered: grown(|packets| packets.unrecovered),
            bytes: grown(|packets| packets.bytes),
            ..PacketCounters::default()
        }
    });
    let row = StageRow {
        t_s: run.begin.as_secs_f64(),
        duration_s: (run.end - run.begin).as_secs_f64(),
        // This host's part of `run.subscribers`.
        subscribers: crowd.inside.iter().flatten().count() as u64,
        subscribers_connected: connected as u64,
        joined: crowd.joined,
        left: crowd.left,
        ..StageRow::default()
    };
    row.with_packets(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_was_counted_between_two_readings() {
        let mut before = PeerCounters::default();
        before.video.packets.expected = 100;
        let mut after = before;
        after.video.packets.expected = 300;
        after.audio.packets.expected = 200;
        after.video.packets.missing = 8;
        after.video.packets.unrecovered = 4;
        after.video.packets.bytes = 5_000;
        let run = StageRun {
            begin: Duration::from_secs(3),
            end: Duration::from_secs(5),
            subscribers: 7,
            changes: Vec::new(),
        };
        let crowd = Crowd {
            waiting: Vec::new().into_iter().peekable(),
            called: 2,
            inside: vec![None, Some((ParticipantId(1), Rc::default())), None],
            joined: 2,
            left: 0,
        };
        let row = row(&run, &crowd, 6, Some((before, after)));
        assert_eq!((row.t_s, row.duration_s, row.joined, row.left), (3.0, 2.0, 2, 0));
        assert_eq!((row.subscribers, row.subscribers_connected), (1, 6));
        assert_eq!(row.packets_expected, Some(400));
        assert_eq!((row.loss_rate, row.missing_rate), (Some(0.01), Some(0.02)));
        assert_eq!(row.bitrate_bps, Some(20_000.0));
        let unknown = super::row(&run, &crowd, 6, None);
        assert_eq!((unknown.packets_expected, unknown.loss_rate), (None, None));
    }
}
