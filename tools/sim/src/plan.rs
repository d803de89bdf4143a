//! What a seed stands for: who is there, over which ways, and what goes wrong when.

use std::time::Duration;

use stampede_core::PathKind;
use stampede_media::disk::QUEUE_MESSAGES_MAX;
use stampede_signaling::session::SignalVersion;

use crate::link::Conditions;
use crate::spec::ClientSpec;

const MS: Duration = Duration::from_millis(1);

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Packets to subscribers are lost: share, and how many in a row.
    Loss(f64, f64),
    /// Packets to the SFU are lost.
    LossUp(f64, f64),
    /// Packets are so much later, and up to as much again.
    Delay(Duration),
    /// Packets to subscribers are overtaken.
    Reorder(f64),
    /// Packets to subscribers come twice.
    Duplicate(f64),
    /// So many bits a second fit to a subscriber.
    Rate(u64),
    /// Longer datagrams of media don't pass.
    Mtu(usize),
    /// A NAT forgets its mapping and makes another.
    Rebind,
    /// Somebody's TURN server dies, and another one starts at its address.
    RelayDeath,
    /// Nothing passes, signalling included.
    Partition,
    /// The SFU dies, and another one starts at its address.
    Death,
    /// The SFU itself drops a share of what it sends (its `--drop`).
    ServerLoss(f64),
    /// The SFU's cores are full: each datagram in or out takes it so long, and so many find room in its
    /// receive buffers; further ones are dropped.
    Full(Duration, usize),
    /// Each operation of the disk takes so long.
    SlowDisk(Duration),
    /// The disk does not answer.
    StalledDisk,
    /// So many bytes more find room on the disk.
    FullDisk(u64),
    /// A websocket is reset.
    SignalReset,
    /// A participant's wall clock is set forwards by so many milliseconds, or back.
    ClockStep(i64),
}

impl Fault {
    /// Its kind, for the trace and for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss(_, burst) if burst > 1.0 => "bursts",
            Self::Loss(..) => "loss",
            Self::LossUp(..) => "loss up",
            Self::Delay(_) => "delay",
            Self::Reorder(_) => "reorder",
            Self::Duplicate(_) => "duplicate",
            Self::Rate(_) => "rate",
            Self::Mtu(_) => "mtu",
            Self::Rebind => "rebind",
            Self::RelayDeath => "relay death",
            Self::Partition => "partition",
            Self::Death => "death",
            Self::ServerLoss(_) => "server loss",
            Self::Full(..) => "full",
            Self::SlowDisk(_) => "slow disk",
            Self::StalledDisk => "stalled disk",
            Self::FullDisk(_) => "full disk",
            Self::SignalReset => "signal reset",
            Self::ClockStep(_) => "clock step",
        }
    }

    /// It is of one moment; else it lasts.
    #[must_use]
    pub fn is_moment(self) -> bool {
        matches!(self, Self::Rebind | Self::SignalReset | Self::ClockStep(_))
    }
}

/// When something goes wrong for whom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// For whom; nobody in particular is everybody that it can be done to.
    pub client: Option<usize>,
    /// From when, since the start.
    pub from: Duration,
    /// For how long.
    pub lasts: Duration,
}

impl Planned {
    /// When it is over.
    #[must_use]
    pub fn until(&self) -> Duration {
        self.from + self.lasts
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Of everything that is random and no secret.
    pub seed: u64,
    /// Who is there.
    pub clients: Vec<ClientSpec>,
    /// How long a datagram takes to each of them and back.
    pub delays: Vec<Duration>,
    /// Media workers of the SFU.
    pub workers: usize,
    /// Who receives records it, by a disk thread whose queue holds so many messages.
    pub records: Option<usize>,
    /// What goes wrong.
    pub faults: Vec<Planned>,
    /// How long it goes on at least.
    pub duration: Duration,
}

impl Plan {
    /// The plan of a seed. One in twenty has no fault; of the others a fifth have two.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.u64(..);
        let mut plan = Self::without_faults(seed, &mut rng);
        let kinds = 20;
        let first = seed % kinds;
        if let Some(planned) = plan.fault(first, &mut rng) {
            if planned.fault.culprit() == Culprit::Disk {
                // The product's, or one that a short stall fills.
                plan.records = Some(*rng.choice(&[100, 400, QUEUE_MESSAGES_MAX]).unwrap_or(&1));
            }
            plan.faults.push(planned);
            if rng.u8(..5) == 0 {
                let second = rng.u64(..kinds);
                // Two losses could not be told apart, and one SFU has one set of options.
                let planned = plan.fault(second, &mut rng);
                let culprit = plan.faults[0].fault.culprit();
                let planned = planned.filter(|planned| planned.fault.culprit() == culprit);
                plan.faults.extend(planned);
            }
        }
        let ends = plan.faults.iter().map(Planned::until).max().unwrap_or_default();
        plan.duration = plan.duration.max(ends);
        plan
    }

    fn without_faults(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let version = |rng: &mut fastrand::Rng| match rng.bool() {
            true => SignalVersion::V1,
            false => SignalVersion::V0,
        };
        let joins_at = |rng: &mut fastrand::Rng| MS * rng.u32(..800);
        let way = |rng: &mut fastrand::Rng| match rng.u8(..4) {
            0 => PathKind::TurnUdp,
            _ => PathKind::Udp,
        };
        let answers_after = |rng: &mut fastrand::Rng| MS * rng.u32(..60);
        let mut clients = Vec::new();
        for index in 0..rng.usize(1..=2) {
            let both = rng.u8(..4) == 0;
            clients.push(ClientSpec {
                video: true,
                audio: index == 0,
                subscribes: both,
                version: if both { SignalVersion::V1 } else { version(rng) },
                joins_at: joins_at(rng),
                way: way(rng),
                answers_after: answers_after(rng),
            });
        }
        for _ in 0..rng.usize(2..=3) {
            clients.push(ClientSpec {
                video: false,
                audio: false,
                subscribes: true,
                version: version(rng),
                joins_at: joins_at(rng),
                way: way(rng),
                answers_after: answers_after(rng),
            });
        }
        let delays = clients.iter().map(|_| MS * rng.u32(1..60)).collect();
        let workers = rng.usize(1..=2);
        let duration = MS * rng.u32(4_000..5_000);
        let records = (rng.u8(..4) == 0).then_some(QUEUE_MESSAGES_MAX);
        Self { seed, clients, delays, workers, records, faults: Vec::new(), duration }
    }

    /// The fault of a kind, with what is random about it.
    fn fault(&mut self, kind: u64, rng: &mut fastrand::Rng) -> Option<Planned> {
        let share = |rng: &mut fastrand::Rng, most: f64| 0.01 + rng.f64() * (most - 0.01);
        let fault = match kind {
            1 => Fault::Loss(share(rng, 0.3), 1.0),
            2 => Fault::Loss(share(rng, 0.3), 3.0 + rng.f64() * 9.0),
            3 => Fault::LossUp(share(rng, 0.3), 1.0 + rng.f64() * 6.0),
            4 => Fault::Delay(MS * rng.u32(20..200)),
            5 => Fault::Reorder(share(rng, 0.2)),
            6 => Fault::Duplicate(share(rng, 0.2)),
            7 => Fault::Rate(rng.u64(20_000..80_000)),
            8 => Fault::Mtu(rng.usize(120..200)),
            9 => Fault::Rebind,
            10 => Fault::Partition,
            11 => Fault::Death,
            12 => Fault::ServerLoss(share(rng, 0.3)),
            13 => Fault::SignalReset,
            14 => Fault::ClockStep(rng.i64(-5_000..5_000)),
            15 => Fault::Full(MS * rng.u32(5..12), if rng.bool() { 100 } else { 5_000 }),
            16 => Fault::SlowDisk(MS * rng.u32(20..800)),
            17 => Fault::StalledDisk,
            19 => Fault::RelayDeath,
            18 => Fault::FullDisk(rng.u64(..20_000)),
            _ => return None,
        };
        let subscribers: Vec<usize> =
            (0..self.clients.len()).filter(|client| self.clients[*client].subscribes).collect();
        let publishers: Vec<usize> =
            (0..self.clients.len()).filter(|client| self.clients[*client].publishes()).collect();
        let client = match fault {
            Fault::Death
            | Fault::ServerLoss(_)
            | Fault::Full(..)
            | Fault::SlowDisk(_)
            | Fault::StalledDisk
            | Fault::FullDisk(_) => None,
            Fault::LossUp(..) => Some(*rng.choice(&publishers)?),
            Fault::Delay(_)
            | Fault::Rebind
            | Fault::RelayDeath
            | Fault::Partition
            | Fault::SignalReset
            | Fault::ClockStep(_) => Some(rng.usize(..self.clients.len())),
            _ => Some(*rng.choice(&subscribers)?),
        };
        let from = match fault {
            // Some of them while an offer waits for its answer.
            Fault::SignalReset if rng.bool() => {
                let publishes = publishers.iter().map(|it| self.clients[*it].joins_at);
                publishes.max().unwrap_or_default() + MS * rng.u32(20..400)
            }
            _ => MS * rng.u32(1_500..2_500),
        };
        let lasts = match fault {
            _ if fault.is_moment() => Duration::ZERO,
            // From the start to the end: an SFU does not change its options.
            Fault::ServerLoss(_) => Duration::ZERO,
            Fault::Partition | Fault::Death | Fault::RelayDeath => MS * rng.u32(100..6_000),
            // Whole stretches of a second are looked at.
            Fault::Full(..) | Fault::SlowDisk(_) | Fault::StalledDisk | Fault::FullDisk(_) => {
                MS * rng.u32(3_000..5_000)
            }
            _ => MS * rng.u32(500..2_000),
        };
        if let (Fault::RelayDeath, Some(client)) = (fault, client) {
            self.clients[client].way = PathKind::TurnUdp;
        }
        Some(Planned { fault, client, from, lasts })
    }

    /// What a way is like without faults.
    #[must_use]
    pub fn clean(&self, client: usize) -> Conditions {
        Conditions::clean(self.delays[client])
    }

    /// When all faults are over, since the start.
    #[must_use]
    pub fn faults_end(&self) -> Duration {
        self.faults.iter().map(Planned::until).max().unwrap_or_default()
    }

    /// Names of its faults.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.faults.iter().map(|planned| planned.fault.name()).collect();
        if names.is_empty() { "no fault".to_owned() } else { names.join(" and ") }
    }
}

/// Whom lost packets are to be put down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Culprit {
    /// Nothing is lost.
    Nobody,
    /// The way to a subscriber.
    Network,
    /// The way from a publisher.
    Publisher,
    /// The SFU.
    Server,
    /// An SFU without time left: what is late there, and what finds its receive buffer full.
    FullServer,
    /// An SFU that died.
    DeadServer,
    /// A way that was cut.
    Cut,
    /// The disk, and with it this machine.
    Disk,
}

impl Fault {
    /// Whom what it loses is to be put down to.
    #[must_use]
    pub fn culprit(self) -> Culprit {
        match self {
            Self::Loss(..) | Self::Rate(_) | Self::Mtu(_) => Culprit::Network,
            Self::LossUp(..) => Culprit::Publisher,
            Self::ServerLoss(_) => Culprit::Server,
            Self::Full(..) => Culprit::FullServer,
            Self::Death => Culprit::DeadServer,
            Self::Rebind | Self::Partition | Self::RelayDeath => Culprit::Cut,
            Self::SlowDisk(_) | Self::StalledDisk | Self::FullDisk(_) => Culprit::Disk,
            Self::Delay(_)
            | Self::Reorder(_)
            | Self::Duplicate(_)
            | Self::SignalReset
            | Self::ClockStep(_) => Culprit::Nobody,
        }
    }
}
