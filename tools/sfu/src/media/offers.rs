//! Offers to subscribers, where the SFU offers: by v0.

use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_sdp::{Description, MediaType};
use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::media::Direction;

use super::connection::{SEND_TIME, TRANSPORT_SEQUENCE, is_of_extension};
use super::failure::NegotiationError;
use super::subscriptions::{EndedRow, Subscriptions};

/// Changes are collected this long before they are offered (LiveKit's fast negotiation debounce
/// is 10 ms, `pkg/rtc/transport.go`).
const NEGOTIATION_DEBOUNCE: Duration = Duration::from_millis(10);

/// An offer unanswered for this long ends the peer (LiveKit `negotiationFailedTimeout`).
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(15);
/// How much later it is looked again whether it is answered, where the answer may have come already.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// Where the SFU's offers are: at most one is out, changes wait.
#[derive(Default)]
pub(crate) struct Offers {
    next_id: u32,
    outstanding: Option<Outstanding>,
    /// When to offer the changes that wait.
    due: Option<Instant>,
    channels_offered: bool,
    /// The client can't be reached: nothing is offered, and no answer is late.
    suspended: bool,
    /// The next offer restarts ICE.
    restarts: bool,
}

struct Outstanding {
    offer: Offer,
    pending: SdpPendingOffer,
    subscriptions: Vec<usize>,
    answer_by: Instant,
}

/// An offer to a subscriber.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) id: u32,
    pub(crate) sdp: String,
    pub(crate) mid_to_track_id: Vec<(String, String)>,
    /// The user name fragment it has, if it restarts ICE.
    pub(crate) new_ufrag: Option<String>,
}

impl Offers {
    /// Asks for an offer soon, or at once if it is the first; gives the moment to call
    /// [`offer`](Self::offer).
    pub(crate) fn want(&mut self, now: Instant) -> Instant {
        let debounce = if self.next_id == 0 { Duration::ZERO } else { NEGOTIATION_DEBOUNCE };
        *self.due.get_or_insert(now + debounce)
    }

    /// The client can't be reached until the next [`restart`](Self::restart).
    pub(crate) fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Asks for an offer that restarts ICE. If one that the client may never have got is out, it is
    /// to be sent again first, as LiveKit does (`pkg/rtc/transport.go`, `doICERestart`): what is in
    /// it may be known to the client, so it can be neither taken back nor made anew. One that
    /// restarts ICE itself is enough.
    pub(crate) fn restart(&mut self, now: Instant) -> Option<Offer> {
        let suspended = std::mem::take(&mut self.suspended);
        let out = self.outstanding.as_mut();
        if out.as_ref().is_none_or(|outstanding| outstanding.offer.new_ufrag.is_none()) {
            self.restarts = true;
            self.due = Some(now);
        }
        let again = out.filter(|_| suspended)?;
        again.answer_by = now + NEGOTIATION_TIMEOUT;
        Some(again.offer.clone())
    }

    /// When something has to be done.
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.suspended {
            return None;
        }
        match &self.outstanding {
            Some(outstanding) => Some(outstanding.answer_by),
            None => self.due,
        }
    }

    /// Whether the client has left an offer unanswered for too long.
    pub(crate) fn timed_out(&self, now: Instant) -> bool {
        let late = |o: &Outstanding| now >= o.answer_by;
        !self.suspended && self.outstanding.as_ref().is_some_and(late)
    }

    /// The answer may have come and not been looked at yet: it is not late for a while.
    pub(crate) fn wait_on(&mut self, now: Instant) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.answer_by = now + ANSWER_GRACE;
        }
    }

    /// Makes the offer that is due, if any, together with the ledger rows of subscriptions that
    /// ended.
    pub(crate) fn offer(
        &mut self,
        rtc: &mut Rtc,
        subscriptions: &mut Subscriptions,
        now: Instant,
    ) -> (Option<Offer>, Vec<EndedRow>) {
        let waits = self.suspended || self.outstanding.is_some();
        if waits || self.due.is_none_or(|due| due > now) {
            return (None, Vec::new());
        }
        self.due = None;
        subscriptions.while_lent(rtc, |subscriptions, rtc| self.write(rtc, subscriptions, now))
    }

    fn write(
        &mut self,
        rtc: &mut Rtc,
        subscriptions: &mut Subscriptions,
        now: Instant,
    ) -> (Option<Offer>, Vec<EndedRow>) {
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
            let stream = subscription.stream_id();
            let track = Some(offer.sid.to_string());
            let mid = api.add_media(kind, Direction::SendOnly, Some(stream), track, None);
            subscription.set_offered(mid);
            offered.push(index);
        }
        // Its candidates stay: it has one, and moves nowhere.
        let new_ufrag = std::mem::take(&mut self.restarts).then(|| api.ice_restart(true).ufrag);
        let Some((offer, pending)) = api.apply() else { return (None, ended) };
        let offer = amend(offer.to_sdp_string());
        self.next_id += 1;
        let id = self.next_id;
        let mid_to_track_id = subscriptions
            .iter()
            .filter_map(|s| Some((s.mid()?.to_string(), s.offer().sid.to_string())))
            .collect();
        let offer = Offer { id, sdp: offer, mid_to_track_id, new_ufrag };
        self.outstanding = Some(Outstanding {
            offer: offer.clone(),
            pending,
            subscriptions: offered,
            answer_by: now + NEGOTIATION_TIMEOUT,
        });
        (Some(offer), ended)
    }

    /// Takes the client's answer; false if it is to no offer that is out, so that it is ignored.
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
        // An offer that was sent again is answered twice, and the second answer comes when the next
        // offer is out. Else only one is ever out, and LiveKit logs a different id and goes on
        // (`pkg/rtc/transport.go`).
        let late = |out: &Outstanding| id != 0 && id < out.offer.id;
        let Some(outstanding) = self.outstanding.take_if(|out| !late(out)) else {
            return Ok(false);
        };
        if id != 0 && id != outstanding.offer.id {
            tracing::debug!(id, expected = outstanding.offer.id, "an answer's id");
        }
        // An ICE-lite server has no use for candidates: it learns an address from the first check.
        // An answer that names addresses of another family only would end ICE before it began. Nor has
        // str0m any for most feedback of a client that only receives: it is half of the lines, and
        // reading them half of what an answer takes. What an answer says of transport-cc goes into
        // all later offers, so that stays.
        let sdp = Description::parse(sdp)?.rewrite(|_, line| {
            let feedback = line.starts_with("a=rtcp-fb:") && !line.ends_with(" transport-cc");
            let unused = feedback || line.starts_with("a=candidate:");
            (!unused).then(|| line.into())
        });
        let answer = SdpAnswer::from_sdp_string(&sdp)?;
        let Outstanding { pending, subscriptions: offered, .. } = outstanding;
        subscriptions.while_lent(rtc, |subscriptions, rtc| {
            rtc.sdp_api().accept_answer(pending, answer)?;
            offered.into_iter().for_each(|index| subscriptions.activate(index, rtc));
            Ok(true)
        })
    }
}

/// str0m's offer without what only video has.
fn amend(offer: String) -> String {
    let Ok(description) = Description::parse(&offer) else { return offer };
    description.rewrite(|media, line| {
        let audio = media.is_some_and(|media| media.media_type == MediaType::Audio);
        let of_video = [SEND_TIME, TRANSPORT_SEQUENCE].iter().any(|uri| is_of_extension(line, uri));
        (!(audio && of_video)).then(|| line.into())
    })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::sync::Arc;

    use str0m::change::SdpOffer;
    use str0m::{IceCreds, RtcConfig};

    use super::*;
    use crate::media::connection::ConnectionConfig;
    use crate::media::message::Role;
    use crate::media::subscription::Subscription;
    use crate::options::Congestion;

    #[test]
    fn an_offer_that_comes_again_is_answered_twice_before_ice_is_restarted() {
        let now = Instant::now();
        let crypto = stampede_core::crypto::provider;
        let config = ConnectionConfig::generate(crypto()).unwrap();
        let mut server = config.rtc(Role::Subscriber, IceCreds::new()).build(now);
        let mut client = RtcConfig::new().set_crypto_provider(Arc::new(crypto())).build(now);
        let mut subscriptions = Subscriptions::default();
        let mut offers = Offers::default();
        let mut answer = |offer: &Offer| {
            let offer = SdpOffer::from_sdp_string(&offer.sdp).unwrap();
            client.sdp_api().accept_offer(offer).unwrap().to_sdp_string()
        };
        offers.want(now);
        let first = offers.offer(&mut server, &mut subscriptions, now).0.unwrap();
        offers.suspend();
        assert!(!offers.timed_out(now + NEGOTIATION_TIMEOUT) && offers.next().is_none());
        let again = offers.restart(now).unwrap();
        assert_eq!((again.id, &again.sdp), (first.id, &first.sdp));
        assert!(offers.restart(now).is_none(), "not suspended");
        let answers = [answer(&first), answer(&again)];
        let mut accept = |offers: &mut Offers, server: &mut Rtc, id, sdp: &str| {
            offers.accept_answer(server, &mut subscriptions, id, sdp).unwrap()
        };
        assert!(accept(&mut offers, &mut server, first.id, &answers[0]));
        let mut none = Subscriptions::default();
        let restart = offers.offer(&mut server, &mut none, now).0.unwrap();
        assert!(!accept(&mut offers, &mut server, again.id, &answers[1]), "late");
        offers.suspend();
        let again = offers.restart(now).unwrap();
        assert_eq!(again.new_ufrag, restart.new_ufrag, "one restart is enough");
        assert!(accept(&mut offers, &mut server, restart.id, &answer(&again)));
        let local = server.direct_api().local_ice_credentials().ufrag;
        assert_eq!(Some(local), restart.new_ufrag);
        assert!(offers.offer(&mut server, &mut none, now).0.is_none());
    }

    #[test]
    fn str0m_knows_a_stream_only_while_it_writes_of_it() {
        let now = Instant::now();
        let crypto = stampede_core::crypto::provider;
        let config = ConnectionConfig::generate(crypto()).unwrap();
        let mut server = config.rtc(Role::Subscriber, IceCreds::new()).build(now);
        let mut client = RtcConfig::new().set_crypto_provider(Arc::new(crypto())).build(now);
        let (mut subscriptions, mut offers) = (Subscriptions::default(), Offers::default());
        let mut named: Vec<Vec<String>> = Vec::new();
        let kinds = [MediaKind::Video, MediaKind::Audio, MediaKind::Video, MediaKind::Audio];
        for (track, kind) in kinds.into_iter().enumerate() {
            subscriptions.add(Subscription::example(track, kind));
            let now = offers.want(now);
            let offer = offers.offer(&mut server, &mut subscriptions, now).0.unwrap();
            let of_streams = offer.sdp.lines().filter(|line| line.starts_with("a=ssrc"));
            named.push(of_streams.map(str::to_owned).collect());
            let parsed = SdpOffer::from_sdp_string(&offer.sdp).unwrap();
            let answer = client.sdp_api().accept_offer(parsed).unwrap().to_sdp_string();
            offers.accept_answer(&mut server, &mut subscriptions, offer.id, &answer).unwrap();
            for subscription in subscriptions.iter() {
                let stream = subscription.mid().unwrap();
                assert!(server.direct_api().stream_tx_by_mid(stream, None).is_none());
            }
        }
        for (fewer, more) in named.iter().zip(&named[1..]) {
            assert!(!fewer.is_empty() && more.starts_with(fewer), "{fewer:?} {more:?}");
            assert!(more.len() > fewer.len());
        }
    }

    #[test]
    fn later_offers_want_the_feedback_that_the_first_did() {
        for congestion in [Congestion::Remb, Congestion::Twcc] {
            let now = Instant::now();
            let crypto = stampede_core::crypto::provider;
            let config = ConnectionConfig::generate(crypto()).unwrap().with_congestion(congestion);
            let mut server = config.rtc(Role::Subscriber, IceCreds::new()).build(now);
            let mut client = RtcConfig::new().set_crypto_provider(Arc::new(crypto())).build(now);
            let (mut subscriptions, mut offers) = (Subscriptions::default(), Offers::default());
            let mut wanted: Vec<Vec<String>> = Vec::new();
            for track in 0..3 {
                subscriptions.add(Subscription::example(track, MediaKind::Video));
                let now = offers.want(now);
                let offer = offers.offer(&mut server, &mut subscriptions, now).0.unwrap();
                let sections: Vec<&str> = offer.sdp.split("m=video").skip(1).collect();
                assert_eq!(sections.len(), track + 1);
                for section in sections {
                    let lines = section.lines().filter(|line| line.starts_with("a=rtcp-fb:"));
                    wanted.push(lines.map(str::to_owned).collect());
                }
                let parsed = SdpOffer::from_sdp_string(&offer.sdp).unwrap();
                let answer = client.sdp_api().accept_offer(parsed).unwrap().to_sdp_string();
                offers.accept_answer(&mut server, &mut subscriptions, offer.id, &answer).unwrap();
            }
            let numbered = wanted[0].iter().any(|line| line.ends_with(" transport-cc"));
            assert_eq!(numbered, congestion == Congestion::Twcc);
            assert!(wanted.iter().all(|lines| *lines == wanted[0]), "{wanted:#?}");
        }
    }

    /// What an audio and a video m-line of an offer say.
    fn audio_and_video(congestion: Congestion) -> (String, String) {
        let now = Instant::now();
        let config = ConnectionConfig::generate(stampede_core::crypto::provider()).unwrap();
        let config = config.with_congestion(congestion);
        let mut server = config.rtc(Role::Subscriber, IceCreds::new()).build(now);
        let mut subscriptions = Subscriptions::default();
        for (track, kind) in [MediaKind::Audio, MediaKind::Video].into_iter().enumerate() {
            subscriptions.add(Subscription::example(track, kind));
        }
        let mut offers = Offers::default();
        offers.want(now);
        let now = now + NEGOTIATION_DEBOUNCE;
        let sdp = offers.offer(&mut server, &mut subscriptions, now).0.unwrap().sdp;
        let (audio, video) = sdp.split_once("m=video").unwrap();
        assert!(audio.contains("m=audio"), "{sdp}");
        (audio.to_owned(), video.to_owned())
    }

    #[test]
    fn only_video_says_when_it_was_sent_or_which_packet_it_is() {
        for (congestion, said, unsaid) in [
            (Congestion::Remb, ["abs-send-time", "goog-remb"], "transport"),
            (Congestion::Twcc, ["transport-wide-cc", "transport-cc"], "abs-send-time"),
        ] {
            let (audio, video) = audio_and_video(congestion);
            assert!(said.iter().all(|said| !audio.contains(said)), "{audio}");
            assert!(said.iter().all(|said| video.contains(said)), "{video}");
            assert!(!video.contains(unsaid) && !audio.contains(unsaid), "{video}");
        }
        let (_, video) = audio_and_video(Congestion::None);
        assert!(!video.contains("abs-send-time") && !video.contains("transport"), "{video}");
    }
}
