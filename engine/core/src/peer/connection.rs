//! What str0m says of the connection: ICE, DTLS, and what it sends.

use std::time::{Duration, Instant};

use str0m::{Event, IceConnectionState, Input, Output};

use super::candidates::is_answer;
use super::receiving::is_rtcp;
use super::{MediaFailure, Peer, PeerEvent};
use crate::{PathKind, Sample};

/// When str0m is asked again after an error, if nothing comes before.
const RETRY_AFTER_ERROR: Duration = Duration::from_millis(200);
/// Outputs taken from str0m after one input; a bound against an endless loop, far above need.
const OUTPUTS_MAX: usize = 100_000;

impl Peer {
    /// Moves str0m's time on and takes what it has to say.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if let Err(error) = self.rtc.handle_input(Input::Timeout(self.now)) {
            self.failed(&error);
        }
        self.nominated.may_change(self.now);
        self.poll();
        self.mind_candidates();
    }

    pub(super) fn failed(&mut self, error: &str0m::RtcError) {
        self.transport.errors += 1;
        tracing::debug!(local = %self.local, %error, "str0m");
        if !self.rtc.is_alive() {
            let reason = error.to_string();
            self.end(match self.ice_worked {
                true => self.failure(reason),
                false => MediaFailure::Broke { reason },
            });
        }
    }

    /// The connection is over: no media follows its end.
    pub(super) fn end(&mut self, failure: MediaFailure) {
        if let Some(publishing) = &mut self.publishing {
            publishing.end();
        }
        self.disconnect(failure);
    }

    pub(super) fn disconnect(&mut self, failure: MediaFailure) {
        if !std::mem::replace(&mut self.disconnected, true) {
            self.outbox.event(PeerEvent::Disconnected { failure: Box::new(failure) });
        }
    }

    /// Drains str0m into the outbox.
    pub(super) fn poll(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.wake = self.candidates_at.map_or(at, |due| due.min(at));
                    return;
                }
                // Of what str0m knows no media of. Under one key each of our two sources of SRTCP has
                // SSRCs of its own: see `SrtcpSealer`.
                Ok(Output::Transmit(transmit))
                    if self.publishing.is_none() && is_rtcp(&transmit.contents) => {}
                Ok(Output::Transmit(transmit)) => {
                    if is_answer(&transmit.contents) {
                        self.candidates.answered(transmit.destination);
                    }
                    self.transmit_beside(transmit);
                }
                Ok(Output::Event(event)) => self.event(event),
                Err(error) => {
                    self.failed(&error);
                    // One error doesn't end the connection; try again with the next input.
                    self.wake = self.now + RETRY_AFTER_ERROR;
                    return;
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::IceConnectionStateChange(state) => self.ice_state(state),
            Event::Connected => {
                self.connected = true;
                self.candidates.connected(self.now, self.outbox.via);
                self.candidates_at = self.candidates.tidy_at();
                self.start_receiving();
                let path = self.path();
                if path != PathKind::Udp {
                    self.outbox.event(PeerEvent::Path { path });
                }
                self.outbox.event(PeerEvent::Connected);
                self.start_publishing(self.now);
            }
            Event::Closed => {
                let failure = match self.connected {
                    true => MediaFailure::Closed,
                    false => self.failure("the server closed the connection".to_owned()),
                };
                self.end(failure);
            }
            Event::KeyframeRequest(request) => {
                if let Some(publishing) = &mut self.publishing {
                    publishing.keyframe_requested(request.mid, request.rid);
                }
            }
            Event::MediaEgressStats(stats) => {
                if let Some(publishing) = &mut self.publishing {
                    publishing.set_stats(&stats);
                }
            }
            Event::EgressBitrateEstimate(estimate) => {
                if let Some(publishing) = &mut self.publishing
                    && let Some(bitrate_bps) = publishing.estimated(estimate, &mut self.rtc)
                {
                    self.outbox.sample(Sample::UplinkEstimate { bitrate_bps });
                }
            }
            Event::ChannelOpen(id, label) => {
                if let Some(channels) = &mut self.channels {
                    channels.opened(self.now, id, &label);
                }
                if let Some(rpc) = &mut self.rpc {
                    rpc.opened(id, &label);
                }
                if let Some(handover) = &mut self.handover {
                    handover.opened(id, &label);
                }
            }
            Event::ChannelClose(id) => {
                if let Some(channels) = &mut self.channels {
                    channels.closed(id);
                }
                if let Some(rpc) = &mut self.rpc {
                    rpc.closed(id);
                }
            }
            Event::ChannelData(data) => {
                let called = self
                    .rpc
                    .as_mut()
                    .is_some_and(|rpc| rpc.received(self.now, self.clock, &data, &mut self.outbox));
                let data = match &mut self.handover {
                    _ if called => None,
                    Some(handover) => handover.take(self.clock, data),
                    None => Some(data),
                };
                if let Some((channels, data)) = self.channels.as_mut().zip(data) {
                    channels.received(self.clock, &data, &mut self.outbox);
                }
            }
            _ => {}
        }
    }

    /// Begins to receive, with the keys that DTLS left.
    fn start_receiving(&mut self) {
        let Some(receiving) = &mut self.receiving else { return };
        let ssrc = *self.rtc.direct_api().new_ssrc();
        if let Err(reason) = receiving.start(ssrc, self.now) {
            self.transport.errors += 1;
            self.disconnect(MediaFailure::Broke { reason });
        }
    }

    /// Begins to send, with the keys that DTLS left.
    pub(super) fn start_publishing(&mut self, now: Instant) {
        let Some(publishing) = &mut self.publishing else { return };
        if let Err(reason) = publishing.start(now) {
            self.transport.errors += 1;
            self.disconnect(MediaFailure::Broke { reason });
        }
    }

    fn ice_state(&mut self, state: IceConnectionState) {
        match state {
            IceConnectionState::Connected | IceConnectionState::Completed => {
                self.candidates.checking = false;
                (self.ice_worked, self.ice_failed) = (true, false);
                if !std::mem::replace(&mut self.ice_connected, true) {
                    self.disconnected = false;
                    self.outbox.event(PeerEvent::IceConnected);
                }
            }
            IceConnectionState::Disconnected if self.candidates.checking => {
                // Another candidate or another address of ours may still do; see
                // `mind_candidates`.
                self.ice_failed = true;
                self.candidates_at = Some(self.now);
            }
            IceConnectionState::Disconnected => self.ice_lost(),
            IceConnectionState::Checking => self.ice_failed = false,
            IceConnectionState::New => {}
        }
    }
}
