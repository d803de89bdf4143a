//! A peer's data channels: what it sends over them, and what of the others' messages came.

use std::time::{Duration, Instant};

use stampede_counters::{DataCounters, MessageCounters};
use str0m::Rtc;
use str0m::channel::{ChannelData, ChannelId};

use super::outbox::Outbox;
use crate::data::{
    Cutter, DataKind, DataRole, DataSends, Frame, Frames, Got, HEADER_BYTES, Header, MessageLedger,
    Packet, Read, TICK, TrackHeader,
};
use crate::{Arrival, Sample};

/// What is sent is expected of a peer whose channel has been open for so long: the server may hear a
/// moment later that it is.
const OPEN_GRACE: Duration = Duration::from_secs(1);
/// The first frame of a data track is sent so long after the server took the track, which it then
/// has to subscribe everybody to.
const PUBLISHED_GRACE: Duration = Duration::from_secs(1);
/// The server has so long to take a data track, before its frames are not sent rather than not due.
const PUBLISH_WITHIN: Duration = Duration::from_secs(5);
/// Most messages that a peer makes up for at a time; what is further behind is not sent, and counted.
const BURST_MAX: u32 = 64;

/// The state of one channel.
#[derive(Debug, Default)]
struct Channel {
    id: Option<ChannelId>,
    /// From when on the others' messages are expected.
    expects_from: Option<Instant>,
    /// Of each sender of the room; `None` for itself. Empty while nothing is expected.
    ledgers: Vec<Option<MessageLedger>>,
}

/// The data track that a peer publishes.
#[derive(Debug, Default)]
struct OwnTrack {
    /// Its handle, once the server took it, and from when its frames are due.
    published: Option<(u16, Instant)>,
    /// By when the server is to have taken it.
    until: Option<Instant>,
    cutter: Cutter,
}

impl OwnTrack {
    /// Whether a frame is due now.
    fn is_due(&self, now: Instant) -> bool {
        let from = self.published.map(|(_, from)| from).or(self.until);
        from.is_some_and(|from| now >= from)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Channels {
    role: DataRole,
    channels: [Channel; DataKind::COUNT],
    track: OwnTrack,
    frames: Frames,
    /// When the next messages are due, once the first channel was open.
    due: Option<Instant>,
    /// When the room's board is looked at next.
    look_at: Option<Instant>,
    /// It has left: nothing is sent or expected any more.
    left: bool,
    counted: DataCounters,
    /// What is being written.
    message: Vec<u8>,
}

impl Channels {
    pub(super) fn new(role: DataRole) -> Self {
        Self {
            role,
            channels: Default::default(),
            track: OwnTrack::default(),
            frames: Frames::default(),
            due: None,
            look_at: None,
            left: false,
            counted: DataCounters::default(),
            message: Vec::new(),
        }
    }

    pub(super) fn counters(&self) -> DataCounters {
        self.counted
    }

    pub(super) fn begin_measuring(&mut self) {
        self.counted = DataCounters::default();
        let room = &self.role.room;
        for (kind, channel) in DataKind::ALL.into_iter().zip(&mut self.channels) {
            for (sender, ledger) in channel.ledgers.iter_mut().enumerate() {
                if let Some(ledger) = ledger {
                    ledger.begin_measuring(room.sent(sender, kind));
                }
            }
        }
    }

    /// A channel is open; one of another name is left alone.
    pub(super) fn opened(&mut self, now: Instant, id: ChannelId, label: &str) {
        let Some(kind) = DataKind::of_label(label) else { return };
        self.channels[kind as usize].id = Some(id);
        self.look_at.get_or_insert(now);
        if kind == DataKind::Track {
            self.track.until.get_or_insert(now + PUBLISH_WITHIN);
        }
        if let Some(sends) = self.role.sends {
            self.due.get_or_insert(now + sends.offset);
        }
    }

    /// The server took our data track; again if it was asked again.
    pub(super) fn published(&mut self, now: Instant, handle: u16) {
        self.track.published.get_or_insert((handle, now + PUBLISHED_GRACE)).0 = handle;
    }

    pub(super) fn closed(&mut self, id: ChannelId) {
        for kind in DataKind::ALL {
            if self.channels[kind as usize].id == Some(id) {
                self.cut(kind);
                self.channels[kind as usize].id = None;
            }
        }
    }

    /// It leaves: nothing is expected of it, or by it, from here on.
    pub(super) fn leave(&mut self) {
        DataKind::ALL.into_iter().for_each(|kind| self.cut(kind));
        (self.left, self.due, self.look_at) = (true, None, None);
    }

    /// Those of these that are sent in its room.
    fn kinds(&self, of: [bool; DataKind::COUNT]) -> impl Iterator<Item = DataKind> + use<> {
        let room = &self.role.room;
        let sent = DataKind::ALL.map(|kind| (of[kind as usize] && room.has(kind)).then_some(kind));
        sent.into_iter().flatten()
    }

    /// Whether anything that the others send is expected of it.
    fn expects(&self) -> bool {
        self.role.expects.contains(&true)
    }

    /// Nothing of what was sent so far is expected any more.
    fn cut(&mut self, kind: DataKind) {
        let channel = &mut self.channels[kind as usize];
        channel.expects_from = None;
        let ledgers = std::mem::take(&mut channel.ledgers);
        if kind == DataKind::Track {
            self.frames.clear();
        }
        let counted = of(&mut self.counted, kind);
        for (sender, ledger) in ledgers.into_iter().enumerate() {
            if let Some(mut ledger) = ledger {
                ledger.cut(self.role.room.sent(sender, kind), counted);
            }
        }
    }

    /// When [`Self::advance`] has something to do next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.look_at).min()
    }

    /// Sends what is due and looks at the board. `up`: the connection stands, and nothing cuts it off.
    /// True if str0m has something to say now.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        clock: Option<Arrival>,
        up: bool,
        rtc: &mut Rtc,
    ) -> bool {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let wrote = is_due(self.due) && self.send(now, clock, up, rtc);
        if is_due(self.look_at) || !up {
            self.look(now, up);
        }
        wrote
    }

    fn send(&mut self, now: Instant, clock: Option<Arrival>, up: bool, rtc: &mut Rtc) -> bool {
        let Some((sends, mut due)) = self.role.sends.zip(self.due) else { return false };
        let Some(sender) = self.role.sender else { return false };
        let (mut wrote, mut made) = (false, 0);
        while due <= now {
            due += sends.every;
            made += 1;
            let writes = up && made <= BURST_MAX;
            for kind in self.kinds(sends.kinds) {
                if kind == DataKind::Track && !self.track.is_due(now) {
                    continue;
                }
                wrote |= self.send_one(kind, (sender, sends), now, clock.filter(|_| writes), rtc);
            }
        }
        self.due = Some(due);
        wrote
    }

    /// Sends one message, or counts that it was not sent.
    fn send_one(
        &mut self,
        kind: DataKind,
        (sender, sends): (usize, DataSends),
        now: Instant,
        clock: Option<Arrival>,
        rtc: &mut Rtc,
    ) -> bool {
        let counted = of(&mut self.counted, kind);
        let channel = self.channels[kind as usize].id.and_then(|id| rtc.channel(id));
        let written = channel.zip(clock).is_some_and(|(mut channel, clock)| {
            let room = &self.role.room;
            let header = Header {
                kind,
                sender: sender as u16,
                tag: room.tag(),
                sequence: room.sent(sender, kind),
                sent_unix_us: unix_us(now, clock),
            };
            let mut write = |message: &[u8]| matches!(channel.write(true, message), Ok(true));
            let OwnTrack { published, cutter, .. } = &mut self.track;
            match (kind, *published) {
                (DataKind::Track, Some((handle, _))) => {
                    cutter.write(handle, &header, sends.bytes, &mut self.message, write)
                }
                (DataKind::Track, None) => false,
                (DataKind::Reliable | DataKind::Lossy, _) => {
                    Packet::write_user(&header.write(), sends.bytes, &mut self.message);
                    write(&self.message)
                }
            }
        });
        if written {
            self.role.room.count(sender, kind);
            counted.sent += 1;
            counted.bytes_sent += sends.bytes.max(HEADER_BYTES) as u64;
        } else {
            counted.not_sent += 1;
        }
        written
    }

    /// Looks at the board, and at what is expected from now on.
    fn look(&mut self, now: Instant, up: bool) {
        if self.left || self.look_at.is_none() {
            return;
        }
        self.look_at = Some(now + TICK);
        if !self.expects() {
            return;
        }
        for kind in self.kinds(self.role.expects) {
            if !up || self.channels[kind as usize].id.is_none() {
                self.cut(kind);
                continue;
            }
            let (room, own) = (&self.role.room, self.role.sender);
            let channel = &mut self.channels[kind as usize];
            let from = *channel.expects_from.get_or_insert(now + OPEN_GRACE);
            if channel.ledgers.is_empty() && now >= from {
                let senders = 0..room.senders();
                channel.ledgers.extend(senders.map(|sender| {
                    (own != Some(sender)).then(|| MessageLedger::new(room.sent(sender, kind)))
                }));
                continue;
            }
            let counted = of(&mut self.counted, kind);
            for (sender, ledger) in channel.ledgers.iter_mut().enumerate() {
                if let Some(ledger) = ledger {
                    ledger.look(room.sent(sender, kind), counted);
                }
            }
        }
    }

    /// A message came; `at` is when the kernel had the datagram that completed it.
    pub(super) fn received(
        &mut self,
        at: Option<Arrival>,
        data: &ChannelData,
        outbox: &mut Outbox,
    ) {
        if self.left {
            return;
        }
        let over = |channel: &Channel| channel.id == Some(data.id);
        let Some(place) = self.channels.iter().position(over) else { return };
        let Frame { header, bytes } = if place == DataKind::Track as usize {
            let Some((packet, payload)) = TrackHeader::read(&data.data) else {
                return self.counted.other.malformed += 1;
            };
            // What completes no frame is a part of one.
            let Some(frame) = self.frames.take(packet, payload) else { return };
            frame
        } else {
            match Packet::read(&data.data) {
                Ok(Read::User(payload)) => {
                    Frame { header: Header::read(payload), bytes: payload.len() }
                }
                Ok(Read::Other) => return self.counted.other.foreign += 1,
                Err(_) => return self.counted.other.malformed += 1,
            }
        };
        let header = header.filter(|header| header.tag == self.role.room.tag());
        let Some(header) = header else { return self.counted.other.foreign += 1 };
        let (kind, sender) = (header.kind, usize::from(header.sender));
        if kind as usize != place || sender >= self.role.room.senders() {
            return self.counted.other.malformed += 1;
        }
        if !self.expects() {
            return;
        }
        let counted = of(&mut self.counted, kind);
        let Some(Some(ledger)) = self.channels[place].ledgers.get_mut(sender) else {
            counted.unexpected += 1;
            return;
        };
        // Where a clock was set the latency is not known.
        let arrived_us = at.map_or(0, |at| at.unix_ns / 1_000);
        let took = arrived_us.checked_sub(header.sent_unix_us).map(Duration::from_micros);
        let sent = self.role.room.sent(sender, kind);
        if ledger.came(header.sequence, sent, took.unwrap_or_default(), counted) == Got::Counted {
            counted.bytes_received += bytes as u64;
            if let Some(latency) = took {
                outbox.sample(Sample::Data { kind, latency });
            }
        }
    }
}

fn of(counted: &mut DataCounters, kind: DataKind) -> &mut MessageCounters {
    match kind {
        DataKind::Reliable => &mut counted.reliable,
        DataKind::Lossy => &mut counted.lossy,
        DataKind::Track => &mut counted.track,
    }
}

/// A moment in microseconds since the Unix epoch.
fn unix_us(now: Instant, clock: Arrival) -> u64 {
    let since = now.saturating_duration_since(clock.instant).as_nanos() as u64;
    clock.unix_ns.saturating_add(since) / 1_000
}
