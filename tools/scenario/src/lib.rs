//! What a run is: who joins which room when, what is published, recorded, impaired and promised.
//!
//! A [`Draft`] is what was asked for, a [`Scenario`] is what came of it, checked. No file is opened
//! here, no name looked up, and nothing read from the environment: two drafts that are the same
//! make the same scenario on every machine.
//!
//! ```
//! use stampede_scenario::{Draft, Scenario};
//!
//! let draft = Draft { subscribers: Some(50), rooms: 2, ..Draft::default() };
//! let scenario = Scenario::new(draft)?;
//! assert_eq!(scenario.participants_peak(), 2 * (1 + 50));
//! assert!(Scenario::new(Draft { rooms: 0, ..Draft::default() }).is_err());
//! # Ok::<(), stampede_report::Failure>(())
//! ```

#![forbid(unsafe_code)]

mod audience;
mod choices;
mod codec_list;
mod codec_mix;
mod cohort_spec;
mod cohorts;
mod data;
mod data_draft;
mod draft;
mod fault;
mod layering;
pub mod load;
mod otlp;
mod own;
mod participant_tracks;
mod participants;
mod people;
mod reconnect;
mod room_sizes;
mod rpc;
mod rpc_draft;
mod scenario;
mod screen;
mod secret;
mod shape;
mod shorthand;
mod signal;
mod stage;
mod tokens;
pub mod values;

pub use stampede_media::Codec;

pub use audience::{Arrival, Audience, AudienceDraft, Visit};
pub use choices::{DataTrackSubscribe, LayoutChoice, SubscribeMode};
pub use codec_list::{BackupCodec, CodecList};
pub use codec_mix::{CodecMix, CodecMixError};
pub use cohort_spec::{CohortProfile, CohortSize, CohortSpec, RoomDraft};
pub use cohorts::{Cohort, Cohorts, REST};
pub use data::DataSpec;
pub use data_draft::{DataDraft, DataKinds, DataKindsError};
pub use draft::{CaptureDraft, Draft, EmbeddedDraft};
pub use fault::{
    CandidateProtocol, FAULTS_MAX, FaultError, FaultKind, FaultSpec, FaultValueError, Schedule,
    Simulation, Who,
};
pub use layering::{Layering, LayeringError};
pub use otlp::{OtlpUrl, OtlpUrlError, shown};
pub use own::OwnIdentities;
pub use participant_tracks::{ParticipantTracks, ParticipantTracksError};
pub use participants::{Part, ParticipantSpec, Participants, Places};
pub use reconnect::{Reconnect, ReconnectError};
pub use room_sizes::{ROOM_SIZE_MAX, RoomSizes, RoomSizesError, WeightedSize};
pub use rpc::RpcSpec;
pub use rpc_draft::RpcDraft;
pub use scenario::{
    CaptureSpec, Clips, Embedded, NetworkSpec, RecordSpec, Scenario, Server, Target, VideoSpec,
    packet_ring_bytes,
};
pub use screen::ScreenSpec;
pub use secret::Secret;
pub use shape::{RoomSpec, Shape};
pub use shorthand::Shorthand;
pub use signal::{Signal, SignalError};
pub use stage::{Change, Stage, StageRun, timeline};
pub use stampede_core::{CongestionFeedback, FeedbackError, Transport};
pub use stampede_signaling::{Grant, Profile};
pub use tokens::{TOKENS_MAX, TokenLine, token_lines};
