//! What a participant publishes: its tracks, as they are sent and as they are announced.

use std::sync::Arc;
use std::time::Duration;

use stampede_core::{
    AudioOptions, BackupTrack, MediaKind, PublishLayer, PublishTrack, SpeakingTurns,
};
use stampede_media::{Codec, MediaClip};
use stampede_signaling::session::{LocalBackup, LocalLayer, LocalTrack, Quality, TrackSource};

use super::ParticipantSpec;
use crate::{BackupCodec, Clips, Scenario, values};

/// LiveKit's names and qualities of simulcast layers, lowest first.
const LAYERS: [(&str, Quality); 3] =
    [("q", Quality::Low), ("h", Quality::Medium), ("f", Quality::High)];

/// The audio that somebody sends.
pub(super) struct AudioOf<'a> {
    pub(super) clip: &'a Arc<MediaClip>,
    pub(super) turns: Option<SpeakingTurns>,
    pub(super) options: AudioOptions,
}

/// Adds what it sends.
pub(super) fn sends(
    spec: &mut ParticipantSpec,
    video: Option<PublishTrack>,
    audio: Option<AudioOf<'_>>,
    (scenario, clips): (&Scenario, &Clips),
    phase: f64,
) {
    let backup = scenario.video.as_ref().map_or(BackupCodec::None, |video| video.backup);
    if let Some(track) = video {
        let codec = track.video_codec();
        publish(spec, track, TrackSource::Camera);
        if codec.is_some_and(|codec| backup.of(codec).is_some()) && !clips.backup.is_empty() {
            back_up(spec, &clips.backup, phase);
        }
    }
    if let Some(audio) = audio {
        let track = audio_track(&spec.identity, audio, phase);
        publish(spec, track, TrackSource::Microphone);
    }
}

/// Gives the track that was added last a backup of these layers.
fn back_up(spec: &mut ParticipantSpec, layers: &[Arc<MediaClip>], phase: f64) {
    let Some(announced) = spec.role.tracks.last_mut() else { return };
    let mut track = video_track(&spec.identity, layers, phase);
    track.cid = format!("{}-backup", announced.cid);
    announced.backup = Some(Box::new(LocalBackup {
        cid: track.cid.clone(),
        codec: values::codec_name(track.video_codec().unwrap_or(Codec::Vp8)).to_owned(),
        layers: simulcast_layers(&track),
    }));
    spec.media.backups.push(BackupTrack { of: announced.cid.clone(), track });
}

/// Adds the tracks of a shared screen. Its sound is stereo, so livekit-client has neither redundancy
/// nor DTX for it (client-sdk-js src/room/participant/LocalParticipant.ts); it is loud all the time.
pub(super) fn shares_screen(
    spec: &mut ParticipantSpec,
    clips: &Clips,
    scenario: &Scenario,
    phase: f64,
) {
    let layers = match scenario.single_layer {
        true => &clips.screen[clips.screen.len().saturating_sub(1)..],
        false => &clips.screen[..],
    };
    if layers.is_empty() {
        return;
    }
    let mut track = video_track(&spec.identity, layers, phase);
    track.cid = format!("{}-screen", spec.identity);
    publish(spec, track, TrackSource::ScreenShare);
    if let Some(backup) = &clips.screen_backup {
        back_up(spec, std::slice::from_ref(backup), phase);
    }
    if let Some(clip) = &clips.screen_audio {
        let audio = AudioOf { clip, turns: None, options: AudioOptions::default() };
        let mut track = audio_track(&spec.identity, audio, phase);
        track.cid = format!("{}-screen-audio", spec.identity);
        publish(spec, track, TrackSource::ScreenShareAudio);
    }
}

/// Announces a track and sends it.
fn publish(spec: &mut ParticipantSpec, track: PublishTrack, source: TrackSource) {
    let announced = match track.kind {
        MediaKind::Video => announced_video(&track, source),
        MediaKind::Audio => announced_audio(&track, source),
    };
    spec.role.tracks.push(announced);
    spec.media.tracks.push(track);
}

fn offset(clip: &MediaClip, phase: f64) -> Duration {
    Duration::from_secs_f64(clip.duration_seconds() * phase)
}

pub(super) fn video_track(identity: &str, clips: &[Arc<MediaClip>], phase: f64) -> PublishTrack {
    let simulcast = clips.len() > 1;
    let layers = clips.iter().zip(LAYERS).map(|(clip, (rid, _))| PublishLayer {
        rid: simulcast.then_some(rid),
        clip: Arc::clone(clip),
    });
    PublishTrack {
        cid: format!("{identity}-video"),
        kind: MediaKind::Video,
        layers: layers.collect(),
        start_offset: clips.first().map_or(Duration::ZERO, |clip| offset(clip, phase)),
        speaking: None,
        audio: AudioOptions::default(),
    }
}

fn audio_track(identity: &str, audio: AudioOf<'_>, phase: f64) -> PublishTrack {
    let AudioOf { clip, turns, options } = audio;
    PublishTrack {
        cid: format!("{identity}-audio"),
        kind: MediaKind::Audio,
        layers: vec![PublishLayer { rid: None, clip: Arc::clone(clip) }],
        start_offset: offset(clip, phase),
        speaking: turns,
        audio: options,
    }
}

fn announced_video(track: &PublishTrack, source: TrackSource) -> LocalTrack {
    let in_one_stream = track.layers.first().and_then(|layer| spatial_layers(&layer.clip));
    let layers_in_one_stream = in_one_stream.is_some();
    let layers = in_one_stream.unwrap_or_else(|| simulcast_layers(track));
    let full = layers.last();
    LocalTrack {
        cid: track.cid.clone(),
        name: if source == TrackSource::ScreenShare { "screen" } else { "video" }.to_owned(),
        kind: MediaKind::Video,
        source,
        codec: values::codec_name(track.video_codec().unwrap_or(Codec::Vp8)).to_owned(),
        width: full.map_or(0, |layer| layer.width),
        height: full.map_or(0, |layer| layer.height),
        layers,
        red: false,
        dtx: false,
        layers_in_one_stream,
        backup: None,
    }
}

/// The spatial layers of a stream, each with the rate of those below it too.
fn spatial_layers(clip: &MediaClip) -> Option<Vec<LocalLayer>> {
    let scalability = clip.scalability.as_ref()?;
    let qualities = &LAYERS[LAYERS.len().checked_sub(scalability.sizes.len())?..];
    let layers = scalability.sizes.iter().zip(qualities).zip(clip.spatial_layer_rates_bps());
    let layer = |((&(width, height), &(_, quality)), bitrate_bps): ((&(u16, u16), _), f64)| {
        let (width, height) = (width.into(), height.into());
        LocalLayer { quality, width, height, bitrate_bps: bitrate_bps as u32 }
    };
    Some(layers.map(layer).collect())
}

fn simulcast_layers(track: &PublishTrack) -> Vec<LocalLayer> {
    let qualities: &[(&str, Quality)] = match track.layers.len() {
        1 => &LAYERS[2..],
        _ => &LAYERS,
    };
    track
        .layers
        .iter()
        .zip(qualities)
        .map(|(layer, (_, quality))| LocalLayer {
            quality: *quality,
            width: layer.clip.width.into(),
            height: layer.clip.height.into(),
            bitrate_bps: layer.clip.bitrate_bps() as u32,
        })
        .collect()
}

fn announced_audio(track: &PublishTrack, source: TrackSource) -> LocalTrack {
    LocalTrack {
        cid: track.cid.clone(),
        name: match source {
            TrackSource::ScreenShareAudio => "screen audio".to_owned(),
            _ => "audio".to_owned(),
        },
        kind: MediaKind::Audio,
        source,
        codec: "opus".to_owned(),
        width: 0,
        height: 0,
        layers: Vec::new(),
        red: track.audio.red,
        dtx: track.audio.dtx,
        layers_in_one_stream: false,
        backup: None,
    }
}
