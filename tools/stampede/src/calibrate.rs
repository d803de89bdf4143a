//! `stampede doctor --calibrate`: what this machine carries, measured with short runs against the
//! embedded SFU on the same machine, and kept for later runs to be set against.

use std::time::{Duration, SystemTime};

use stampede_output::console;
use stampede_report::show::group;
use stampede_report::types::{Outcome, Report};
use stampede_report::{Exit, Failure};
use stampede_run::{prepare, report_of};
use stampede_scenario::values::Resolution;
use stampede_scenario::{Draft, Scenario};

use crate::calibration::{
    BUSY_RATIO_MAX, Calibration, FORMAT, HEADLINE, Step, keep, machine_id, path,
};
use crate::flags::DoctorFlags;
use crate::live::Mode;
use crate::play::{Show, once};

/// Subscribers of the steps; a layer's steps end when one is not carried.
const LADDER: [u32; 4] = [100, 500, 1_000, HEADLINE];
/// The layers measured: few large frames' packets in runs, and single small packets.
const LAYERS: [Resolution; 2] = [Resolution::Low, Resolution::High];
/// How long each step holds.
const STEP_DURATION: Duration = Duration::from_secs(4);

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
    say(&calibration.conclusion());
    keep(&calibration, &path)?;
    say(&format!("kept in {}; `stampede run` warns of runs that ask for more", path.display()));
    Ok(Exit::Pass)
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
    let carried = report.verdict.result == Outcome::Pass
        && report.join.counted.joined == report.join.counted.requested
        && busy <= BUSY_RATIO_MAX;
    Some(Step {
        layer: layer.name().to_owned(),
        subscribers,
        packets_per_s: (packets as f64 / seconds).round(),
        cpu_ns_per_packet: (cpu_s * 1e9 / packets as f64).round().max(1.0),
        busy_ratio_max: busy,
        carried,
        reason: report.verdict.reasons.first().filter(|_| !carried).cloned(),
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
