//! Offers to subscribers and answers to publishers.

use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::media::Direction;

use super::failure::NegotiationError;
use super::subscriptions::Subscriptions;
use crate::ledger::SubscriberTrackLedger;
use crate::sdp;

/// Changes are collected this long before they are offered (LiveKit's fast negotiation debounce
/// is 10 ms, `pkg/rtc/transport.go`).
pub(crate) const NEGOTIATION_DEBOUNCE: Duration = Duration::from_millis(10);

/// An offer unanswered for this long ends the peer (LiveKit `negotiationFailedTimeout`).
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(15);

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

/// An offer to a subscriber.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) id: u32,
    pub(crate) sdp: String,
    pub(crate) mid_to_track_id: Vec<(String, String)>,
}

impl Negotiation {
    /// Asks for an offer soon; gives the moment to call [`offer`](Self::offer).
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

    /// Makes the offer that is due, if any, together with the ledger rows of subscriptions that
    /// ended.
    pub(crate) fn offer(
        &mut self,
        rtc: &mut Rtc,
        subscriptions: &mut Subscriptions,
        now: Instant,
    ) -> (Option<Offer>, Vec<SubscriberTrackLedger>) {
        if self.outstanding.is_some() || self.due.is_none_or(|due| due > now) {
            return (None, Vec::new());
        }
        self.due = None;
        let (ended, mids): (Vec<_>, Vec<_>) = subscriptions.forget_removed(rtc).into_iter().unzip();
        let mut api = rtc.sdp_api();
        if !self.channels_offered {
            self.channels_offered = true;
            for config in data_channels() {
                api.add_channel_with_config(config);
            }
        }
        for mid in mids.into_iter().flatten() {
            api.set_direction(mid, Direction::Inactive);
        }
        let mut offered = Vec::new();
        for (index, subscription) in subscriptions.new_ones() {
            let offer = subscription.offer();
            let kind = match offer.kind {
                MediaKind::Audio => str0m::media::MediaKind::Audio,
                MediaKind::Video => str0m::media::MediaKind::Video,
            };
            let stream = format!("{}|{}", offer.publisher_sid, offer.sid);
            let track = Some(offer.sid.to_string());
            let mid = api.add_media(kind, Direction::SendOnly, Some(stream), track, None);
            subscription.set_offered(mid);
            offered.push(index);
        }
        let Some((offer, pending)) = api.apply() else { return (None, ended) };
        self.next_id += 1;
        let id = self.next_id;
        self.outstanding = Some(Outstanding { id, pending, subscriptions: offered, sent_at: now });
        let mid_to_track_id = subscriptions
            .iter()
            .filter_map(|s| Some((s.mid()?.to_string(), s.offer().sid.to_string())))
            .collect();
        (Some(Offer { id, sdp: offer.to_sdp_string(), mid_to_track_id }), ended)
    }

    /// Takes the client's answer; false if no offer is out, so that it is ignored.
    ///
    /// # Errors
    /// The answer can't be used, and the negotiation can't go on.
    pub(crate) fn accept_answer(
        &mut self,
        rtc: &mut Rtc,
        subscriptions: &mut Subscriptions,
        id: u32,
        sdp: &str,
    ) -> Result<bool, NegotiationError> {
        let Some(outstanding) = self.outstanding.take() else { return Ok(false) };
        // LiveKit logs a different id and goes on (`pkg/rtc/transport.go`); only one offer is
        // ever out, so the answer can be to no other.
        if id != 0 && id != outstanding.id {
            tracing::debug!(id, expected = outstanding.id, "an answer's id");
        }
        let answer = SdpAnswer::from_sdp_string(&sdp::without_candidates(sdp))?;
        rtc.sdp_api().accept_answer(outstanding.pending, answer)?;
        for index in outstanding.subscriptions {
            subscriptions.activate(index, rtc);
        }
        Ok(true)
    }
}

/// Answers a publisher's offer.
///
/// # Errors
/// The offer can't be used.
pub(crate) fn answer(rtc: &mut Rtc, sdp: &str) -> Result<String, NegotiationError> {
    // A client that offers sendrecv would get an answer that promises to send.
    let sdp = sdp::receive_only(&sdp::without_candidates(sdp));
    let offer = SdpOffer::from_sdp_string(&sdp)?;
    Ok(rtc.sdp_api().accept_offer(offer)?.to_sdp_string())
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
