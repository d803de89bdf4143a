//! Everything that is looked at, made or opened before anybody joins.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;

use stampede_engine::{Engine, EngineOptions};
use stampede_signaling::ServerUrl;
use stampede_signaling::rooms::{RoomClient, RoomError, RoomOptions};

use super::Cohorts;
use crate::embedded::random_hex;
use crate::exit::Failure;
use crate::flags::{Network, Plan, Server, Target};
use crate::live::{self, Mode};
use crate::preflight::cores::{self, CoreSplit, CoreWish};
use crate::preflight::{self, Needs, State};

/// Characters of a run's name.
const RUN_ID_CHARS: usize = 8;

/// What the run stands on.
pub(crate) struct Grounds {
    /// Division of the machine.
    pub cores: CoreSplit,
    /// Cores allowed.
    pub cpus: usize,
    /// Where the peers' first sockets are bound: a guess, before the server's candidates are known.
    pub local_ip: IpAddr,
    /// Of the server that was given, or of the proxy on the way to it, resolved before the runtime
    /// starts: a lookup blocks.
    pub addresses: Option<Arc<[SocketAddr]>>,
    /// Name of the run.
    pub run_id: String,
    /// Seed where none is given.
    pub random_seed: u64,
}

/// Why the rooms are not there.
pub(crate) enum PrepareError {
    /// A key, a URL, a proxy: nothing to count, something to put right.
    Refused(Failure),
    /// The server can't be reached, fails, or does not make this room.
    NoRoom {
        /// For `join.errors`.
        kind: String,
        /// For people.
        detail: String,
    },
}

/// Divides and checks the machine.
///
/// # Errors
/// Exit code 104, with the number needed and the command that gives it.
pub(crate) fn machine(plan: &Plan, mode: Mode) -> Result<Grounds, Failure> {
    let allowed = preflight::allowed_cores()?;
    let (embedded, embedded_cores) = match &plan.target {
        Target::Embedded(embedded) => (true, embedded.cores.as_ref()),
        Target::Server(_) => (false, None),
    };
    let wish =
        CoreWish { cores: plan.cores.as_ref(), workers: plan.workers, embedded, embedded_cores };
    let cores = cores::split(&allowed, wish).map_err(Failure::config)?;
    let (addresses, local_ip) = match &plan.target {
        Target::Embedded(_) => (None, IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Target::Server(server) => {
            let (addresses, local_ip) = way(&server.url, &plan.network)?;
            (Some(addresses), local_ip)
        }
    };
    let needs = Needs {
        peers: plan.participants_peak(),
        embedded,
        backend: plan.backend,
        local_ip,
        receive_buffer_bytes: plan.receive_buffer_bytes,
        packet_ring_bytes: plan.packet_ring_bytes(cores.workers),
        workers: cores.workers,
    };
    if mode != Mode::Quiet {
        plan.notes.iter().for_each(|note| live::say(note));
    }
    let checks = preflight::check(&needs);
    preflight::verdict(&checks)?;
    for check in &checks {
        let word = match check.state {
            State::Ok | State::Failed => continue,
            State::Raised => "preflight",
            State::Warning => "preflight warning",
        };
        if mode != Mode::Quiet {
            live::say(&format!("{word}: {}", check.line()));
        }
    }
    let mut run_id = random_hex()?;
    let random_seed = u64::from_str_radix(&run_id[RUN_ID_CHARS..RUN_ID_CHARS + 8], 16).unwrap_or(1);
    run_id.truncate(RUN_ID_CHARS);
    Ok(Grounds { cores, cpus: allowed.len(), addresses, local_ip, run_id, random_seed })
}

/// Where signalling connects to, and the address that this machine has on its way to the server.
fn way(url: &ServerUrl, network: &Network) -> Result<(Arc<[SocketAddr]>, IpAddr), Failure> {
    let Some(proxy) = &network.proxy else {
        let addresses = resolve("--url", &url.authority())?;
        let local_ip = local_ip_towards(&addresses)?;
        return Ok((addresses, local_ip));
    };
    let proxied = resolve(proxy.named_by(), &proxy.authority())?;
    // Behind a proxy names of the world outside may be unknown: then it is on the same way.
    let local_ip = resolve("--url", &url.authority())
        .and_then(|addresses| local_ip_towards(&addresses))
        .or_else(|_| local_ip_towards(&proxied))?;
    Ok((proxied, local_ip))
}

/// The addresses of `HOST:PORT`, which `flag` names.
///
/// # Errors
/// Exit code 104 if its name has none.
pub(crate) fn resolve(flag: &str, authority: &str) -> Result<Arc<[SocketAddr]>, Failure> {
    let failed = |why: String| {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        Failure::config(format!("{flag}: can't resolve the host name {host}: {why}"))
    };
    let addresses: Vec<SocketAddr> =
        authority.to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
    if addresses.is_empty() { Err(failed("no address".to_owned())) } else { Ok(addresses.into()) }
}

/// The address this machine has on its way to a server.
fn local_ip_towards(addresses: &[SocketAddr]) -> Result<IpAddr, Failure> {
    let mut routed =
        addresses.iter().filter_map(|address| stampede_udp::local_ip_towards(*address).ok());
    routed.next().ok_or_else(|| {
        Failure::config(format!("--url: this machine has no route to {addresses:?}"))
    })
}

/// Makes the rooms; one that is there already is fine.
pub(crate) async fn rooms(
    server: &Server,
    network: &Network,
    rooms: &[Rc<str>],
) -> Result<(), PrepareError> {
    let (url, credentials) = (server.url.clone(), server.credentials.clone());
    let client = RoomClient::new(url, credentials, &network.tls, &network.proxies)
        .map_err(|error| PrepareError::Refused(Failure::other(error)))?;
    for room in rooms {
        client.create(room, RoomOptions::default()).await.map_err(|error| {
            let detail = format!("room '{room}' could not be made: {error}");
            match error {
                RoomError::Unreachable { .. }
                | RoomError::Timeout { .. }
                | RoomError::NotFound { .. }
                | RoomError::Server { .. } => {
                    PrepareError::NoRoom { kind: error.kind().key().to_owned(), detail }
                }
                RoomError::Unauthorized { .. } => PrepareError::Refused(Failure::config(format!(
                    "{detail}; check LIVEKIT_API_KEY and LIVEKIT_API_SECRET"
                ))),
                RoomError::NotLiveKit { .. } => {
                    PrepareError::Refused(Failure::config(format!("{detail}; check --url")))
                }
                RoomError::ProxyUnauthorized { .. } => PrepareError::Refused(Failure::config(
                    format!("{detail}; name it as http://USER:PASSWORD@HOST:PORT (--proxy)"),
                )),
                RoomError::Token(_) => PrepareError::Refused(Failure::config(detail)),
                RoomError::Client { .. } => PrepareError::Refused(Failure::other(detail)),
            }
        })?;
    }
    Ok(())
}

/// Starts the workers.
///
/// # Errors
/// What they could not have.
pub(crate) fn engine(plan: &Plan, grounds: &Grounds, cohorts: &Cohorts) -> Result<Engine, Failure> {
    let defaults = EngineOptions::default();
    let each = plan.participants_peak().div_ceil(grounds.cores.workers.max(1));
    Engine::start(EngineOptions {
        workers: grounds.cores.workers,
        cores: grounds.cores.worker_cores.clone(),
        backend: plan.backend.choice(),
        receive_buffer_bytes: plan.receive_buffer_bytes,
        packet_ring_bytes_max: plan.packet_ring_bytes(grounds.cores.workers),
        playout_deadline: plan.playout_deadline,
        // Retries may hold an old peer and a new one for a moment.
        peers_per_worker_max: defaults.peers_per_worker_max.max(each * 2),
        capture: plan.capture.as_ref().map(|capture| capture.options(grounds.cores.workers)),
        cohorts: cohorts
            .all()
            .iter()
            .map(|cohort| cohort.impair.as_ref().map(|cause| cause.spec.clone()))
            .collect(),
        seed: plan.seed.unwrap_or(grounds.random_seed),
        recording_dir: plan.record.as_ref().map(|record| record.dir.clone()),
        ..defaults
    })
    .map_err(|error| Failure::other(format!("the engine could not start: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_loopback_begins_on_loopback() {
        let addresses = resolve("--url", "127.0.0.1:7880").unwrap();
        let ip = local_ip_towards(&addresses).unwrap();
        assert_eq!(ip, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let error = resolve("--url", "no-such-host.invalid:80").unwrap_err();
        assert!(error.to_string().contains("can't resolve"), "{error}");
        assert_eq!(error.exit, crate::exit::Exit::BadConfiguration);
    }
}
