//! What signalling asks for, and what is done for those who join, once media leaves time for it.

use std::time::{Duration, Instant};

use super::Worker;
use crate::media::endpoint::Endpoint;
use crate::media::handle::NoCommand;
use crate::media::joins::{Joining, Work};
use crate::media::message::Command;

/// Of so many things that are done one is a command, if there is one: a join that has begun is to end
/// before others begin, but its answer is a command, behind others' beginnings.
const WORK_A_COMMAND: usize = 2;

/// How long commands that are not to wait are carried out at a time.
const PRESSING: Duration = Duration::from_millis(1);

impl Worker {
    /// Takes the datagram that was received, at this time, from a peer: at once, or later if it joins.
    pub(super) fn take(&mut self, index: usize, source: Endpoint, at: Instant) {
        // An answer costs next to nothing, and all else of the join waits for it.
        let held = self.peers.hear_answer(index, source, &self.received.datagram, self.now);
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let Some(held) = held {
            held.iter().for_each(|waits| peer.put(&mut self.socket, source, waits, self.now));
            return;
        }
        if peer.is_joining() {
            self.joins.receive(index, peer.key(), source, &self.received.datagram);
            return;
        }
        if let Some(earlier) = self.joins.take_datagrams(peer.key()) {
            let latest = std::mem::take(&mut self.received.datagram);
            for (source, datagram) in earlier {
                self.received.datagram = datagram.into();
                self.receive_datagram(index, source, self.now);
            }
            self.received.datagram = latest;
        }
        self.receive_datagram(index, source, at);
    }

    /// Carries out commands that are not to wait for media. Whether to stop.
    pub(super) fn hurry(&mut self) -> bool {
        let mut until = None;
        while let Some(command) = self.inbox.pressing() {
            if matches!(command, Command::Stop) {
                return true;
            }
            self.carry_out(command);
            let now = (self.clock)();
            if now >= *until.get_or_insert(now + PRESSING) {
                break;
            }
        }
        false
    }

    /// Carries out commands and does what waits for those who join, as far as media leaves time for it.
    /// Whether to stop.
    pub(crate) fn join(&mut self, media_waits: bool) -> bool {
        let began = (self.clock)();
        if media_waits && self.joins.is_empty() && !self.inbox.has_commands() {
            self.joins.worked();
            return false;
        }
        let Some(time) = self.joins.time(began, media_waits) else { return false };
        self.begin_turn(began);
        self.joins.worked();
        for done in 1.. {
            let first = if done % WORK_A_COMMAND == 0 { None } else { self.joins.pop() };
            if let Some(joining) = first {
                self.do_joining(joining);
            } else {
                match self.inbox.command() {
                    Err(NoCommand::Orphaned) => return true,
                    Ok(command) => self.carry_out(command),
                    Err(NoCommand::Empty) => match self.joins.pop() {
                        Some(joining) => self.do_joining(joining),
                        None => return false,
                    },
                }
            }
            if (self.clock)().saturating_duration_since(began) >= time {
                return false;
            }
        }
        false
    }

    fn do_joining(&mut self, joining: Joining) {
        let Joining { index, peer: key, work } = joining;
        let Some(peer) = self.peers.get_mut(index).filter(|peer| peer.key() == key) else {
            self.received.unknown += u64::from(work != Work::Wake);
            return;
        };
        match work {
            Work::Receive(source, datagram) => {
                self.received.datagram.clear();
                self.received.datagram.extend_from_slice(&datagram);
                self.receive_datagram(index, source, self.now);
            }
            Work::Wake => {
                peer.end_waiting();
                self.wake(index);
            }
        }
    }
}
