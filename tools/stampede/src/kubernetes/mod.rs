//! Runs on Kubernetes: the manifests of one, and what its pods start with.
//!
//! [`MANIFESTS`] is the one place where they are declared: `stampede kubernetes` prints it, and the files of
//! `deploy/kubernetes/base` are what it prints.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use minijinja::{Environment, context};

use stampede_output::console;
use stampede_report::{Exit, Failure};

use crate::flags::{self, KubernetesFlags, PodFlags};

/// The template of the manifests, for [`minijinja`].
const MANIFESTS: &str = include_str!("manifests.yaml");

/// Where the coordinator listens: what `run --listen` has without being told.
const PORT: u16 = 7890;

/// Longest scenario: a ConfigMap holds no more (Kubernetes: MaxSecretSize, 1 MiB of all values).
const SCENARIO_BYTES_MAX: usize = 1 << 20;

/// The `kubernetes` command.
///
/// # Errors
/// The scenario is none, or can't stand in a manifest; exit code 104.
pub(crate) fn command(flags: &KubernetesFlags) -> Result<Exit, Failure> {
    let file = flags.scenario.display();
    let text = fs::read_to_string(&flags.scenario)
        .map_err(|error| Failure::config(format!("--scenario {file}: can't be read: {error}")))?;
    // Rather here than in each pod.
    let run = ["stampede".into(), "run".into(), "--scenario".into(), (&flags.scenario).into()];
    let _: flags::Parsed = flags::parse(run)?;
    console::out(&manifests(flags, &text)?);
    Ok(Exit::Pass)
}

/// The manifests of a run, as YAML.
///
/// # Errors
/// The scenario can't stand in one; exit code 104.
fn manifests(flags: &KubernetesFlags, scenario: &str) -> Result<String, Failure> {
    let file = flags.scenario.display();
    let refused = |why: String| Failure::config(format!("--scenario {file}: {why}"));
    if scenario.len() > SCENARIO_BYTES_MAX {
        return Err(refused(format!(
            "it has {} bytes, and a ConfigMap holds {SCENARIO_BYTES_MAX}",
            scenario.len()
        )));
    }
    if let Some(c) = scenario.chars().find(|c| is_broken_by_yaml(*c)) {
        return Err(refused(format!("it holds {}, which YAML would change", c.escape_unicode())));
    }
    let values = context! {
        command => by_command(flags),
        name => flags.name.as_str(),
        namespace => flags.namespace.as_ref().map_or_else(String::new, |name| {
            format!("\n  namespace: {name}")
        }),
        secret => flags.secret.as_str(),
        image => flags.image.as_str(),
        hosts => flags.hosts,
        port => PORT,
        scenario => indented(scenario),
        cpu => flags.cpu,
        memory => flags.memory.as_str(),
        exclusive => flags.exclusive,
        host_network => flags.host_network,
        packet_ring => flags.packet_ring,
        reports => flags.reports.as_deref(),
    };
    Environment::new()
        .render_str(MANIFESTS, values)
        // The template's last line end is not rendered.
        .map(|text| text + "\n")
        .map_err(|error| Failure::other(format!("the manifests can't be made: {error}")))
}

/// The first line: what made it.
fn by_command(flags: &KubernetesFlags) -> String {
    let file = flags.scenario.file_name().unwrap_or_default().to_string_lossy();
    let file: String = file.chars().filter(|c| !c.is_control()).collect();
    format!("By `stampede kubernetes`. Hosts: {}; scenario: {file}.", flags.hosts)
}

/// Line ends to YAML 1.1 and none to TOML, and what no YAML stream may hold (YAML 1.1, section 4.1).
fn is_broken_by_yaml(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
        || (c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}

/// As the lines of a block that stands four deep.
fn indented(text: &str) -> String {
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("    {line}") };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The `pod` command: this process becomes what its index says.
///
/// # Errors
/// This binary can't be started anew.
pub(crate) fn pod(flags: &PodFlags) -> Result<Exit, Failure> {
    let words = words_of(flags);
    // What this process itself runs, whatever has become of its name.
    let error = Command::new("/proc/self/exe").args(words).exec();
    Err(Failure::other(format!("/proc/self/exe can't be started: {error}")))
}

/// What a pod of this index is to be called with.
fn words_of(flags: &PodFlags) -> Vec<OsString> {
    if flags.index == 0 {
        return [OsString::from("run")].into_iter().chain(flags.run.iter().cloned()).collect();
    }
    let wait = format!("{}ms", flags.wait.as_millis());
    let name = format!("{}-{}", flags.node, flags.index);
    ["work", "--join", &flags.join, "--name", &name, "--wait", &wait].map(Into::into).to_vec()
}
