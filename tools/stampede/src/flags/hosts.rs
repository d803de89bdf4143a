//! Flags of runs on many hosts: `run --hosts` and `work`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use stampede_hosts::messages::HOSTS_MAX;
use stampede_report::out::Output;
use stampede_scenario::values::{self, CoreList};

/// What becomes of a run of which a host was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnLostHost {
    /// It is invalid.
    Invalid,
    /// The others are judged.
    Continue,
}

/// Flags of the coordinator.
#[derive(Debug, Clone, Args)]
pub(crate) struct HostsFlags {
    /// Have N hosts make this run together, and carry no load here: each of them runs `stampede
    /// work --join` and takes its part. All share STAMPEDE_TOKEN (docs/hosts.md).
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=HOSTS_MAX as i64),
        help_heading = "Many hosts"
    )]
    pub hosts: Option<u32>,
    /// Where the hosts join.
    #[arg(long, default_value = "0.0.0.0:7890", value_name = "ADDR", help_heading = "Many hosts")]
    pub listen: SocketAddr,
    /// Begin with so many hosts if no more have come when the wait is over [default: all of them].
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=HOSTS_MAX as i64),
        help_heading = "Many hosts"
    )]
    pub hosts_min: Option<u32>,
    /// How long the hosts are waited for.
    #[arg(
        long,
        default_value = "60s",
        value_name = "DUR",
        value_parser = values::duration_above_zero,
        help_heading = "Many hosts"
    )]
    pub hosts_wait: Duration,
    /// What becomes of the run if a host is lost: invalid, or continue, which judges the others.
    /// Its last figures are in the sums either way.
    #[arg(
        long,
        value_enum,
        default_value = "invalid",
        value_name = "WHAT",
        help_heading = "Many hosts"
    )]
    pub on_lost_host: OnLostHost,
}

/// Take part in a run that `stampede run --hosts N` coordinates.
///
/// It dials the coordinator, gets its part of the run, waits for the others, and hands in its
/// report; what to run is the coordinator's to say. Both know each other by STAMPEDE_TOKEN
/// (docs/hosts.md). Exit code 0 once the report is there, whatever the verdict, which is the
/// coordinator's exit code.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkFlags {
    /// Where the coordinator listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub join: String,
    /// Name of this host [default: its host name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How long to try to reach the coordinator.
    #[arg(long, default_value = "60s", value_name = "DUR", value_parser = values::duration)]
    pub wait: Duration,
    /// Media worker threads of this host, whatever the coordinator says.
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// CPU cores of this host to pin them to, whatever the coordinator says.
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
    /// Write this host's own report too, as json=FILE, html=FILE, csv=FILE, markdown=FILE or
    /// junit=FILE; - is stdout; may be repeated.
    #[arg(long, value_name = "KIND=FILE")]
    pub out: Vec<Output>,
    /// No progress; errors only.
    #[arg(long)]
    pub quiet: bool,
    /// For tests: this host's clock is taken to be ahead by so many milliseconds.
    #[arg(long, hide = true, default_value_t = 0, allow_negative_numbers = true)]
    pub clock_ahead_ms: i32,
}

impl WorkFlags {
    /// [`Self::clock_ahead_ms`].
    pub(crate) fn clock_ahead_ns(&self) -> i64 {
        i64::from(self.clock_ahead_ms) * 1_000_000
    }
}
