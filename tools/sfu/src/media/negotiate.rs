//! Offers to subscribers and answers to publishers.

use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::media::Direction;

use super::Event;
use super::peer::{Peer, Stage};
use crate::ledger::SubscriberTrackLedger;
use crate::sdp;

/// Changes are collected this long before they are offered (LiveKit's fast negotiation debounce
/// is 10 ms, `pkg/rtc/transport.go`).
pub(crate) const NEGOTIATION_DEBOUNCE: Duration = Duration::from_millis(10);

/// An offer unanswered for this long ends the peer (LiveKit `negotiationFailedTimeout`).
pub(crate) const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Where a subscriber's negotiation is: at most one offer is out, changes wait.
#[derive(Default)]
pub(crate) struct Negotiation {
    next_id: u32,
    outstanding: Option<Outstanding>,
    /// When to offer the changes that wait.
    due: Option<Instant>,
    channels_offered: bool,
}

struct Outstanding {
    id: u32,
    pending: SdpPendingOffer,
    subscriptions: Vec<usize>,
    sent_at: Instant,
}

impl Negotiation {
    /// Asks for an offer soon; gives the moment to call [`Peer::negotiate`].
    pub(crate) fn want(&mut self, now: Instant, debounce: Duration) -> Instant {
        *self.due.get_or_insert(now + debounce)
    }

    /// When something has to be done.
    pub(crate) fn next(&self) -> Option<Instant> {
        match &self.outstanding {
            Some(outstanding) => Some(outstanding.sent_at + NEGOTIATION_TIMEOUT),
            None => self.due,
        }
    }

    /// Whether the client has left an offer unanswered for too long.
    pub(crate) fn timed_out(&self, now: Instant) -> bool {
        self.outstanding.as_ref().is_some_and(|o| now >= o.sent_at + NEGOTIATION_TIMEOUT)
    }
}

impl Peer {
    /// Makes the offer that is due, if any, together with the ledger rows of subscriptions that
    /// ended.
    pub(crate) fn negotiate(
        &mut self,
        now: Instant,
    ) -> (Option<Event>, Vec<SubscriberTrackLedger>) {
        let mut ended = Vec::new();
        let negotiation = &self.negotiation;
        if negotiation.outstanding.is_some() || negotiation.due.is_none_or(|due| due > now) {
            return (None, ended);
        }
        self.negotiation.due = None;
        let removed: Vec<usize> = self
            .subscriptions
            .iter()
            .filter(|(_, subscription)| subscription.removed)
            .map(|(index, _)| index)
            .collect();
        let mids: Vec<_> =
            removed.iter().filter_map(|&index| self.subscriptions[index].mid).collect();
        for index in removed {
            ended.push(self.remove_subscription(index));
        }
        let mut api = self.rtc.sdp_api();
        if !self.negotiation.channels_offered {
            self.negotiation.channels_offered = true;
            for config in data_channels() {
                api.add_channel_with_config(config);
            }
        }
        for mid in mids {
            api.set_direction(mid, Direction::Inactive);
        }
        let mut offered = Vec::new();
        for (index, subscription) in &mut self.subscriptions {
            if subscription.stage != Stage::New {
                continue;
            }
            let offer = &subscription.offer;
            let kind = match offer.kind {
                MediaKind::Audio => str0m::media::MediaKind::Audio,
                MediaKind::Video => str0m::media::MediaKind::Video,
            };
            let stream = format!("{}|{}", offer.publisher_sid, offer.sid);
            let track = Some(offer.sid.to_string());
            subscription.mid =
                Some(api.add_media(kind, Direction::SendOnly, Some(stream), track, None));
            subscription.stage = Stage::Offered;
            offered.push(index);
        }
        let Some((offer, pending)) = api.apply() else { return (None, ended) };
        self.negotiation.next_id += 1;
        let id = self.negotiation.next_id;
        self.negotiation.outstanding =
            Some(Outstanding { id, pending, subscriptions: offered, sent_at: now });
        let mid_to_track_id = self
            .subscriptions
            .iter()
            .filter_map(|(_, s)| Some((s.mid?.to_string(), s.offer.sid.to_string())))
            .collect();
        let sdp = offer.to_sdp_string();
        (Some(Event::Offer { peer: self.key, id, sdp, mid_to_track_id }), ended)
    }

    /// Takes the client's answer; an answer to no outstanding offer is ignored.
    pub(crate) fn accept_answer(&mut self, id: u32, sdp: &str) -> Result<(), String> {
        let Some(outstanding) = self.negotiation.outstanding.take() else {
            tracing::debug!(peer = self.key.0, id, "answer without an offer ignored");
            return Ok(());
        };
        // LiveKit logs a different id and goes on (`pkg/rtc/transport.go`); only one offer is
        // ever out, so the answer can be to no other.
        if id != 0 && id != outstanding.id {
            tracing::debug!(peer = self.key.0, id, expected = outstanding.id, "answer's id");
        }
        let sdp = sdp::without_candidates(sdp);
        let answer = SdpAnswer::from_sdp_string(&sdp).map_err(|error| error.to_string())?;
        self.rtc
            .sdp_api()
            .accept_answer(outstanding.pending, answer)
            .map_err(|error| error.to_string())?;
        for index in outstanding.subscriptions {
            self.activate(index);
        }
        Ok(())
    }

    /// Answers a publisher's offer.
    pub(crate) fn answer(&mut self, sdp: &str) -> Result<String, String> {
        // A client that offers sendrecv would get an answer that promises to send.
        let sdp = sdp::receive_only(&sdp::without_candidates(sdp));
        let offer = SdpOffer::from_sdp_string(&sdp).map_err(|error| error.to_string())?;
        let answer = self.rtc.sdp_api().accept_offer(offer).map_err(|error| error.to_string())?;
        Ok(answer.to_sdp_string())
    }
}

/// The channels LiveKit creates towards a subscriber (`pkg/rtc/transportmanager.go`).
fn data_channels() -> [ChannelConfig; 3] {
    let lossy = |label: &str| ChannelConfig {
        label: label.to_owned(),
        ordered: false,
        reliability: Reliability::MaxRetransmits { retransmits: 0 },
        ..ChannelConfig::default()
    };
    let reliable =
        ChannelConfig { label: "_reliable".to_owned(), ordered: true, ..ChannelConfig::default() };
    [reliable, lossy("_lossy"), lossy("_data_track")]
}
