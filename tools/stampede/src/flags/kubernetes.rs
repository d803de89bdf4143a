//! Flags of runs on Kubernetes: `kubernetes` prints what `pod` is the entry of.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stampede_hosts::messages::HOSTS_MAX;
use stampede_scenario::values;

/// Print the Kubernetes manifests of a run on N hosts; nothing is applied.
///
/// A Job of N + 1 pods, of which the first coordinates, the Service by which they find it, and a ConfigMap
/// with the scenario: `stampede kubernetes --hosts 3 --scenario load.toml | kubectl apply -f -`. The Secret
/// with the keys is made by hand (docs/load-box.md).
#[derive(Debug, Args)]
pub(crate) struct KubernetesFlags {
    /// How many hosts carry the load; a pod more coordinates them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=HOSTS_MAX as i64))]
    pub hosts: u32,
    /// The scenario file that the hosts run.
    #[arg(long, value_name = "FILE")]
    pub scenario: PathBuf,
    /// Image of the pods.
    #[arg(
        long,
        default_value = concat!("stampede:", env!("CARGO_PKG_VERSION")),
        value_name = "IMAGE",
        value_parser = image
    )]
    pub image: String,
    /// Name of the Job, and of all that belongs to it: one for each run that is there at a time.
    #[arg(long, default_value = "stampede", value_name = "NAME", value_parser = name)]
    pub name: String,
    /// Namespace [default: what kubectl uses].
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub namespace: Option<String>,
    /// Secret with STAMPEDE_TOKEN, LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET.
    #[arg(long, default_value = "stampede", value_name = "NAME", value_parser = name)]
    pub secret: String,
    /// Persistent volume claim to which the reports are written; without one there is the summary in the
    /// coordinator's log. ReadWriteMany where the pods are on several nodes.
    #[arg(long, value_name = "CLAIM", value_parser = name)]
    pub reports: Option<String>,
    /// Cores of each pod.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_024)
    )]
    pub cpu: u32,
    /// Memory of each pod, as Kubernetes writes it.
    #[arg(long, default_value = "1Gi", value_name = "SIZE", value_parser = quantity)]
    pub memory: String,
    /// Cores that are the pod's alone where the kubelet's CPU manager is static, and nodes that are evenly
    /// taken. Elsewhere this is a CPU quota, which stalls workers.
    #[arg(long)]
    pub exclusive: bool,
    /// Use the nodes' network instead of one of the pod's.
    #[arg(long)]
    pub host_network: bool,
    /// Let the pods use the packet_ring backend: as root, of whose rights they have CAP_BPF alone.
    #[arg(long)]
    pub packet_ring: bool,
}

/// What a pod of an indexed Job starts with; `stampede kubernetes` writes it.
///
/// Index 0 becomes `stampede run` with what is behind `--`, and any other one `stampede work --join`. It is
/// the same process, with the same environment and exit code.
#[derive(Debug, Args)]
pub(crate) struct PodFlags {
    /// The pod's index.
    #[arg(long, env = "JOB_COMPLETION_INDEX", value_name = "N")]
    pub index: u32,
    /// Where index 0 listens, by the name that it has for the others.
    #[arg(long, value_name = "HOST:PORT")]
    pub join: String,
    /// Name of the node: with the index, what reports call this host.
    #[arg(long, value_name = "NAME")]
    pub node: String,
    /// How long the others try to reach index 0.
    #[arg(long, default_value = "5m", value_name = "DUR", value_parser = values::duration)]
    pub wait: Duration,
    /// Arguments of `stampede run`.
    #[arg(last = true, required = true, value_name = "RUN")]
    pub run: Vec<std::ffi::OsString>,
}

/// Longest name: of pods' host names, which may have 63, it leaves room for an index.
const NAME_MAX: usize = 57;

/// Names that YAML 1.1, which Kubernetes reads, takes for something else.
const NO_NAMES: [&str; 9] = ["false", "n", "no", "null", "off", "on", "true", "y", "yes"];

/// A name that can be part of a host name (RFC 1123, section 2.1), and begins like a Service's (RFC 1035).
fn name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends_well = !text.starts_with('-') && !text.ends_with('-');
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
    let short = text.len() <= NAME_MAX;
    if starts && ends_well && short && text.chars().all(inner) && !NO_NAMES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "write a to z, 0 to 9 and -, a letter first, {NAME_MAX} characters at most, and no word that \
         YAML takes for something else"
    ))
}

/// A reference to an image, as far as YAML needs to know.
fn image(text: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && !text.ends_with(':') && text.chars().all(known) {
        return Ok(text.to_owned());
    }
    Err("write it like registry.example.com/stampede:1.0".to_owned())
}

/// A quantity of memory (Kubernetes: resource.Quantity), without exponents and fractions.
fn quantity(text: &str) -> Result<String, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &text[..text.len() - unit.len()];
    if number.parse::<u32>().is_ok_and(|n| n > 0)
        && ["Ki", "Mi", "Gi", "k", "M", "G"].contains(&unit)
    {
        return Ok(text.to_owned());
    }
    Err("write it like 512Mi or 4Gi".to_owned())
}
