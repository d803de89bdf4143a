//! Can this machine carry the run? Checked before anything joins.
//!
//! What belongs to this process (its file descriptor limit) is raised; what belongs to the whole
//! machine (sysctls) is left alone and named with the command that changes it.

mod checks;
pub(crate) mod cores;

use std::net::{IpAddr, Ipv4Addr};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::console;
use crate::exit::{Exit, Failure};
use crate::flags::DoctorFlags;
use crate::flags::values::BackendFlag;

/// What a run asks of the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// Peer connections, each with a UDP socket and a websocket.
    pub peers: usize,
    /// Whether the SFU runs here too.
    pub embedded: bool,
    /// UDP backend.
    pub backend: BackendFlag,
    /// Address the peers bind to.
    pub local_ip: IpAddr,
    /// Receive buffer wanted for each peer's socket in bytes.
    pub receive_buffer_bytes: usize,
    /// Memory of a worker's packet ring in bytes, where that is the backend.
    pub packet_ring_bytes: usize,
    /// Workers.
    pub workers: usize,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Good as it is.
    Ok,
    /// Was too low and has been raised for this process.
    Raised,
    /// The run can start, but this may hurt it.
    Warning,
    /// The run can't start.
    Failed,
}

/// One check and what to do about it.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub state: State,
    /// What was found, with numbers.
    pub detail: String,
    /// What changes it: a command or an advice.
    pub remedy: Option<String>,
}

impl Check {
    /// As one line.
    pub(crate) fn line(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}: {}; {remedy}", self.name, self.detail),
            None => format!("{}: {}", self.name, self.detail),
        }
    }
}

/// Runs every check.
pub(crate) fn check(needs: &Needs) -> Vec<Check> {
    let mut checks = vec![checks::file_descriptors(needs)];
    checks.push(checks::socket_buffers(needs));
    checks.push(checks::ports(needs));
    checks.push(checks::backend(needs));
    checks.push(checks::memory(needs));
    if needs.local_ip.is_loopback() {
        checks.push(checks::loopback());
    }
    checks
}

/// The first check that forbids the run.
pub(crate) fn verdict(checks: &[Check]) -> Result<(), Failure> {
    match checks.iter().find(|check| check.state == State::Failed) {
        Some(check) => Err(Failure::config(check.line())),
        None => Ok(()),
    }
}

/// CPU cores the calling thread may run on, in order.
///
/// # Errors
/// What the kernel said.
pub(crate) fn allowed_cores() -> Result<Vec<usize>, Failure> {
    let set = sched_getaffinity(None)
        .map_err(|error| Failure::other(format!("could not read the CPU affinity: {error}")))?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps the calling thread (and what it starts later) on these cores; none leaves it alone.
/// A refusal is not an error: the thread only runs elsewhere.
pub(crate) fn stay_on(cores: &[usize]) {
    if cores.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    for core in cores.iter().filter(|core| **core < CpuSet::MAX_CPU) {
        set.set(*core);
    }
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!("could not stay on cores {cores:?}: {error}");
    }
}

/// `stampede doctor`.
///
/// # Errors
/// When the cores can't be read or named cores can't be used.
pub(crate) fn doctor(flags: &DoctorFlags) -> Result<Exit, Failure> {
    let needs = Needs {
        peers: flags.participants as usize,
        embedded: true,
        backend: flags.backend,
        local_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        receive_buffer_bytes: stampede_engine::EngineOptions::default().receive_buffer_bytes,
        packet_ring_bytes: crate::flags::packet_ring_bytes(flags.participants as usize),
        workers: 1,
    };
    let allowed = allowed_cores()?;
    let mut checks = vec![cores_check(&allowed, flags)];
    checks.extend(check(&needs));
    let mut out = format!("Can this machine carry {} participants?\n\n", needs.peers);
    for check in &checks {
        let mark = match check.state {
            State::Ok => "ok",
            State::Raised => "raised",
            State::Warning => "warning",
            State::Failed => "FAILED",
        };
        out.push_str(&format!("{mark:>8}  {:<17} {}\n", check.name, check.detail));
        if let Some(remedy) = &check.remedy {
            out.push_str(&format!("{:27}-> {remedy}\n", ""));
        }
    }
    let failed = checks.iter().filter(|check| check.state == State::Failed).count();
    out.push_str(&match failed {
        0 => "\nYes.\n".to_owned(),
        1 => "\nNo: 1 check failed.\n".to_owned(),
        n => format!("\nNo: {n} checks failed.\n"),
    });
    console::out(&out);
    Ok(if failed == 0 { Exit::Pass } else { Exit::BadConfiguration })
}

fn cores_check(allowed: &[usize], flags: &DoctorFlags) -> Check {
    let wish = cores::CoreWish {
        cores: flags.cores.as_ref(),
        embedded: true,
        ..cores::CoreWish::default()
    };
    let name = "cores";
    match cores::split(allowed, wish) {
        Ok(split) if allowed.len() < 2 => Check {
            name,
            state: State::Warning,
            detail: format!("only core {:?} is allowed", split.worker_cores),
            remedy: Some("workers, signalling and an embedded SFU will share it".to_owned()),
        },
        Ok(split) => Check {
            name,
            state: State::Ok,
            detail: format!(
                "{} allowed; workers on {:?}, embedded SFU on {:?}, signalling on {:?}",
                allowed.len(),
                split.worker_cores,
                split.sfu_cores,
                split.other_cores
            ),
            remedy: None,
        },
        Err(detail) => Check { name, state: State::Failed, detail, remedy: None },
    }
}
