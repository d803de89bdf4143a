//! Descriptions and candidates, from signalling and for it.

use std::time::Instant;

use stampede_sdp::{Description, Slots};
use str0m::change::SdpOffer;
use str0m::net::Protocol;
use str0m::{Candidate, Rtc};

use super::offer::Offering;
use super::{MediaFailure, NegotiateError, Peer, answer};

impl Peer {
    /// Takes the server's offer (of who only receives, unless it offers itself) and returns the answer,
    /// which only receives whatever direction is offered. Streams that the offer no longer names are
    /// closed, also where another track took over their m-line. `mid_to_track_id` is LiveKit's, and may
    /// be empty.
    pub fn accept_offer(
        &mut self,
        now: Instant,
        sdp: &str,
        mid_to_track_id: &[(String, String)],
    ) -> Result<String, NegotiateError> {
        let (Some(receiving), None) = (&mut self.receiving, &self.offering) else {
            return Err(NegotiateError::WrongRole("who offers takes no offers"));
        };
        let offer = parse_description("offer", sdp)?;
        let transport = str0m_answer(&mut self.rtc, &answer::transport_of(&offer))?;
        self.answers += 1;
        let answer =
            answer::answer(&offer, &transport, self.answers, receiving.feedback, receiving.codecs)
                .map_err(|error| NegotiateError::unreadable("answer", &error))?;
        receiving.negotiated(now, &offer, mid_to_track_id, answer.agreed, &mut self.outbox);
        (self.negotiated, self.described) = (true, true);
        self.remote_described(now, &offer);
        Ok(answer.text)
    }

    /// Makes an offer: of all m-lines to receive by over LiveKit's single connection, those that
    /// `added` names among them, and, once `publish` was true, of all tracks that it sends. From the
    /// first on the peer takes no offers.
    pub fn create_offer(
        &mut self,
        now: Instant,
        added: Slots,
        publish: bool,
    ) -> Result<String, NegotiateError> {
        if self.offering.is_none() && self.negotiated {
            return Err(NegotiateError::WrongRole("who answered makes no offers"));
        }
        let new = self.new_offering();
        let offering = self.offering.get_or_insert_with(|| Box::new(new));
        let publishing = self.publishing.as_deref_mut();
        let offer = offering.offer(&mut self.rtc, added, publish, publishing)?;
        self.described = true;
        self.advance(now);
        Ok(offer)
    }

    /// What its offers begin from.
    pub(super) fn new_offering(&self) -> Offering {
        // The congestion feedback that it gives on what it receives, if it receives, and what it takes.
        let receiving = self.receiving.as_ref();
        let gives = receiving.map(|receiving| (receiving.feedback, receiving.codecs));
        Offering::new(gives, self.channels.is_some() || self.rpc.is_some())
    }

    /// Makes an offer that restarts ICE and changes nothing else (RFC 8445 §9), if we offer. What
    /// was negotiated goes on while it is open.
    pub fn restart_ice(&mut self, now: Instant) -> Result<String, NegotiateError> {
        let Some(offering) = &mut self.offering else {
            let why = "the server restarts the ICE of who answered";
            return Err(NegotiateError::WrongRole(why));
        };
        let publishing = self.publishing.as_deref_mut();
        let offer = offering.restart_ice(&mut self.rtc, publishing)?;
        self.advance(now);
        Ok(offer)
    }

    /// Takes the server's answer to the latest offer. With [`NegotiateError::TrackRefused`] the other
    /// tracks are sent all the same. Streams that it no longer names are closed, also where another
    /// track took over their m-line. `mid_to_track_id` is LiveKit's, and may be empty.
    pub fn accept_answer(
        &mut self,
        now: Instant,
        sdp: &str,
        mid_to_track_id: &[(String, String)],
    ) -> Result<(), NegotiateError> {
        let answer = parse_description("answer", sdp)?;
        let offering = self.offering.as_mut().ok_or(NegotiateError::NoOffer)?;
        if let Err(error) = offering.accept(&mut self.rtc, &answer) {
            self.mind_life(&error);
            return Err(error);
        }
        let mut accepted = Ok(());
        if let Some(publishing) = &mut self.publishing {
            accepted = publishing.answered(&mut self.rtc, &answer, &mut self.outbox);
        }
        if self.connected {
            self.start_publishing(now);
        }
        if let Some(receiving) = &mut self.receiving {
            let agreed = answer::agreed_by(&answer);
            receiving.negotiated(now, &answer, mid_to_track_id, agreed, &mut self.outbox);
        }
        self.negotiated = true;
        self.remote_described(now, &answer);
        accepted
    }

    /// Takes a trickled candidate, `candidate:…`. Those that can't be used (host names, the
    /// empty end-of-candidates line) are passed over, and remembered for
    /// [`MediaFailure::NoCandidatePair`].
    pub fn add_remote_candidate(
        &mut self,
        now: Instant,
        candidate_line: &str,
    ) -> Result<(), NegotiateError> {
        let line = candidate_line.trim();
        let line = line.strip_prefix("a=").unwrap_or(line);
        if line.is_empty() {
            return Ok(());
        }
        let Some(candidate) = stampede_sdp::Candidate::parse(line) else {
            let reason = "it has too few words".to_owned();
            return Err(NegotiateError::Parse { what: "candidate", reason });
        };
        let is_remembered = self.candidates.remote(self.now.max(now), &candidate);
        let is_usable = candidate.is_udp() || candidate.is_tcp();
        let is_usable = is_usable && candidate.socket_address().is_some();
        if !is_remembered || !is_usable {
            return Ok(());
        }
        let candidate = Candidate::from_sdp_string(line)
            .map_err(|error| NegotiateError::unreadable("candidate", &error))?;
        // Pairs are of one protocol, so those of which we have no candidate are not tried.
        if matches!(candidate.proto(), Protocol::Udp | Protocol::Tcp) {
            self.rtc.add_remote_candidate(candidate);
            self.advance(now);
        }
        Ok(())
    }

    /// Some descriptions that str0m can't apply end the connection (no fingerprint).
    fn mind_life(&mut self, error: &NegotiateError) {
        if let NegotiateError::Apply { reason, .. } = error {
            self.transport.errors += 1;
            if !self.rtc.is_alive() {
                self.end(MediaFailure::Broke { reason: reason.clone() });
            }
        }
    }
}

/// str0m's answer to an offer.
fn str0m_answer(rtc: &mut Rtc, offer: &str) -> Result<String, NegotiateError> {
    let offer = SdpOffer::from_sdp_string(offer)
        .map_err(|error| NegotiateError::unreadable("offer", &error))?;
    let answer = rtc
        .sdp_api()
        .accept_offer(offer)
        .map_err(|e| NegotiateError::Apply { what: "offer", reason: e.to_string() })?;
    Ok(answer.to_sdp_string())
}

fn parse_description<'a>(
    what: &'static str,
    sdp: &'a str,
) -> Result<Description<'a>, NegotiateError> {
    Description::parse(sdp).map_err(|error| NegotiateError::unreadable(what, &error))
}
