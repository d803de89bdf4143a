//! `stampede doctor`: what this machine is short of.

use std::net::{IpAddr, Ipv4Addr};

use stampede_output::console;
use stampede_report::{Exit, Failure};
use stampede_run::preflight::{Check, Needs, State, allowed_cores, check, cores};
use stampede_scenario::packet_ring_bytes;

use crate::flags::DoctorFlags;

/// `stampede doctor`.
///
/// # Errors
/// When the cores can't be read or named cores can't be used.
pub(crate) fn command(flags: &DoctorFlags) -> Result<Exit, Failure> {
    let needs = Needs {
        participants: flags.participants as usize,
        connections: flags.participants as usize,
        embedded: true,
        backend: flags.backend,
        local_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        receive_buffer_bytes: stampede_engine::EngineOptions::default().receive_buffer_bytes,
        packet_ring_bytes: packet_ring_bytes(flags.participants as usize),
        workers: 1,
    };
    let allowed = allowed_cores()?;
    let mut checks = vec![cores_check(&allowed, flags)];
    checks.extend(check(&needs).0);
    let mut out = format!("Can this machine carry {} participants?\n\n", needs.participants);
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
    let asked = cores::CoresAsked {
        cores: flags.cores.as_ref(),
        embedded: true,
        ..cores::CoresAsked::default()
    };
    let name = "cores";
    match cores::split(allowed, asked) {
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
