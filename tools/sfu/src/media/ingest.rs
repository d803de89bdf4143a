//! From a publisher's RTP packet to its track's burst: which track and layer, and everything that
//! need not be repeated for each subscriber.

use stampede_core::MediaKind;
use str0m::rtp::RtpPacket;

use super::codec::mime_type;
use super::incoming::StreamPlace;
use super::layers::layer_of_rid;
use super::message::TrackKey;
use super::peer::Peer;
use super::source::params_of;
use super::tracks::TrackTable;

/// What a packet shows.
pub(crate) enum News {
    /// The track comes now, in this codec: its first packet, or the first in another than before.
    Began(TrackKey, Option<&'static str>),
    /// The level of whoever sends it, which has begun to speak; 0 if it has stopped.
    Speaks(f32),
}

/// Takes a packet of the publisher into its track's burst. With `withhold_keyframes` no video
/// packet starts a keyframe. What is to be told, if anything is.
pub(crate) fn ingest(
    peer: &mut Peer,
    tracks: &mut TrackTable,
    packet: RtpPacket,
    withhold_keyframes: bool,
) -> Option<News> {
    let place = place_of(peer, tracks, &packet)?;
    let known = peer.rtc().codec_config().params();
    let source = tracks.get_mut(place.track)?.source_mut()?;
    let (params, mut packet) = source.take(place.stream, packet, known)?;
    let codec = params.spec().codec;
    let began = source.begin(codec);
    let heard = source.hear(params, &packet);
    let track = tracks.get(place.track)?;
    packet.starts_keyframe &= !(withhold_keyframes && track.kind() == MediaKind::Video);
    let began = began.then(|| News::Began(track.key(), mime_type(codec)));
    tracks.take(place.track, params, [packet]);
    // Nobody has spoken by a first packet.
    began.or(heard.map(News::Speaks))
}

/// Where the packets of this one's SSRC go, learned with the first packet.
fn place_of(peer: &mut Peer, tracks: &mut TrackTable, packet: &RtpPacket) -> Option<StreamPlace> {
    let ssrc = *packet.header.ssrc;
    if let Some(known) = peer.incoming().place(ssrc) {
        return known;
    }
    if peer.incoming().is_full() {
        tracks.ignore_packet();
        return None;
    }
    let (mid, rid) = peer.stream_of(packet)?;
    // The mid may be bound a moment later, by an add_track after the offer: ask again then.
    let track = peer.incoming().track_of(mid)?;
    let layer = layer_of_rid(rid.as_deref());
    let params = params_of(peer.rtc().codec_config().params(), *packet.header.payload_type);
    let id = tracks.next_source_id();
    let place = match (layer, params, tracks.get_mut(track)) {
        (Some(layer), Some(params), Some(known)) => known.source_mut().map(|source| StreamPlace {
            track,
            stream: source.add_stream(id, (layer, rid.is_some()), params, packet),
        }),
        _ => None,
    };
    let key = peer.key().0;
    tracing::debug!(peer = key, ssrc, %mid, rid, known = place.is_some(), "new incoming stream");
    peer.incoming().learn(ssrc, place);
    place
}
