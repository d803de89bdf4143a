//! What this machine carries, as it was measured: kept for later runs to be set against.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stampede_output::files;
use stampede_report::Failure;
use stampede_report::show::group;
use stampede_run::machine;
use stampede_scenario::load::Load;
use stampede_scenario::values::Resolution;
use stampede_units::show::bits_per_second;

/// A worker this busy carries no more.
pub(crate) const BUSY_RATIO_MAX: f64 = 0.85;
/// How many subscribers a load box should be good for.
pub(crate) const HEADLINE: u32 = 2_000;
/// Format of the file.
pub(crate) const FORMAT: u32 = 1;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    pub(crate) format: u32,
    pub(crate) stampede_version: String,
    /// Tells machines that share a home apart, and kinds of builds; says nothing about this one.
    pub(crate) machine: String,
    /// RFC 3339, UTC.
    pub measured_at: String,
    pub(crate) backend: String,
    pub(crate) workers: usize,
    pub(crate) steps: Vec<Step>,
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

    /// Whether this machine is good for [`HEADLINE`] subscribers of the high layer, as a sentence for
    /// people: as it was tried here beside the embedded SFU, and as the workers' own cost says for a
    /// server elsewhere.
    pub(crate) fn conclusion(&self) -> String {
        let high = || self.steps.iter().filter(|step| step.layer == Resolution::High.name());
        let what = format!("{} subscribers of 720p", group(u64::from(HEADLINE)));
        let here = match high().find(|step| step.subscribers == HEADLINE) {
            Some(step) if step.carried => {
                format!("carried here, with a worker {:.0} % busy", step.busy_ratio_max * 100.0)
            }
            _ => match high().find(|step| !step.carried) {
                Some(step) => format!(
                    "not carried here beside the embedded SFU: {} were too many{}",
                    group(u64::from(step.subscribers)),
                    step.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
                ),
                None => "not tried here".to_owned(),
            },
        };
        let alone = high().filter(|step| step.carried).max_by_key(|step| step.subscribers);
        let elsewhere = alone.map(|step| {
            let each = step.packets_per_s / f64::from(step.subscribers);
            let workers = self.workers.max(1);
            let carried = step.packets_per_s_per_core() * workers as f64 / each;
            format!(
                "; of a server elsewhere {} should carry about {}: {}",
                if workers == 1 { "one worker".to_owned() } else { format!("{workers} workers") },
                group(carried as u64),
                if carried >= f64::from(HEADLINE) { "good" } else { "not enough" }
            )
        });
        format!("{what}: {here}{}", elsewhere.unwrap_or_default())
    }

    /// A line for a run that asks for more than this machine can carry. `backend` is the one that it
    /// will have.
    pub(crate) fn warning(
        &self,
        expected: Load,
        resolution: Resolution,
        workers: usize,
        backend: Option<&str>,
    ) -> Option<String> {
        let per_core = self.packets_per_s_per_core(resolution)?;
        let line = warn(expected, per_core, workers, &self.measured_at)?;
        Some(match backend {
            Some(backend) if backend != self.backend => {
                let measured = &self.backend;
                format!("{line}; but that was measured with {measured}, and this run has {backend}")
            }
            _ => line,
        })
    }
}

/// One short run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// `low` or `high`.
    pub layer: String,
    /// How many there were.
    pub subscribers: u32,
    /// Datagrams a second, in and out, over all workers.
    pub packets_per_s: f64,
    /// CPU time of the workers for each.
    pub cpu_ns_per_packet: f64,
    /// Of the busiest worker.
    pub busy_ratio_max: f64,
    /// Everybody joined, nothing was late, and the workers had time left.
    pub carried: bool,
    /// Why it was not, if the verdict has a reason.
    pub reason: Option<String>,
}

impl Step {
    /// Datagrams a second that one worker carries if it may be as busy as [`BUSY_RATIO_MAX`].
    fn packets_per_s_per_core(&self) -> f64 {
        BUSY_RATIO_MAX * 1e9 / self.cpu_ns_per_packet
    }
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
pub(crate) fn path() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|dir| !dir.is_empty());
    let cache = match folder("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(cache) => cache,
        None => PathBuf::from(folder("HOME")?).join(".cache"),
    };
    Some(cache.join("stampede").join("calibration.json"))
}

/// A hash: machine-id(5) asks for the id itself not to be passed on.
pub(crate) fn machine_id() -> String {
    let mut hasher = DefaultHasher::new();
    "stampede".hash(&mut hasher);
    fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().hash(&mut hasher);
    machine::describe(0).cpu_model.hash(&mut hasher);
    // A debug build carries less.
    cfg!(debug_assertions).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Keeps it for later runs.
///
/// # Errors
/// What the system said.
pub(crate) fn keep(calibration: &Calibration, path: &std::path::Path) -> Result<(), Failure> {
    let failed = |why: String| Failure::other(format!("{} not written: {why}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    }
    let text =
        serde_json::to_string_pretty(calibration).map_err(|error| failed(error.to_string()))?;
    files::write(path, (text + "\n").into_bytes()).map_err(|error| failed(error.to_string()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(steps: &[(Resolution, u32, f64, bool)]) -> Calibration {
        let step = |&(layer, subscribers, cpu_ns_per_packet, carried): &_| {
            let layer = Resolution::name(layer).to_owned();
            let (packets_per_s, busy_ratio_max) = (200.0, 0.5);
            let reason = if carried { None } else { Some("too late".to_owned()) };
            let packets_per_s = packets_per_s * f64::from(subscribers);
            Step {
                layer,
                subscribers,
                packets_per_s,
                cpu_ns_per_packet,
                busy_ratio_max,
                carried,
                reason,
            }
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
    fn it_says_whether_the_headline_is_carried() {
        let high = Resolution::High;
        let kept = calibration(&[(high, 1_000, 2_000.0, true), (high, 2_000, 1_000.0, true)]);
        assert_eq!(
            kept.conclusion(),
            "2,000 subscribers of 720p: carried here, with a worker 50 % busy; of a server \
             elsewhere one worker should carry about 4,250: good"
        );
        let kept = calibration(&[(high, 100, 4_000.0, true), (high, 500, 1.0, false)]);
        assert_eq!(
            kept.conclusion(),
            "2,000 subscribers of 720p: not carried here beside the embedded SFU: 500 were too many \
             (too late); of a server elsewhere one worker should carry about 1,062: not enough"
        );
        let nothing = calibration(&[(Resolution::Low, 100, 1.0, true)]).conclusion();
        assert_eq!(nothing, "2,000 subscribers of 720p: not tried here");
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
    fn another_backend_is_told() {
        let kept = calibration(&[(Resolution::High, 100, 10_000.0, true)]);
        let load = Load { packets_per_s: 200_000.0, bitrate_bps: 1.5e9 };
        let line = |backend| kept.warning(load, Resolution::High, 1, backend).unwrap();
        assert!(line(Some("packet_ring")).ends_with("with mmsg, and this run has packet_ring"));
        assert_eq!(line(Some("mmsg")), line(None));
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
