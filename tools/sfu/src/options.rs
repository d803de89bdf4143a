//! What a caller may ask of the SFU.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stampede_impair::Spec;
use stampede_udp::BackendChoice;

use crate::SfuFaults;

/// By what the SFU learns how much fits the way to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Congestion {
    /// The subscriber's own estimates (REMB), as livekit-server by default.
    #[default]
    Remb,
    /// When each packet arrived (transport-wide feedback), as livekit-server with
    /// `congestion_control.use_send_side_bwe`.
    Twcc,
    /// Nothing: all get what they ask for.
    None,
}

/// How to start an [`Sfu`](crate::Sfu). `Debug` never shows the secret; JSON does, for the pipe
/// to a child process and nothing else.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SfuOptions {
    /// Address of the HTTP/WebSocket server and of the media sockets.
    pub bind_ip: IpAddr,
    /// Address told to clients as the ICE candidate, for an SFU behind a relay or NAT that keeps
    /// port numbers; `None` tells `bind_ip`.
    pub node_ip: Option<IpAddr>,
    /// TCP port of HTTP/WebSocket; 0 takes a free one.
    pub port: u16,
    /// UDP port of the first media worker, the next worker has the next port; 0 takes free ones.
    pub rtc_port: u16,
    /// Key that tokens must be issued with.
    pub api_key: String,
    /// Secret that tokens must be signed with.
    pub api_secret: String,
    /// Media worker threads, at least one.
    pub workers: usize,
    /// Cores to pin the workers to, worker `i` on `cores[i % len]`; empty does not pin.
    pub cores: Vec<usize>,
    /// Which system calls move the datagrams.
    #[serde(skip)]
    pub backend: BackendChoice,
    /// How long whoever has lost its media may resume before it is removed (LiveKit
    /// `pkg/rtc/participant.go`, `disconnectCleanupDuration`: 5 s, which is the default).
    pub departure_time: Duration,
    /// By what it learns how much fits the way to a subscriber.
    #[serde(default)]
    pub congestion: Congestion,
    /// Seed of everything random that is not secret (the injected faults).
    pub seed: u64,
    /// What is done to packets on their way to subscribers; for each subscriber the first whose
    /// cohort it belongs to counts. Outages count from the start of the SFU.
    pub impair: Vec<Spec>,
    /// Other faults.
    pub faults: SfuFaults,
    /// TURN and STUN servers that clients are told of; it relays nothing itself. Never shown.
    pub ice_servers: Vec<IceServer>,
    /// Clients are told to use relays alone.
    pub force_relay: bool,
}

/// A server that clients may use to be reached by, as a browser's `RTCIceServer` has it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// `turn:…`, `turns:…` or `stun:…`.
    pub urls: Vec<String>,
    /// User name.
    #[serde(default)]
    pub username: String,
    /// Password.
    #[serde(default)]
    pub credential: String,
}

/// Without its credentials.
impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl Default for SfuOptions {
    fn default() -> Self {
        Self {
            bind_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            node_ip: None,
            port: 0,
            rtc_port: 0,
            api_key: "devkey".to_owned(),
            api_secret: "stampede-development-secret-32chars".to_owned(),
            workers: 1,
            cores: Vec::new(),
            backend: BackendChoice::Auto,
            departure_time: Duration::from_secs(5),
            congestion: Congestion::default(),
            seed: 1,
            impair: Vec::new(),
            faults: SfuFaults::default(),
            ice_servers: Vec::new(),
            force_relay: false,
        }
    }
}

impl fmt::Debug for SfuOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SfuOptions")
            .field("bind_ip", &self.bind_ip)
            .field("node_ip", &self.node_ip)
            .field("port", &self.port)
            .field("rtc_port", &self.rtc_port)
            .field("api_key", &self.api_key)
            .field("workers", &self.workers)
            .field("cores", &self.cores)
            .field("backend", &self.backend)
            .field("departure_time", &self.departure_time)
            .field("congestion", &self.congestion)
            .field("seed", &self.seed)
            .field("impair", &self.impair)
            .field("faults", &self.faults)
            .field("ice_servers", &self.ice_servers)
            .field("force_relay", &self.force_relay)
            .finish_non_exhaustive()
    }
}

/// Why the options can't be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum OptionsError {
    /// No worker would carry media.
    #[error("0 workers were asked for; use at least 1")]
    NoWorkers,
    /// A share of a fault is none.
    #[error("{fault} is {share}; give a share from 0 to 1, such as 0.01 for 1 %")]
    Share {
        /// The field of [`SfuFaults`].
        fault: &'static str,
        /// What it was.
        share: f64,
    },
    /// Clients could not send to it.
    #[error("the address told to clients is {0}, which is nobody's; give one they can reach")]
    NodeIp(IpAddr),
    /// The key or the secret is empty.
    #[error("the API {0} is empty; tokens could not be checked")]
    EmptyCredential(&'static str),
    /// Not every worker's port fits below 65,536.
    #[error("{workers} workers from UDP port {rtc_port} would pass port 65535; use a lower port")]
    RtcPort {
        /// First port.
        rtc_port: u16,
        /// Workers asked for.
        workers: usize,
    },
}

impl SfuOptions {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// The first value that can't be used.
    pub fn validate(&self) -> Result<(), OptionsError> {
        if self.workers == 0 {
            return Err(OptionsError::NoWorkers);
        }
        for (fault, share) in [
            ("refuse_joins", self.faults.refuse_joins),
            ("malformed", self.faults.malformed),
            ("drop_upstream", self.faults.drop_upstream),
            ("drop_data", self.faults.drop_data),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(OptionsError::Share { fault, share });
            }
        }
        if let Some(ip) = self.node_ip.filter(IpAddr::is_unspecified) {
            return Err(OptionsError::NodeIp(ip));
        }
        if self.api_key.is_empty() {
            return Err(OptionsError::EmptyCredential("key"));
        }
        if self.api_secret.is_empty() {
            return Err(OptionsError::EmptyCredential("secret"));
        }
        if self.rtc_port != 0 && usize::from(self.rtc_port) + self.workers > 65_536 {
            return Err(OptionsError::RtcPort { rtc_port: self.rtc_port, workers: self.workers });
        }
        Ok(())
    }
}
