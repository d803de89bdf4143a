//! The subscriptions of one peer.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use slab::Slab;
use stampede_core::MediaKind;
use str0m::Rtc;
use str0m::media::Mid;
use str0m::rtp::Ssrc;

use super::message::TrackKey;
use super::subscription::Subscription;
use crate::ledger::SubscriberTrackLedger;

/// The room and the row of the ledger of a subscription that ended.
pub(crate) type EndedRow = (Arc<str>, SubscriberTrackLedger);

/// Subscriptions by index and track.
#[derive(Default)]
pub(crate) struct Subscriptions {
    all: Slab<Subscription>,
    /// By the track's index on the worker; those that were removed are not in it.
    by_track: FxHashMap<usize, usize>,
}

impl Subscriptions {
    /// Whether a track is subscribed to.
    pub(crate) fn has(&self, track: usize) -> bool {
        self.by_track.contains_key(&track)
    }

    pub(crate) fn add(&mut self, subscription: Subscription) {
        let track = subscription.track();
        let index = self.all.insert(subscription);
        self.by_track.insert(track, index);
    }

    /// The subscription to a track.
    pub(crate) fn of_track(&mut self, track: usize) -> Option<&mut Subscription> {
        self.all.get_mut(*self.by_track.get(&track)?)
    }

    /// The same, to look at.
    pub(crate) fn to_track(&self, track: usize) -> Option<&Subscription> {
        self.all.get(*self.by_track.get(&track)?)
    }

    /// The subscription whose packets have this SSRC, unless it is to be taken out of the SDP.
    pub(crate) fn of_ssrc(&mut self, ssrc: Ssrc) -> Option<&mut Subscription> {
        let mut live = self.live();
        live.find(|subscription| subscription.has_ssrc(ssrc))
    }

    fn live(&mut self) -> impl Iterator<Item = &mut Subscription> {
        let all = self.all.iter_mut().map(|(_, subscription)| subscription);
        all.filter(|subscription| !subscription.is_removed())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.all.iter().map(|(_, subscription)| subscription)
    }

    /// What is first made of one.
    pub(crate) fn find_map<T>(&self, of: impl FnMut(&Subscription) -> Option<T>) -> Option<T> {
        self.iter().find_map(of)
    }

    /// Ends the subscription to a track; it stays until it is taken out of the SDP. Whether there
    /// was one.
    pub(crate) fn remove(&mut self, track: usize) -> bool {
        let Some(index) = self.by_track.remove(&track) else { return false };
        if let Some(subscription) = self.all.get_mut(index) {
            subscription.set_removed();
        }
        true
    }

    /// Which codecs clients take tracks in that have several, of subscriptions that have not told yet.
    pub(crate) fn take_codecs(&mut self, rtc: &Rtc) -> Vec<(TrackKey, Vec<&'static str>)> {
        let told = self.live().filter_map(|subscription| {
            Some((subscription.offer().track, subscription.take_codecs(rtc)?))
        });
        told.collect()
    }

    /// The subscription to one track becomes one to another, which has this key, and to which there is
    /// none. Whether there was one.
    pub(crate) fn switch(&mut self, from: usize, to: usize, key: TrackKey) -> bool {
        if self.has(to) {
            return false;
        }
        let Some(index) = self.by_track.remove(&from) else { return false };
        if let Some(subscription) = self.all.get_mut(index) {
            subscription.switch(to, key);
            self.by_track.insert(to, index);
        }
        true
    }

    /// Forgets those that are to be taken out of the SDP; their rooms and rows of the ledger, and
    /// m-lines.
    pub(crate) fn forget_removed(&mut self, rtc: &mut Rtc) -> Vec<(EndedRow, Option<Mid>)> {
        let mut removed = Vec::new();
        self.all.retain(|_, subscription| {
            if subscription.is_removed() {
                subscription.take_back(rtc);
                let row = (subscription.room().clone(), subscription.row());
                removed.push((row, subscription.mid()));
            }
            !subscription.is_removed()
        });
        removed
    }

    /// Those that the client has not been told of, with their indices.
    pub(crate) fn new_ones(&mut self) -> impl Iterator<Item = (usize, &mut Subscription)> {
        self.all.iter_mut().filter(|(_, subscription)| subscription.is_new())
    }

    /// The one that an m-line is used for.
    pub(crate) fn bound_to(&self, mid: Mid) -> Option<&Subscription> {
        self.iter().find(|subscription| subscription.mid() == Some(mid))
    }

    /// Uses an m-line that the client has offered to receive by for the first subscription of this
    /// kind that has none. False if there is no such subscription, or str0m sends nothing there.
    pub(crate) fn bind_waiting(&mut self, kind: MediaKind, mid: Mid, rtc: &mut Rtc) -> bool {
        if rtc.direct_api().stream_tx_by_mid(mid, None).is_none() {
            return false;
        }
        let mut waiting = self.new_ones().filter(|(_, new)| new.offer().kind == kind);
        let Some((_, subscription)) = waiting.next() else { return false };
        subscription.set_offered(mid);
        subscription.activate(rtc, subscription.stream_id().into());
        true
    }

    /// Takes their m-lines from subscriptions whose client no longer offers them.
    pub(crate) fn unbind_unless(&mut self, offered: impl Fn(Mid) -> bool, rtc: &mut Rtc) {
        for (_, subscription) in &mut self.all {
            if subscription.mid().is_some_and(|mid| !offered(mid)) {
                subscription.unbind(rtc);
            }
        }
    }

    /// Lets str0m know the streams that are sent for as long as `negotiate` writes or reads a
    /// description.
    pub(crate) fn while_lent<T>(
        &mut self,
        rtc: &mut Rtc,
        negotiate: impl FnOnce(&mut Self, &mut Rtc) -> T,
    ) -> T {
        self.iter().for_each(|subscription| subscription.lend(rtc));
        let done = negotiate(self, rtc);
        self.iter().for_each(|subscription| subscription.take_back(rtc));
        done
    }

    /// The client has answered the offer of this one.
    pub(crate) fn activate(&mut self, index: usize, rtc: &mut Rtc) {
        if let Some(subscription) = self.all.get_mut(index)
            && let Some(media) = subscription.mid().and_then(|mid| rtc.media(mid))
        {
            let cname = media.cname().into();
            subscription.activate(rtc, cname);
        }
    }
}
