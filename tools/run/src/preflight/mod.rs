//! Can this machine carry the run? Checked before anything joins.
//!
//! What belongs to this process (its file descriptor limit) is raised; what belongs to the whole
//! machine (sysctls) is left alone and named with the command that changes it.

mod checks;
pub mod cores;

use std::net::IpAddr;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use stampede_report::Failure;
use stampede_scenario::values::Backend;

pub(crate) use checks::backend_choice;

/// What a run asks of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Participants, each with a websocket.
    pub participants: usize,
    /// Their peer connections, each with a UDP socket.
    pub connections: usize,
    /// Whether the SFU runs here too.
    pub embedded: bool,
    /// UDP backend.
    pub backend: Backend,
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
pub enum State {
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
pub struct Check {
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
    pub fn line(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}: {}; {remedy}", self.name, self.detail),
            None => format!("{}: {}", self.name, self.detail),
        }
    }
}

/// Runs every check. Also what the UDP backend is called, if one could be opened.
pub fn check(needs: &Needs) -> (Vec<Check>, Option<&'static str>) {
    let mut checks = vec![checks::file_descriptors(needs)];
    checks.push(checks::socket_buffers(needs));
    checks.push(checks::ports(needs));
    let (backend, opened) = checks::backend(needs);
    checks.push(backend);
    checks.push(checks::memory(needs, opened));
    if needs.local_ip.is_loopback() {
        checks.push(checks::loopback());
    }
    (checks, opened)
}

/// The first check that forbids the run.
pub fn verdict(checks: &[Check]) -> Result<(), Failure> {
    match checks.iter().find(|check| check.state == State::Failed) {
        Some(check) => Err(Failure::config(check.line())),
        None => Ok(()),
    }
}

/// CPU cores the calling thread may run on, in order.
///
/// # Errors
/// What the kernel said.
pub fn allowed_cores() -> Result<Vec<usize>, Failure> {
    let set = sched_getaffinity(None)
        .map_err(|error| Failure::other(format!("could not read the CPU affinity: {error}")))?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps the calling thread (and what it starts later) on these cores; none leaves it alone.
/// A refusal is not an error: the thread only runs elsewhere.
pub fn stay_on(cores: &[usize]) {
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
