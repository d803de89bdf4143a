//! What a caller may ask of the SFU.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use stampede_udp::BackendChoice;

/// Packets of one video stream kept for retransmission: once for all subscribers on the direct
/// path ([`SendPath`]), once a subscriber on str0m's.
///
/// str0m keeps about 450 bytes of state a cached packet beside the shared payload, so on its path
/// this number times the number of subscribers is most of an SFU's memory; 256 packets are 1.3 s
/// of a 190 packets/s stream, more than twice the playout deadline of 500 ms.
pub const RETRANSMIT_CACHE_PACKETS_DEFAULT: usize = 256;

/// Faults the SFU injects on purpose towards its subscribers, so that what a client measures can
/// be checked against an exact ledger.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SfuImpairments {
    /// Share of RTP packets (retransmissions included) not sent, 0.0 to below 1.0.
    pub drop: f64,
    /// Mean length of a run of dropped packets. 0 and 1 mean independent (uniform) drops;
    /// more is a Gilbert-Elliott model with the same overall share.
    pub drop_burst: u32,
    /// Every RTP and RTCP packet leaves this much later. Zero sends at once.
    pub delay: Duration,
}

/// Which way media packets take to subscribers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SendPath {
    /// Written and encrypted straight into the send queue, for every subscriber whose SRTP
    /// profile is known; str0m's own path for others.
    #[default]
    Direct,
    /// Through each subscriber's str0m: the reference, several times as slow.
    Str0m,
}

/// How to start an [`Sfu`](crate::Sfu). `Debug` never shows the secret.
#[derive(Clone)]
pub struct SfuOptions {
    /// Address of the HTTP/WebSocket server and of the media sockets; also the ICE candidate.
    pub bind_ip: IpAddr,
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
    pub backend: BackendChoice,
    /// Seed of everything random that is not secret (the injected faults).
    pub seed: u64,
    /// Faults to inject.
    pub impair: SfuImpairments,
    /// See [`RETRANSMIT_CACHE_PACKETS_DEFAULT`].
    pub retransmit_cache_packets_max: usize,
    /// Which way media packets take to subscribers.
    pub send_path: SendPath,
}

impl Default for SfuOptions {
    fn default() -> Self {
        Self {
            bind_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            rtc_port: 0,
            api_key: "devkey".to_owned(),
            api_secret: "stampede-development-secret-32chars".to_owned(),
            workers: 1,
            cores: Vec::new(),
            backend: BackendChoice::Auto,
            seed: 1,
            impair: SfuImpairments::default(),
            retransmit_cache_packets_max: RETRANSMIT_CACHE_PACKETS_DEFAULT,
            send_path: SendPath::Direct,
        }
    }
}

impl fmt::Debug for SfuOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SfuOptions")
            .field("bind_ip", &self.bind_ip)
            .field("port", &self.port)
            .field("rtc_port", &self.rtc_port)
            .field("api_key", &self.api_key)
            .field("workers", &self.workers)
            .field("cores", &self.cores)
            .field("backend", &self.backend)
            .field("seed", &self.seed)
            .field("impair", &self.impair)
            .field("retransmit_cache_packets_max", &self.retransmit_cache_packets_max)
            .field("send_path", &self.send_path)
            .finish_non_exhaustive()
    }
}

/// Why the options can't be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum OptionsError {
    /// No worker would carry media.
    #[error("0 workers were asked for; use at least 1")]
    NoWorkers,
    /// The drop share is not a probability that leaves anything over.
    #[error("drop {0} is outside 0 to 0.99; give a share such as 0.01 for 1 %")]
    Drop(f64),
    /// The combination of share and burst length can't be reached.
    #[error(
        "a drop share of {drop} with bursts of {burst} would need gaps shorter than one packet; \
         use longer bursts or a smaller share"
    )]
    DropBurst {
        /// The share asked for.
        drop: f64,
        /// The burst length asked for.
        burst: u32,
    },
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
        if !(0.0..=0.99).contains(&self.impair.drop) {
            return Err(OptionsError::Drop(self.impair.drop));
        }
        let burst = f64::from(self.impair.drop_burst.max(1));
        if self.impair.drop_burst > 1 && self.impair.drop > burst / (burst + 1.0) {
            return Err(OptionsError::DropBurst {
                drop: self.impair.drop,
                burst: self.impair.drop_burst,
            });
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
