//! Flags of `stampede sfu`, and what they come to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use stampede_report::Failure;
use stampede_run::preflight;
use stampede_scenario::values::{self, CoreList};
use stampede_scenario::{Secret, Shorthand};
use stampede_sfu::impair::{Spec, Window};
use stampede_sfu::{Congestion, IceServer, SfuFaults, SfuOptions};

/// The API secret where none is given, as `livekit-server --dev` has it.
const KNOWN_SECRET: &str = "secret";

/// Run the embedded LiveKit-compatible SFU alone.
///
/// When it is ready it prints one line of JSON with its URL to stdout; SIGINT ends it and prints
/// its ledger as a second line.
#[derive(Debug, Args)]
pub(crate) struct SfuFlags {
    /// Address for signalling and media.
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub bind: IpAddr,
    /// Address told to clients for media, where a relay or NAT stands before this one [default: that
    /// of --bind].
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// TCP port for signalling and RoomService; 0 takes a free one.
    #[arg(long, default_value_t = 7880, value_name = "PORT")]
    pub port: u16,
    /// UDP port for media; 0 takes a free one.
    #[arg(long, default_value_t = 7882, value_name = "PORT")]
    pub rtc_port: u16,
    /// API key that clients sign their tokens with.
    #[arg(
        long,
        env = "LIVEKIT_API_KEY",
        hide_env_values = true,
        default_value = "devkey",
        value_name = "KEY"
    )]
    pub api_key: String,
    /// API secret that clients sign their tokens with [default: secret].
    #[arg(long, env = "LIVEKIT_API_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub api_secret: Option<Secret>,
    /// Share of media packets dropped on their way to each subscriber; with --drop-burst and --delay
    /// short for an --impair after all others.
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub drop: Option<f64>,
    /// Mean length in packets of a burst of drops.
    #[arg(long, value_name = "N", value_parser = values::burst)]
    pub drop_burst: Option<u32>,
    /// How long each media packet is held back.
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub delay: Option<Duration>,
    /// What is done on purpose to packets on their way to each subscriber:
    /// cohort=10%,loss=1%,burst=5,delay=50ms,jitter=10ms,reorder=0.5%,duplicate=0.1%,rate=1Mbps,
    /// outage=2s@10s, any of them; may be repeated for further cohorts.
    #[arg(long, value_name = "SPEC", help_heading = "Faults")]
    pub impair: Vec<Spec>,
    /// Share of joins answered with HTTP 503.
    #[arg(long, value_name = "PERCENT", value_parser = values::percent, help_heading = "Faults")]
    pub refuse_joins: Option<f64>,
    /// Stop reading and writing signalling for a while, like 5s@10s after the start; may be repeated.
    #[arg(long, value_name = "DUR@DUR", help_heading = "Faults")]
    pub stall_signalling: Vec<Window>,
    /// Pass on no keyframe request and start no video at a keyframe.
    #[arg(long, help_heading = "Faults")]
    pub withhold_keyframes: bool,
    /// Share of packets to subscribers before which a broken datagram is sent too.
    #[arg(long, value_name = "PERCENT", value_parser = values::percent, help_heading = "Faults")]
    pub malformed: Option<f64>,
    /// Share of publishers' packets dropped before they count as received.
    #[arg(long, value_name = "PERCENT", value_parser = values::percent, help_heading = "Faults")]
    pub drop_upstream: Option<f64>,
    /// Share of data messages dropped on their way to each client, reliable ones too.
    #[arg(long, value_name = "PERCENT", value_parser = values::percent, help_heading = "Faults")]
    pub drop_data: Option<f64>,
    /// How long whoever has lost its media may resume before it is removed.
    #[arg(long, default_value = "5s", value_name = "DUR", value_parser = values::duration)]
    pub departure_time: Duration,
    /// By what it learns how much fits the way to a subscriber, which then gets lower layers: remb are
    /// the estimates that subscribers tell, as with livekit-server by default; twcc is when each packet
    /// arrived, as with its use_send_side_bwe; none is nothing, so that all get what they ask for.
    #[arg(long, value_enum, default_value = "remb", value_name = "HOW")]
    pub congestion: CongestionFlag,
    /// Seed of the faults.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// CPU cores to pin its threads to, like 0,2-3.
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
    /// File with the TURN servers that clients are told of: a JSON list, each as browsers'
    /// RTCIceServer. In a file, for they have passwords.
    #[arg(long, hide = true, value_name = "FILE")]
    pub ice_servers: Option<PathBuf>,
    /// Clients are told to use TURN servers alone.
    #[arg(long, hide = true)]
    pub force_relay: bool,
    /// End with the parent process: the run that started this SFU uses it.
    #[arg(long, hide = true)]
    pub embedded_child: bool,
}

/// `--congestion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CongestionFlag {
    Remb,
    Twcc,
    None,
}

impl From<CongestionFlag> for Congestion {
    fn from(flag: CongestionFlag) -> Self {
        match flag {
            CongestionFlag::Remb => Self::Remb,
            CongestionFlag::Twcc => Self::Twcc,
            CongestionFlag::None => Self::None,
        }
    }
}

fn ice_servers(file: &Path) -> Result<Vec<IceServer>, Failure> {
    let bad = |why: String| Failure::config(format!("--ice-servers {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| bad(error.to_string()))
}

impl SfuFlags {
    /// What `--drop`, `--drop-burst` and `--delay` are short for.
    pub(crate) fn short(&self) -> Shorthand {
        Shorthand { drop: self.drop, drop_burst: self.drop_burst, delay: self.delay }
    }
}

/// What is to be said to who lets others reach an SFU whose secret everybody knows.
pub(crate) fn known_secret_warning(options: &SfuOptions) -> Option<String> {
    let bind = options.bind_ip.to_canonical();
    if bind.is_loopback() || options.api_secret != KNOWN_SECRET {
        return None;
    }
    Some(format!(
        "--bind {bind}: other machines can reach this SFU, and everybody knows its API secret, which is the \
         built-in one: whoever likes may join, publish and end rooms; give --api-key and --api-secret, or \
         LIVEKIT_API_KEY and LIVEKIT_API_SECRET in the environment"
    ))
}

/// What a lone SFU is started with, but for what [`SfuFlags::short`] adds.
///
/// # Errors
/// Exit code 104: the first flag that can't be used.
pub(crate) fn sfu_options(flags: &SfuFlags) -> Result<SfuOptions, Failure> {
    let cores = flags.cores.clone().map_or_else(Vec::new, |list| list.0);
    let allowed = preflight::allowed_cores()?;
    if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
        return Err(Failure::config(format!(
            "--cores: core {core} is not one this process may use (those are {})",
            CoreList(allowed)
        )));
    }
    if flags.bind.is_unspecified() && flags.node_ip.is_none() {
        return Err(Failure::config(format!(
            "--bind {}: clients are told this address, so it must be one of this machine's own; \
             or give --node-ip",
            flags.bind
        )));
    }
    let options = SfuOptions {
        bind_ip: flags.bind,
        node_ip: flags.node_ip,
        port: flags.port,
        rtc_port: flags.rtc_port,
        api_key: flags.api_key.clone(),
        api_secret: flags
            .api_secret
            .as_ref()
            .map_or_else(|| KNOWN_SECRET.to_owned(), |secret| secret.expose().to_owned()),
        workers: cores.len().max(1),
        cores,
        departure_time: flags.departure_time,
        congestion: flags.congestion.into(),
        seed: flags.seed.unwrap_or(1),
        impair: flags.impair.clone(),
        faults: SfuFaults {
            refuse_joins: flags.refuse_joins.unwrap_or(0.0),
            stalls: flags.stall_signalling.clone(),
            withhold_keyframes: flags.withhold_keyframes,
            malformed: flags.malformed.unwrap_or(0.0),
            drop_upstream: flags.drop_upstream.unwrap_or(0.0),
            drop_data: flags.drop_data.unwrap_or(0.0),
        },
        ice_servers: flags.ice_servers.as_deref().map_or(Ok(Vec::new()), ice_servers)?,
        force_relay: flags.force_relay,
        ..SfuOptions::default()
    };
    options.validate().map_err(|error| Failure::config(format!("sfu: {error}")))?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        flags: SfuFlags,
    }

    #[test]
    fn a_known_secret_is_warned_of_where_others_can_use_it() {
        let warning = |words: &[&str]| {
            let words = [&["sfu"], words].concat();
            known_secret_warning(&sfu_options(&Words::parse_from(words).flags).unwrap())
        };
        let own = "--api-secret=a-secret-of-32-characters-at-least";
        assert_eq!(warning(&["--api-secret=secret"]), None);
        assert_eq!(warning(&["--bind=127.0.0.2", "--api-secret=secret"]), None);
        assert_eq!(warning(&["--bind=::1", "--api-secret=secret"]), None);
        assert_eq!(warning(&["--bind=192.0.2.1", own]), None);
        for words in [
            &["--bind=192.0.2.1", "--api-secret=secret"][..],
            &["--bind=192.0.2.1", "--api-secret=secret", "--api-key=own"],
            &["--bind=0.0.0.0", "--node-ip=192.0.2.1", "--api-secret=secret"],
            &["--bind=2001:db8::1", "--api-secret=secret"],
        ] {
            let warning = warning(words).unwrap();
            let bind = words[0].split_once('=').unwrap().1;
            for word in [bind, "--api-key", "--api-secret"] {
                assert!(warning.contains(word), "{warning}");
            }
        }
    }
}
