//! What happens to a participant, in words for the flight recorder's timeline.

use stampede_engine::PeerNotice;
use stampede_signaling::session::MediaCommand;

/// A signalling message about media, for the timeline: candidates in full, SDP by its length.
pub(super) fn heard(command: &MediaCommand) -> String {
    match command {
        MediaCommand::TurnServers { servers, only } => {
            let only = if *only { ", and no other ways are to be used" } else { "" };
            format!("TURN servers {servers:?}{only}")
        }
        MediaCommand::RemoteOffer { id, sdp, mid_to_track_id } => format!(
            "offer {id} of the server, {} bytes, {} tracks named",
            sdp.len(),
            mid_to_track_id.len()
        ),
        MediaCommand::CreateOffer { id, added, publish } => format!(
            "offer {id} of ours is wanted, {} audio and {} video m-lines more{}",
            added.audio,
            added.video,
            if *publish { ", and our tracks" } else { "" }
        ),
        MediaCommand::RestartIce { id } => format!("ICE is to restart by our offer {id}"),
        MediaCommand::RemoteAnswer { sdp, mid_to_track_id } => format!(
            "answer of the server, {} bytes, {} tracks named",
            sdp.len(),
            mid_to_track_id.len()
        ),
        MediaCommand::RemoteCandidate { candidate, .. } => format!("trickled {candidate}"),
    }
}

/// What the peer told its task, for the timeline.
pub(super) fn said(notice: &PeerNotice) -> String {
    match notice {
        PeerNotice::Answer { offer_id, sdp } => {
            format!("our answer to offer {offer_id}, {} bytes", sdp.len())
        }
        PeerNotice::Offer { id, sdp } => format!("our offer {id}, {} bytes", sdp.len()),
        PeerNotice::Connected => "DTLS connected".to_owned(),
        PeerNotice::NegotiationFailed { reason } => format!("negotiation failed: {reason}"),
        PeerNotice::BackupRefused { cid, reason } => {
            format!("the server refused the backup track {cid}: {reason}")
        }
        PeerNotice::LocalCandidate { candidate } => format!("trickled ours: {candidate}"),
        PeerNotice::Disconnected { failure } => format!("disconnected: {failure}"),
        notice => format!("{notice:?}"),
    }
}
