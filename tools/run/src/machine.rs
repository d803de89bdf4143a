//! What is known of this machine and of this process, from `/proc` and the clocks.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use stampede_report::types::Machine;

/// Describes the machine.
pub fn describe(cpus: usize) -> Machine {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let cpu_model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|cpuinfo| {
        let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let memory_bytes = fs::read_to_string("/proc/meminfo").ok().and_then(|meminfo| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    });
    let kernel = format!("{} {}", text(uname.sysname()), text(uname.release()));
    let hostname = Some(text(uname.nodename())).filter(|name| !name.is_empty());
    Machine { hostname, cpus, cpu_model, memory_bytes, kernel }
}

/// Memory of this process that is in RAM.
pub fn rss_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// CPU time of this process so far, all threads.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_described() {
        let machine = describe(2);
        assert!(machine.kernel.starts_with("Linux "));
        assert!(machine.memory_bytes.unwrap() > 1 << 20);
        assert!(rss_bytes().unwrap() > 1 << 16);
        assert!(cpu_time() > Duration::ZERO);
    }
}
