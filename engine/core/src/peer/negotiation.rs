//! Descriptions and candidates, from signalling and for it.

use std::time::Instant;

use stampede_sdp::Description;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::net::Protocol;
use str0m::{Candidate, Rtc};

use super::{NegotiateError, Peer, answer};

impl Peer {
    /// Takes the server's offer (subscriber) and returns the answer, which only receives whatever
    /// direction is offered. Streams that the offer no longer names are closed, also where another
    /// track took over their m-line. `mid_to_track_id` is LiveKit's, and may be empty.
    pub fn accept_offer(
        &mut self,
        now: Instant,
        sdp: &str,
        mid_to_track_id: &[(String, String)],
    ) -> Result<String, NegotiateError> {
        let Some(receiving) = &mut self.receiving else {
            return Err(NegotiateError::WrongRole("a publisher takes no offers"));
        };
        let offer = parse_description("offer", sdp)?;
        let transport = str0m_answer(&mut self.rtc, &answer::transport_offer(&offer))?;
        self.answers += 1;
        let answer = answer::answer(&offer, &transport, self.answers)
            .map_err(|error| unreadable("answer", &error))?;
        receiving.negotiated(now, &offer, mid_to_track_id, answer.agreed, &mut self.outbox);
        (self.negotiated, self.described) = (true, true);
        self.remote_described(now, &offer);
        Ok(answer.text)
    }

    /// Makes the offer of all tracks (publisher).
    pub fn create_offer(&mut self, now: Instant) -> Result<String, NegotiateError> {
        let Some(publishing) = &mut self.publishing else {
            return Err(NegotiateError::WrongRole("a subscriber makes no offers"));
        };
        let offer = publishing.create_offer(&mut self.rtc)?;
        self.described = true;
        self.advance(now);
        Ok(offer)
    }

    /// Makes an offer that restarts ICE and changes nothing else (publisher; RFC 8445 §9). What was
    /// negotiated goes on while it is open.
    pub fn restart_ice(&mut self, now: Instant) -> Result<String, NegotiateError> {
        let Some(publishing) = &mut self.publishing else {
            return Err(NegotiateError::WrongRole("the server restarts a subscriber's ICE"));
        };
        let offer = publishing.restart_ice(&mut self.rtc)?;
        self.advance(now);
        Ok(offer)
    }

    /// Takes the server's answer to the latest offer (publisher). With
    /// [`NegotiateError::TrackRefused`] the other tracks are sent all the same.
    pub fn accept_answer(&mut self, now: Instant, sdp: &str) -> Result<(), NegotiateError> {
        let Some(publishing) = &mut self.publishing else {
            return Err(NegotiateError::WrongRole("a subscriber takes no answers"));
        };
        let description = parse_description("answer", sdp)?;
        let answer =
            SdpAnswer::from_sdp_string(sdp).map_err(|error| unreadable("answer", &error))?;
        let pending = publishing.take_pending()?;
        if let Err(error) = self.rtc.sdp_api().accept_answer(pending, answer) {
            return Err(self.refused("answer", &error));
        }
        let answered = publishing.answered(&mut self.rtc);
        if self.connected {
            publishing.start(now);
        }
        self.negotiated = true;
        self.remote_described(now, &description);
        answered
    }

    /// Takes a trickled candidate, `candidate:…`. Those that can't be used (TCP, host names, the
    /// empty end-of-candidates line) are passed over, and remembered for
    /// [`MediaFailure::NoCandidatePair`](crate::MediaFailure::NoCandidatePair).
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
        let is_usable = candidate.is_udp() && candidate.socket_address().is_some();
        if !is_remembered || !is_usable {
            return Ok(());
        }
        let candidate =
            Candidate::from_sdp_string(line).map_err(|error| unreadable("candidate", &error))?;
        if candidate.proto() == Protocol::Udp {
            self.rtc.add_remote_candidate(candidate);
            self.advance(now);
        }
        Ok(())
    }

    /// A description str0m can't apply; some of them end the connection (no fingerprint).
    fn refused(&mut self, what: &'static str, error: &str0m::RtcError) -> NegotiateError {
        self.failed(error);
        NegotiateError::Apply { what, reason: error.to_string() }
    }
}

/// str0m's answer to an offer.
fn str0m_answer(rtc: &mut Rtc, offer: &str) -> Result<String, NegotiateError> {
    let offer = SdpOffer::from_sdp_string(offer).map_err(|error| unreadable("offer", &error))?;
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
    Description::parse(sdp).map_err(|error| unreadable(what, &error))
}

fn unreadable(what: &'static str, error: &dyn std::error::Error) -> NegotiateError {
    NegotiateError::Parse { what, reason: error.to_string() }
}
