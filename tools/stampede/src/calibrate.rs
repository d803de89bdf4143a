//! `stampede doctor --calibrate`: what this machine carries, measured with short runs against the
//! embedded SFU on the same machine, and kept for later runs to be set against.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use stampede_output::{console, files};
use stampede_report::show::group;
use stampede_report::types::{Outcome, Report};
use stampede_report::{Exit, Failure};
use stampede_run::{machine, prepare, report_of};
use stampede_scenario::load::Load;
use stampede_scenario::values::Resolution;
use stampede_scenario::{Draft, Scenario};
use stampede_units::show::bits_per_second;

use crate::flags::DoctorFlags;
use crate::live::Mode;
use crate::run::{Show, once};

/// Subscribers of the steps; a layer's steps end when one is not carried.
const LADDER: [u32; 4] = [100, 500, 1_000, 2_000];
/// The layers measured: few large frames' packets in runs, and single small packets.
const LAYERS: [Resolution; 2] = [Resolution::Low, Resolution::High];
/// A worker this busy carries no more.
const BUSY_RATIO_MAX: f64 = 0.85;
/// How long each step holds.
const STEP_DURATION: Duration = Duration::from_secs(4);
/// Format of the file.
const FORMAT: u32 = 1;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    format: u32,
    stampede_version: String,
    /// Tells machines that share a home apart, and kinds of builds; says nothing about this one.
    machine: String,
    /// RFC 3339, UTC.
    pub measured_at: String,
    backend: String,
    workers: usize,
    steps: Vec<Step>,
}

/// One short run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Step {
    layer: String,
    subscribers: u32,
    /// Datagrams a second, in and out, over all workers.
    packets_per_s: f64,
    /// CPU time of the workers for each.
    cpu_ns_per_packet: f64,
    busy_ratio_max: f64,
    /// Everybody joined, nothing was late, and the workers had time left.
    carried: bool,
}

impl Step {
    /// Datagrams a second that one worker carries if it may be as busy as [`BUSY_RATIO_MAX`].
    fn packets_per_s_per_core(&self) -> f64 {
        BUSY_RATIO_MAX * 1e9 / self.cpu_ns_per_packet
    }
}

impl Calibration {
    /// Datagrams a second one worker carries at this layer, taken from the largest step carried; the
    /// middle layer is taken for the low one, whose packets cost more.
    pub(crate) fn packets_per_s_per_core(&self, resolution: Resolution) -> Option<f64> {
        let layer = match resolution {
            Resolution::High => Resolution::High,
            Resolution::Medium | Resolution::Low => Resolution::Low,
        };
        let steps = self.steps.iter().filter(|step| step.layer == layer.name() && step.carried);
        steps.max_by_key(|step| step.subscribers).map(Step::packets_per_s_per_core)
    }

    /// A line for a run that asks for more than this machine can carry.
    pub(crate) fn warning(
        &self,
        expected: Load,
        resolution: Resolution,
        workers: usize,
    ) -> Option<String> {
        let per_core = self.packets_per_s_per_core(resolution)?;
        warn(expected, per_core, workers, &self.measured_at)
    }
}

fn warn(expected: Load, per_core: f64, workers: usize, measured_at: &str) -> Option<String> {
    let capacity = per_core * workers as f64;
    (expected.packets_per_s > capacity).then(|| {
        format!(
            "warning: this run would receive {} packets/s ({}), but {workers} worker{} of this \
             machine should carry {} (reckoned from stampede doctor --calibrate, {measured_at}): \
             expect it to be invalid",
            group(expected.packets_per_s as u64),
            bits_per_second(expected.bitrate_bps),
            if workers == 1 { "" } else { "s" },
            group(capacity as u64)
        )
    })
}

/// What was measured on this machine with this version, if it was.
pub(crate) fn load() -> Option<Calibration> {
    let text = fs::read_to_string(path()?).ok()?;
    let kept: Calibration = serde_json::from_str(&text).ok()?;
    let same = kept.format == FORMAT
        && kept.stampede_version == env!("CARGO_PKG_VERSION")
        && kept.machine == machine_id();
    same.then_some(kept)
}

/// `$XDG_CACHE_HOME/stampede/calibration.json`, or below `~/.cache`.
fn path() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|dir| !dir.is_empty());
    let cache = match folder("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(cache) => cache,
        None => PathBuf::from(folder("HOME")?).join(".cache"),
    };
    Some(cache.join("stampede").join("calibration.json"))
}

/// A hash: machine-id(5) asks for the id itself not to be passed on.
fn machine_id() -> String {
    let mut hasher = DefaultHasher::new();
    "stampede".hash(&mut hasher);
    fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().hash(&mut hasher);
    machine::describe(0).cpu_model.hash(&mut hasher);
    // A debug build carries less.
    cfg!(debug_assertions).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// `stampede doctor --calibrate`.
///
/// # Errors
/// When no run can be made, or the result can't be kept.
pub(crate) fn command(flags: &DoctorFlags) -> Result<Exit, Failure> {
    let path = path().ok_or_else(|| {
        Failure::config("neither XDG_CACHE_HOME nor HOME says where the result could be kept")
    })?;
    let say = |text: &str| console::out(&format!("{text}\n"));
    say("layer   subscribers    packets/s   ns a packet   busiest worker");
    let mut calibration = Calibration {
        format: FORMAT,
        stampede_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine_id(),
        measured_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        backend: String::new(),
        workers: 0,
        steps: Vec::new(),
    };
    for layer in LAYERS {
        for subscribers in LADDER {
            let prepared = prepare(scenario(flags, layer, subscribers)?)?;
            let data = once(prepared, &Show::nothing(), Mode::Quiet)?;
            if data.interrupted {
                return Ok(Exit::Interrupted);
            }
            let report = report_of(data, &[]);
            let Some(step) = step(&report, layer, subscribers) else { break };
            say(&line(&step));
            calibration.backend.clone_from(&report.generator.backend);
            calibration.workers = report.generator.workers.len();
            let carried = step.carried;
            calibration.steps.push(step);
            if !carried {
                break;
            }
        }
    }
    let known = LAYERS.map(|layer| calibration.packets_per_s_per_core(layer));
    if known.iter().all(Option::is_none) {
        return Err(Failure::other(
            "this machine carried none of the runs: see `stampede doctor` for what is short",
        ));
    }
    for (layer, rate) in LAYERS.iter().zip(known) {
        if let Some(rate) = rate {
            let (rate, name) = (group(rate as u64), layer.name());
            say(&format!("{name} layer: {rate} packets/s a core at {:.0} % busy", 85.0));
        }
    }
    keep(&calibration, &path)?;
    say(&format!("kept in {}; `stampede run` warns of runs that ask for more", path.display()));
    Ok(Exit::Pass)
}

fn keep(calibration: &Calibration, path: &std::path::Path) -> Result<(), Failure> {
    let failed = |why: String| Failure::other(format!("{} not written: {why}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    }
    let text =
        serde_json::to_string_pretty(calibration).map_err(|error| failed(error.to_string()))?;
    files::write(path, (text + "\n").into_bytes()).map_err(|error| failed(error.to_string()))
}

/// The run of a step, never at somebody's server.
fn scenario(
    flags: &DoctorFlags,
    resolution: Resolution,
    subscribers: u32,
) -> Result<Scenario, Failure> {
    Scenario::new(Draft {
        audio_publishers: Some(0),
        joins_per_second: 500.0,
        duration: Some(STEP_DURATION),
        subscribers: Some(subscribers),
        resolution,
        backend: flags.backend,
        cores: flags.cores.clone(),
        ..Draft::default()
    })
}

/// `None` if nothing was measured.
fn step(report: &Report, layer: Resolution, subscribers: u32) -> Option<Step> {
    let generator = &report.generator;
    let packets = generator.counted.udp.datagrams_in + generator.counted.udp.datagrams_out;
    let seconds = report.run.measured_s.filter(|seconds| *seconds > 0.0)?;
    if packets == 0 {
        return None;
    }
    let cpu_s: f64 = generator.workers.iter().map(|worker| worker.cpu_s).sum();
    let busy = generator.workers.iter().map(|worker| worker.busy_ratio).fold(0.0, f64::max);
    Some(Step {
        layer: layer.name().to_owned(),
        subscribers,
        packets_per_s: (packets as f64 / seconds).round(),
        cpu_ns_per_packet: (cpu_s * 1e9 / packets as f64).round().max(1.0),
        busy_ratio_max: busy,
        carried: report.verdict.result == Outcome::Pass
            && report.join.joined == report.join.requested
            && busy <= BUSY_RATIO_MAX,
    })
}

fn line(step: &Step) -> String {
    format!(
        "{:<8}{:>11}{:>13}{:>14}{:>15.0} %{}",
        step.layer,
        group(u64::from(step.subscribers)),
        group(step.packets_per_s as u64),
        group(step.cpu_ns_per_packet as u64),
        step.busy_ratio_max * 100.0,
        if step.carried { "" } else { "  (not carried)" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(steps: &[(Resolution, u32, f64, bool)]) -> Calibration {
        let step = |&(layer, subscribers, cpu_ns_per_packet, carried): &_| {
            let layer = Resolution::name(layer).to_owned();
            let (packets_per_s, busy_ratio_max) = (1.0, 0.5);
            Step { layer, subscribers, packets_per_s, cpu_ns_per_packet, busy_ratio_max, carried }
        };
        Calibration {
            format: FORMAT,
            stampede_version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine_id(),
            measured_at: "2026-01-01T00:00:00Z".to_owned(),
            backend: "mmsg".to_owned(),
            workers: 1,
            steps: steps.iter().map(step).collect(),
        }
    }

    #[test]
    fn the_largest_step_that_was_carried_counts() {
        let (low, high) = (Resolution::Low, Resolution::High);
        let kept = calibration(&[
            (low, 100, 10_000.0, true),
            (low, 500, 8_500.0, true),
            (low, 1_000, 1.0, false),
            (high, 100, 5_000.0, false),
        ]);
        let per_core = kept.packets_per_s_per_core(low).unwrap();
        assert!((per_core - 100_000.0).abs() < 1e-6, "{per_core}");
        assert_eq!(kept.packets_per_s_per_core(Resolution::Medium), Some(per_core));
        assert_eq!(kept.packets_per_s_per_core(high), None);
    }

    #[test]
    fn it_survives_being_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new").join("calibration.json");
        let kept = calibration(&[(Resolution::Low, 100, 10_000.0, true)]);
        keep(&kept, &file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<Calibration>(&text).unwrap(), kept);
    }

    #[test]
    fn only_more_than_can_be_carried_is_warned_of() {
        let load = Load { packets_per_s: 200_000.0, bitrate_bps: 1.5e9 };
        assert_eq!(warn(load, 110_000.0, 2, "x"), None);
        let line = warn(load, 110_000.0, 1, "2026-01-01").unwrap();
        assert!(line.contains("200,000 packets/s") && line.contains("110,000"), "{line}");
        assert!(!line.contains('\n'));
    }
}
