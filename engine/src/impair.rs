//! What is done on purpose to what peers receive, before it is accounted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::{Arrival, LocalId, Peer, Scratch};
use stampede_impair::{Class, Fate, Held, ImpairCounters, Impairment, Spec, stable_name};

use crate::PeerId;

/// A packet held back for so long may make a gap by itself.
const HELD_LONG: Duration = Duration::from_millis(150);

/// What is to be done to whom, the same for all workers of an engine.
#[derive(Debug, Clone)]
pub(crate) struct ImpairPlan {
    /// One entry a cohort.
    pub(crate) cohorts: Arc<[Option<Spec>]>,
    pub(crate) seed: u64,
    /// What outages count from.
    pub(crate) start: Instant,
}

/// What is done to one peer.
pub(crate) struct PeerImpairment {
    model: Impairment,
    /// The first and the last datagram other than media that was dropped since the last
    /// [`Self::take_cut_off`].
    cut_off: Option<[Instant; 2]>,
}

impl PeerImpairment {
    /// To a peer of which no spec is, and to which nothing is done until [`Self::cut_off`].
    pub(crate) fn none(now: Instant) -> Self {
        Self { model: Impairment::none(now), cut_off: None }
    }

    /// Everything that comes from now on and before `until` is dropped.
    pub(crate) fn cut_off(&mut self, now: Instant, until: Instant) {
        self.model.cut_off(now, until);
    }

    pub(crate) fn begin_measuring(&mut self) {
        self.model.reset_counts();
    }

    /// Whether a datagram that was held back reaches its peer now that it is due.
    pub(crate) fn arrives(&mut self, due: Instant, peer: &mut Peer, payload: &[u8]) -> bool {
        let class = Class::of(payload);
        let arrives = self.model.arrives(due, class);
        if !arrives {
            self.dropped(class, due, peer, payload);
        }
        arrives
    }

    /// Since when, and until when, datagrams other than media were dropped.
    pub(crate) fn take_cut_off(&mut self) -> Option<[Instant; 2]> {
        self.cut_off.take()
    }

    fn dropped(&mut self, class: Class, at: Instant, peer: &mut Peer, payload: &[u8]) {
        match class {
            Class::Other => self.cut_off.get_or_insert([at, at])[1] = at,
            _ => peer.dropped_on_purpose(payload),
        }
    }

    pub(crate) fn counts(&self) -> ImpairCounters {
        self.model.counts()
    }
}

/// A datagram held back. It is accounted as if it had arrived when it was due.
pub(crate) struct HeldDatagram {
    pub(crate) peer: PeerId,
    pub(crate) via: LocalId,
    pub(crate) source: SocketAddr,
    pub(crate) at: Arrival,
    pub(crate) payload: Box<[u8]>,
}

/// The impairments of one worker.
pub(crate) struct Impairments {
    plan: ImpairPlan,
    held: Held<HeldDatagram>,
}

impl Impairments {
    pub(crate) fn new(plan: ImpairPlan) -> Self {
        Self { plan, held: Held::default() }
    }

    /// What is done to the subscriber of this name, if anything is to its cohort.
    pub(crate) fn of(&self, cohort: u16, label: &str) -> Option<Box<PeerImpairment>> {
        let spec = self.plan.cohorts.get(usize::from(cohort))?.as_ref()?;
        let model = Impairment::new(spec, self.plan.seed, stable_name(label), self.plan.start);
        Some(Box::new(PeerImpairment { model, cut_off: None }))
    }

    /// Gives a datagram to its peer now or later, or drops it.
    pub(crate) fn datagram(
        &mut self,
        impaired: &mut PeerImpairment,
        (id, peer): (PeerId, &mut Peer),
        at: Arrival,
        (via, source): (LocalId, SocketAddr),
        payload: &[u8],
        scratch: &mut Scratch,
    ) {
        let model = &mut impaired.model;
        let class = Class::of(payload);
        let fate = model.decide(at.instant, class, payload.len());
        let Fate::Deliver { at: due, twice, .. } = fate else {
            return impaired.dropped(class, at.instant, peer, payload);
        };
        for copy in 0..=u8::from(twice) {
            if class == Class::Other || !model.holds_packets() {
                peer.handle_datagram(at, source, payload, scratch);
                continue;
            }
            if due - at.instant >= HELD_LONG {
                peer.dropped_on_purpose(payload);
            }
            let wait_ns = (due - at.instant).as_nanos() as u64;
            let then = Arrival { instant: due, unix_ns: at.unix_ns + wait_ns };
            let datagram =
                HeldDatagram { peer: id, via, source, at: then, payload: payload.into() };
            if !self.held.push(due, datagram) {
                model.overflowed(class, at.instant, fate, copy > 0);
                impaired.dropped(class, at.instant, peer, payload);
                return;
            }
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.held.next()
    }

    /// Takes the next one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<HeldDatagram> {
        self.held.pop_due(now).map(|(_, datagram)| datagram)
    }
}
