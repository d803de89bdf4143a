//! Flags of `stampede doctor`.

use clap::Args;
use stampede_scenario::values::{Backend, CoreList};

/// Check whether this machine can carry a run, and say what to change.
#[derive(Debug, Args)]
pub(crate) struct DoctorFlags {
    /// Participants that the run would have.
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pub participants: u32,
    /// CPU cores that the workers would be pinned to.
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
    /// UDP backend that the workers would use.
    #[arg(long, value_enum, default_value = "auto", value_name = "BACKEND")]
    pub backend: Backend,
    /// Measure with short runs against the embedded SFU what this machine can carry (one to two minutes);
    /// later runs that would ask for more then warn.
    #[arg(long)]
    pub calibrate: bool,
}
