//! `--screen-share-publishers` and what is said of shared screens.

use std::path::PathBuf;

use stampede_media::Codec;
use stampede_report::Failure;

use crate::BackupCodec;
use crate::draft::Draft;
use crate::shape::Shape;

/// Layers that a shared screen has at most, as livekit-client publishes one.
const LAYERS_MAX: usize = 2;

/// What is published of shared screens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenSpec {
    /// Files, lowest layer first; empty for the built-in clip.
    pub files: Vec<PathBuf>,
    /// The codec asked for; that of the files, or VP8, if none was.
    pub codec: Option<Codec>,
    /// What it is published in besides, once the server asks for it.
    pub backup: BackupCodec,
}

impl ScreenSpec {
    /// `None` where nobody shares a screen.
    pub(crate) fn new(draft: &Draft, shape: &Shape) -> Result<Option<Self>, Failure> {
        let files = &draft.screen_share;
        if shape.screen_shares() == 0 {
            let given = [
                (draft.screen_share_audio, "--screen-share-audio"),
                (draft.screen_share_codec.is_some(), "--screen-share-codec"),
                (!files.is_empty(), "--screen-share"),
            ];
            return match given.into_iter().find(|(given, _)| *given) {
                Some((_, flag)) => Err(Failure::config(format!(
                    "{flag} is given but nobody shares a screen: add --screen-share-publishers 1"
                ))),
                None => Ok(None),
            };
        }
        let most = if draft.no_simulcast { 1 } else { LAYERS_MAX };
        if files.len() > most {
            let why = match draft.no_simulcast {
                true => "--no-simulcast publishes one layer",
                false => "a shared screen has at most two layers",
            };
            return Err(Failure::config(format!(
                "--screen-share is given {} times: {why}; leave others out",
                files.len()
            )));
        }
        let (codec, backup) = (draft.screen_share_codec, draft.backup_codec);
        Ok(Some(Self { files: files.clone(), codec, backup }))
    }
}
