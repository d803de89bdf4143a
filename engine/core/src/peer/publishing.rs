//! The sending half of a peer: tracks, their schedules, and what was sent of them.

mod adapt;
pub(super) mod descriptor;
mod direct;
mod gate;
mod kept;
mod layers;
mod packet;
mod told;
mod track;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_sdp::Description;
use str0m::Rtc;
use str0m::change::SdpApi;
use str0m::media::{self, Direction, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::stats::MediaEgressStats;

use super::PACKETS_PER_DRAIN_MAX;
use super::outbox::Outbox;
use crate::rtcp;
use crate::srtp::{KeySlot, SrtcpOpener};
use crate::{
    Arrival, BackupTrack, MediaKind, NegotiateError, PeerEvent, PeerOptions, PeerUpdate,
    PublishCounters, PublishReport, PublishTrack,
};
pub(super) use adapt::START_BITRATE_BPS;
use adapt::Uplink;
use direct::Direct;
pub(super) use direct::Way;
use told::Told;
use track::{Sender, Stamping, TxLayer, TxTrack};

/// Most packets that the server asks for between two drains. Further ones are not sent again, and counted
/// as dropped; a worker that drains after each batch never gets there.
const RESENDS_MAX: usize = 4_096;

/// All tracks that a peer sends.
pub(super) struct Publishing {
    tracks: Vec<TxTrack>,
    retransmit_packets_max: usize,
    /// They were offered.
    offered: bool,
    /// What the way to the server is good for, if that is obeyed.
    uplink: Option<Uplink>,
    /// Video frames carry LiveKit's packet trailer.
    packet_trailer: bool,
    /// The connection has ended: no media follows.
    ended: bool,
    /// Where DTLS leaves the keys.
    keys: KeySlot,
    /// What sends, unless str0m does or nothing may flow yet.
    direct: Option<Box<Direct>>,
    /// Where str0m sends: what the server's RTCP is looked at with before str0m reads it.
    opener: Option<Box<SrtcpOpener>>,
    /// Packets that the server asks for: of which track and layer, and their sequence numbers.
    resends: VecDeque<(usize, usize, u16)>,
    /// When the last frame left.
    last_frame: Option<Instant>,
    /// The next frame that leaves is to be told; both clocks when that was asked.
    awaited_since: Option<Arrival>,
}

impl std::fmt::Debug for Publishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing").field("tracks", &self.tracks).finish_non_exhaustive()
    }
}

impl Publishing {
    pub(super) fn new(
        tracks: Vec<PublishTrack>,
        backups: Vec<BackupTrack>,
        options: &PeerOptions,
        keys: KeySlot,
    ) -> Self {
        let backups = backups.into_iter().map(|backup| TxTrack {
            backup_of: Some(Arc::from(backup.of)),
            held: true,
            ..TxTrack::new(backup.track)
        });
        let tracks = tracks.into_iter().map(TxTrack::new).chain(backups).collect();
        Self {
            tracks,
            retransmit_packets_max: options.retransmit_cache_packets_max,
            uplink: options.adapt.then(Uplink::default),
            offered: false,
            packet_trailer: false,
            ended: false,
            keys,
            direct: None,
            opener: None,
            resends: VecDeque::new(),
            last_frame: None,
            awaited_since: None,
        }
    }

    /// What it sends does not go through str0m.
    pub(super) fn is_direct(&self) -> bool {
        self.uplink.is_none()
    }

    /// True once all tracks that are wanted were offered.
    pub(super) fn is_offered(&self) -> bool {
        self.offered && !self.tracks.iter().any(|track| !track.held && track.mid.is_none())
    }

    /// True while tracks were offered and no answer has come.
    pub(super) fn is_unanswered(&self) -> bool {
        self.tracks.iter().any(|track| track.mid.is_some() && !track.answered)
    }

    /// Adds the tracks that are wanted, and that no answer has come to, to what is offered.
    pub(super) fn offer(&mut self, changes: &mut SdpApi<'_>) {
        self.offered = true;
        for track in self.tracks.iter_mut().filter(|track| !track.held && !track.answered) {
            let kind = match track.kind {
                MediaKind::Audio => media::MediaKind::Audio,
                MediaKind::Video => media::MediaKind::Video,
            };
            let rids: Vec<_> = track.layers.iter().filter_map(|layer| layer.rid).collect();
            let simulcast = (!rids.is_empty()).then(|| {
                let send = rids.into_iter().map(SimulcastLayer::new).collect();
                Simulcast { send, recv: Vec::new() }
            });
            let (stream, cid) = (Some("stampede".to_owned()), Some(track.cid.to_string()));
            track.mid = Some(changes.add_media(kind, Direction::SendOnly, stream, cid, simulcast));
        }
    }

    /// Mids of the audio tracks that were offered and are not to be redundant.
    pub(super) fn plain_audio(&self) -> Vec<String> {
        let plain = |track: &&TxTrack| track.kind == MediaKind::Audio && !track.audio.red;
        self.tracks.iter().filter(plain).filter_map(|track| Some(track.mid?.to_string())).collect()
    }

    /// Learns SSRCs and payload types from the first accepted answer to an offer of each. Tracks that
    /// were accepted are sent even if another one was refused, or their backup, which is told. Later
    /// answers, to a restart of ICE or to further m-lines to receive by, change nothing of this; setting
    /// up a layer again would empty its retransmission cache.
    pub(super) fn answered(
        &mut self,
        rtc: &mut Rtc,
        answer: &Description<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), NegotiateError> {
        let mut result = Ok(());
        let is_direct = self.is_direct();
        let new = self.tracks.iter_mut().filter(|track| track.mid.is_some() && !track.answered);
        for track in new {
            track.answered = true;
            let learned = track.learn(rtc, self.retransmit_packets_max, is_direct);
            if let (Err(reason), Some(_)) = (learned, &track.backup_of) {
                track.held = true;
                outbox.event(PeerEvent::BackupRefused { cid: Arc::clone(&track.cid), reason });
                continue;
            }
            if let Err(reason) = learned {
                let cid = track.cid.to_string();
                result = Err(NegotiateError::TrackRefused { cid, reason });
            }
            track.agree_on_audio(rtc, answer);
        }
        result
    }

    /// Media may flow.
    ///
    /// # Errors
    /// The keys that DTLS left are of no use.
    pub(super) fn start(&mut self, now: Instant) -> Result<(), String> {
        if self.ended {
            return Ok(());
        }
        if self.is_direct() && self.direct.is_none() {
            let keying = self.keys.get().ok_or("DTLS handed out no SRTP keys")?;
            let direct = Direct::new(keying).map_err(|error| error.to_string())?;
            self.direct = Some(Box::new(direct));
        }
        for track in &mut self.tracks {
            track.start(now);
        }
        Ok(())
    }

    /// The connection has ended: nothing more is due.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.tracks.iter_mut().for_each(|track| track.schedule = None);
        // Nobody is left to get them.
        self.resends.clear();
    }

    /// When the next frame is due, once media may flow.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.tracks.iter().filter_map(TxTrack::next_due).min()
    }

    /// More was asked for than a drain sends again.
    pub(super) fn has_resends(&self) -> bool {
        !self.resends.is_empty()
    }

    /// There is something to send.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.has_resends() || self.next_due().is_some_and(|due| due <= now)
    }

    /// The next frame that leaves is to be told.
    pub(super) fn await_frame(&mut self, here: Arrival) {
        self.awaited_since = Some(here);
    }

    /// When the last frame left.
    pub(super) fn last_frame(&self) -> Option<Instant> {
        self.last_frame
    }

    fn frame_left(&mut self, now: Instant, outbox: &mut Outbox) {
        self.last_frame = Some(now);
        if let Some(asked) = self.awaited_since.take() {
            let since = now.saturating_duration_since(asked.instant);
            let unix_ns = asked.unix_ns + since.as_nanos() as u64;
            outbox.event(PeerEvent::NextFrame { at: Arrival { instant: now, unix_ns } });
        }
    }

    /// Sends packets that the server asked for and those of all frames due, of either up to
    /// [`PACKETS_PER_DRAIN_MAX`] and the rest of a frame, beside str0m. `has_way`: what is sent leaves
    /// this machine for the server.
    pub(super) fn send_due(
        &mut self,
        now: Instant,
        clock: Option<Arrival>,
        has_way: bool,
        mut way: Way<'_>,
    ) {
        let Some(mut direct) = self.direct.take() else { return };
        let since_epoch = clock.map_or(Duration::ZERO, |clock| track::unix(now, clock));
        let resent = self.resends.len().min(PACKETS_PER_DRAIN_MAX);
        for (track, layer, sequence) in self.resends.drain(..resent) {
            let (track, at) = (&mut self.tracks[track], (now, since_epoch));
            track.send_again(layer, sequence, at, &mut direct, &mut way);
        }
        self.write_frames(now, clock, has_way, &mut Sender::Direct(&mut direct, &mut way));
        self.direct = Some(direct);
    }

    /// Has str0m send the packets of all frames due, as far as [`Self::send_due`] does; true if there
    /// were any.
    pub(super) fn pace_due(
        &mut self,
        now: Instant,
        clock: Option<Arrival>,
        has_way: bool,
        (rtc, outbox): (&mut Rtc, &mut Outbox),
    ) -> bool {
        self.write_frames(now, clock, has_way, &mut Sender::Paced(rtc, outbox))
    }

    fn write_frames(
        &mut self,
        now: Instant,
        clock: Option<Arrival>,
        has_way: bool,
        sender: &mut Sender<'_, '_>,
    ) -> bool {
        let stamping = Stamping { clock, packet_trailer: self.packet_trailer };
        let (mut packets, mut frames) = (0, 0);
        while packets < PACKETS_PER_DRAIN_MAX {
            let dues = self.tracks.iter_mut().filter_map(|track| Some((track.next_due()?, track)));
            let earliest = dues.filter(|(due, _)| *due <= now).min_by_key(|(due, _)| *due);
            let Some((_, track)) = earliest else { break };
            let written = track.write_frame(now, stamping, sender);
            frames += usize::from(written.is_some());
            // One that is withheld counts too, so that this ends.
            packets += written.unwrap_or(0).max(1);
        }
        if has_way && frames > 0 {
            self.frame_left(now, sender.outbox());
        }
        packets > 0
    }

    /// Takes an SRTCP datagram of the server's. False if it is str0m's to deal with, too.
    pub(super) fn hears(&mut self, datagram: &[u8], outbox: &mut Outbox) -> bool {
        let Some(direct) = self.direct.as_ref().filter(|_| !self.ended) else { return false };
        // What is not authentic is not for str0m either.
        let Some(compound) = direct.open(datagram) else { return true };
        told::read(&compound, |told| self.told(told, outbox))
    }

    /// Whether an SRTCP datagram is one that str0m can read: a report of arrivals with an empty run would
    /// make it panic ([`rtcp::are_arrivals_sound`]). Only where str0m sends does it read these; what is not
    /// authentic it leaves.
    pub(super) fn is_for_str0m(&mut self, datagram: &[u8]) -> bool {
        if self.is_direct() {
            return true;
        }
        if self.opener.is_none() {
            let opener = self.keys.get().and_then(|keying| keying.srtcp_opener().ok());
            self.opener = opener.map(Box::new);
        }
        let Some(opener) = &self.opener else { return false };
        let Some((compound, _)) = opener.open(datagram) else { return false };
        rtcp::packets(&compound).all(rtcp::are_arrivals_sound)
    }

    fn told(&mut self, told: Told, outbox: &mut Outbox) {
        let (Told::Report { ssrc, .. }
        | Told::Nack { ssrc }
        | Told::Missing { ssrc, .. }
        | Told::Keyframe { ssrc }) = told;
        let place = self.tracks.iter().enumerate().find_map(|(track, own)| {
            let is_it = |layer: &TxLayer| layer.ssrc.is_some_and(|own| *own == ssrc);
            Some((track, own.layers.iter().position(is_it)?))
        });
        let Some((track, index)) = place else { return };
        let layer = &mut self.tracks[track].layers[index];
        match told {
            Told::Report { lost, highest, .. } => {
                if let Some(stream) = &mut layer.stream {
                    stream.reported();
                }
                // The one of those sent whose low 32 bits these are; the newest if none of them has.
                let newest = layer.next_sequence.saturating_sub(1);
                let behind = (newest as u32).wrapping_sub(highest) as i32;
                let behind = u64::try_from(behind).unwrap_or(0);
                // Below 0 there were duplicates, so nothing was lost.
                layer.reported(lost.max(0) as u64, newest.saturating_sub(behind));
            }
            Told::Nack { .. } => layer.counted.nack_received += 1,
            Told::Missing { first, following, .. } => {
                for sequence in rtcp::missing(first, following) {
                    match self.resends.len() < RESENDS_MAX {
                        true => self.resends.push_back((track, index, sequence)),
                        false => outbox.dropped += 1,
                    }
                }
            }
            Told::Keyframe { .. } => self.tracks[track].keyframe_requested(index),
        }
    }

    /// What str0m's SRTCP is to be sent as: with sender reports that say what was sent here at `now`.
    /// `None`, which never happens, if it is not sealed with these keys.
    pub(super) fn fill_in(&self, datagram: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        let Some(direct) = &self.direct else { return Some(datagram) };
        direct.fill_in(datagram, |ssrc| {
            let layers = self.tracks.iter().flat_map(|track| &track.layers);
            let mut of_it = layers.filter(|layer| layer.ssrc.is_some_and(|own| *own == ssrc));
            let layer = of_it.next()?;
            Some(layer.stream.as_ref()?.info(layer.clip.clip.clock_rate, now))
        })
    }

    /// What str0m says the server wants a keyframe of.
    pub(super) fn keyframe_requested(&mut self, mid: Mid, rid: Option<Rid>) {
        if self.direct.is_some() {
            // Heard already.
            return;
        }
        let Some(track) = self.tracks.iter_mut().find(|track| track.mid == Some(mid)) else {
            return;
        };
        let same = |layer: &TxLayer| match (layer.rid, rid) {
            (Some(mine), Some(theirs)) => *theirs == *mine,
            (None, None) => true,
            _ => false,
        };
        let Some(index) = track.layers.iter().position(same) else { return };
        track.keyframe_requested(index);
    }

    /// What signalling knows of our tracks.
    pub(super) fn update(&mut self, update: &PeerUpdate) {
        match update {
            PeerUpdate::PacketTrailer => self.packet_trailer = true,
            PeerUpdate::LayersWanted { cid, wanted, backup, obey } => {
                for track in &mut self.tracks {
                    if *track.cid == **cid {
                        track.layers_wanted(*wanted, *obey);
                    } else if track.backup_of.as_deref() == Some(&**cid) {
                        track.layers_wanted(*backup, *obey);
                    }
                }
            }
            PeerUpdate::BackupWanted { cid } => {
                if let Some(track) = self.tracks.iter_mut().find(|track| *track.cid == **cid) {
                    track.held = false;
                }
            }
            PeerUpdate::PublishMuted { cid, muted } => {
                let is_it = |track: &&mut TxTrack| {
                    *track.cid == **cid || track.backup_of.as_deref() == Some(&**cid)
                };
                self.tracks.iter_mut().filter(is_it).for_each(|track| track.set_muted(*muted));
            }
            PeerUpdate::Track { .. }
            | PeerUpdate::Muted { .. }
            | PeerUpdate::Paused { .. }
            | PeerUpdate::Leaving
            | PeerUpdate::Moved
            | PeerUpdate::Met { .. }
            | PeerUpdate::Parted { .. }
            | PeerUpdate::DataTrackPublished { .. }
            | PeerUpdate::TrackGone { .. } => {}
        }
    }

    /// What str0m has counted of what it sends.
    pub(super) fn set_stats(&mut self, stats: &MediaEgressStats) {
        let layers = self.tracks.iter_mut().filter(|track| track.mid == Some(stats.mid));
        let mut layers = layers.flat_map(|track| &mut track.layers);
        let Some(layer) = layers.find(|layer| layer.rid == stats.rid.as_deref()) else { return };
        let (nacks, ..) = layer.before_window;
        layer.counted.nack_received = stats.nacks.saturating_sub(nacks);
        let Some(remote) = &stats.remote else { return };
        // A signed 24-bit count (RFC 3550 §6.4.1) that str0m hands on unsigned; below 0 means
        // duplicates, so nothing lost.
        let lost = if remote.packets_lost >= 1 << 23 { 0 } else { remote.packets_lost };
        layer.reported(lost, *remote.maximum_sequence_number);
    }

    /// An RTP packet of str0m's of this SSRC left.
    pub(super) fn sent(&mut self, ssrc: u32) {
        let mut layers = self.tracks.iter_mut().flat_map(|track| &mut track.layers);
        if let Some(layer) = layers.find(|layer| layer.rtx.is_some_and(|rtx| *rtx == ssrc)) {
            layer.counted.retransmitted += 1;
        }
    }

    pub(super) fn begin_measuring(&mut self) {
        for layer in self.tracks.iter_mut().flat_map(|track| &mut track.layers) {
            let (nacks, lost, covered) = &mut layer.before_window;
            *nacks += layer.counted.nack_received;
            *lost += layer.counted.upstream_lost.unwrap_or(0);
            *covered += layer.counted.upstream_expected.unwrap_or(0);
            layer.counted = PublishCounters::default();
        }
    }

    pub(super) fn counters(&self) -> PublishCounters {
        let mut sum = PublishCounters::default();
        let tracks = self.tracks.iter().filter(|track| !track.held);
        for layer in tracks.flat_map(|track| &track.layers) {
            sum.merge(&layer.counted);
        }
        sum.tracks = self.tracks.iter().filter(|track| !track.held).count() as u64;
        sum
    }

    pub(super) fn reports(&self) -> Vec<PublishReport> {
        let report = |track: &TxTrack, layer: &TxLayer| PublishReport {
            cid: track.cid.to_string(),
            kind: track.kind,
            rid: layer.rid,
            ssrc: layer.ssrc.map(|ssrc| *ssrc),
            counters: PublishCounters { tracks: 1, ..layer.counted },
        };
        let tracks = self.tracks.iter().filter(|track| !track.held);
        tracks
            .flat_map(|track| track.layers.iter().map(move |layer| report(track, layer)))
            .collect()
    }
}
