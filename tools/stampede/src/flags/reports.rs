//! Flags of `stampede report` and `stampede compare`.

use std::path::PathBuf;

use clap::Args;

use stampede_report::compare::FailIf;
use stampede_report::out::Output;
use stampede_report::threshold::Thresholds;

/// Show a JSON report again, or merge the reports of several hosts into one.
///
/// Without --out it prints the summary. Several files are merged: counts are added up, histograms
/// merged as histograms, seconds aligned by the clock, and the verdict is that of the worst host.
#[derive(Debug, Args)]
pub(crate) struct ReportFlags {
    /// JSON reports.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write it, as json=FILE, html=FILE, csv=FILE, markdown=FILE or junit=FILE; - is stdout; may
    /// be repeated.
    #[arg(long, value_name = "KIND=FILE")]
    pub out: Vec<Output>,
    /// Set it against these too, as `run --threshold` would have; may be repeated.
    #[arg(long, value_name = "EXPR")]
    pub threshold: Vec<Thresholds>,
}

/// Set one report against another.
///
/// Prints the figures that differ, and fails with exit code 99 if a --fail-if holds.
#[derive(Debug, Args)]
pub(crate) struct CompareFlags {
    /// JSON report to start from.
    #[arg(value_name = "BASE")]
    pub base: PathBuf,
    /// JSON report to set against it.
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// What must not be, like 'video.latency_ms.p99>+10%', 'video.fps<-2' or
    /// 'video.loss_rate>1%'; may be repeated.
    #[arg(long, value_name = "EXPR")]
    pub fail_if: Vec<FailIf>,
}
