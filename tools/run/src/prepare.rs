//! Everything that is looked at, made or opened before anybody joins.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use reqwest::Url;
use stampede_engine::{Engine, EngineOptions};
use stampede_output::files;
use stampede_report::Failure;
#[cfg(any(test, feature = "testing"))]
use stampede_scenario::NetworkSpec;
use stampede_scenario::{
    Clips, OtlpUrl, OwnIdentities, Participants, Scenario, Server, Target, packet_ring_bytes,
    token_lines,
};
use stampede_signaling::rooms::{RoomClient, RoomError, RoomOptions};
use stampede_signaling::{ApiCredentials, ServerUrl};

use crate::capture;
use crate::clips;
use crate::clock::{RunClock, now};
use crate::join_error::JoinError;
use crate::network::Network;
use crate::preflight::cores::{self, CoreSplit, CoresAsked};
use crate::preflight::{self, Needs, State};
use crate::together::Together;

/// Characters of a run's name.
const RUN_ID_CHARS: usize = 8;
/// Largest file of tokens; a token takes some hundred bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 1 << 30;

/// A run that can start: its scenario, and what was found and opened for it.
#[derive(Debug)]
pub struct Prepared {
    /// What is to be run.
    pub scenario: Scenario,
    /// What is published.
    pub clips: Clips,
    /// Who takes part.
    pub participants: Participants,
    /// How the machine is divided.
    pub cores: CoreSplit,
    /// What the UDP backend that the checks could open is called.
    pub backend: Option<&'static str>,
    /// What has to be said to the user before the run starts, a line each.
    pub notices: Vec<String>,
    /// Cores allowed.
    pub(crate) cpus: usize,
    /// How the server, its metrics and who is told metrics are reached.
    pub network: Network,
    /// Where the peers' first sockets are bound: a guess, before the server's candidates are known.
    pub(crate) local_ip: IpAddr,
    /// Of the server that was given, or of the proxy on the way to it, resolved before the runtime
    /// starts: a lookup blocks.
    pub(crate) addresses: Option<Arc<[SocketAddr]>>,
    /// Name of the run.
    pub run_id: String,
    /// Seed in force.
    pub(crate) seed: u64,
    /// Most peer connections at one time.
    pub(crate) connections: usize,
    /// The other hosts, if others take part.
    pub(crate) together: Option<Together>,
}

impl Prepared {
    /// The run's clock less this host's.
    pub(crate) fn clock_offset_ns(&self) -> i64 {
        self.together.as_ref().map_or(0, |together| together.clock.offset_ns)
    }

    /// Whose stamps can be set against this host's clock.
    pub(crate) fn comparable(&self) -> Arc<OwnIdentities> {
        match &self.together {
            Some(together) => together.comparable(&self.participants),
            None => Arc::clone(&self.participants.own),
        }
    }

    /// How many participants are this host's.
    pub fn participants_here(&self) -> usize {
        self.participants.count()
    }
}

/// Why a run can't start.
#[derive(Debug)]
pub struct Refused {
    /// What can't be used.
    pub failure: Failure,
    /// What was found until then and may be why; see [`Prepared::notices`].
    pub notices: Vec<String>,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        refused.failure
    }
}

/// Why the rooms are not there.
pub(crate) enum PrepareError {
    /// A key, a URL, a proxy: nothing to count, something to put right.
    Refused(Failure),
    /// The server can't be reached, fails, or does not make this room.
    NoRoom {
        /// For `join.errors`.
        why: JoinError,
        /// For people.
        detail: String,
    },
}

/// Opens the scenario's files, makes its folders, and divides and checks the machine.
///
/// # Errors
/// Exit code 104: what can't be used, with the number needed and the command that gives it.
pub fn prepare(scenario: Scenario) -> Result<Prepared, Refused> {
    prepare_with(scenario, None)
}

/// The same for this host's part of a run that several make: `scenario` is the whole run's.
///
/// # Errors
/// The same.
pub fn prepare_part(scenario: Scenario, together: Together) -> Result<Prepared, Refused> {
    prepare_with(scenario, Some(together))
}

fn prepare_with(scenario: Scenario, together: Option<Together>) -> Result<Prepared, Refused> {
    let mut notices = Vec::new();
    match prepare_telling(scenario, together, &mut notices) {
        Ok(prepared) => Ok(Prepared { notices, ..prepared }),
        Err(failure) => Err(Refused { failure, notices }),
    }
}

fn prepare_telling(
    scenario: Scenario,
    together: Option<Together>,
    notices: &mut Vec<String>,
) -> Result<Prepared, Failure> {
    let server = match &scenario.target {
        Target::Embedded(_) => None,
        Target::Server(server) => Some(&server.url),
    };
    let others: Vec<&Url> =
        scenario.server_metrics.iter().chain(scenario.otlp.as_ref().map(OtlpUrl::url)).collect();
    let network = Network::open(&scenario.network, server, &others, scenario.transport)?;
    notices.extend(network.notice());
    if let Target::Server(server) = &scenario.target
        && let Some(warning) = server.credentials.as_ref().and_then(ApiCredentials::warning)
    {
        tracing::info!("{warning}");
    }
    let clips = clips::open(&scenario, notices)?;
    folders(&scenario)?;
    let allowed = preflight::allowed_cores()?;
    let (embedded, embedded_cores) = match &scenario.target {
        Target::Embedded(embedded) => (true, embedded.cores.as_ref()),
        Target::Server(_) => (false, None),
    };
    let (workers, asked) = (scenario.workers, scenario.cores.as_ref());
    let asked = CoresAsked { cores: asked, workers, embedded, embedded_cores };
    let cores = cores::split(&allowed, asked).map_err(Failure::config)?;
    let (addresses, local_ip) = match server {
        None => (None, IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(url) => {
            let (addresses, local_ip) = way(url, &network)?;
            (Some(addresses), local_ip)
        }
    };
    let (mut run_id, random_seed) = new_run()?;
    if let Some(together) = &together {
        run_id.clone_from(&together.run_id);
    }
    let seed = scenario.seed.unwrap_or(random_seed);
    let mut participants = Participants::new(&scenario, &clips, &run_id, seed);
    let keeps = together.as_ref().map(|together| together.keeps(&participants));
    let own = keeps.as_ref().map(|keeps| keeps.iter().filter(|kept| **kept).count());
    let connections = own.map_or(usize::MAX, |own| 2 * own).min(scenario.connections_peak());
    let needs = Needs {
        participants: own.unwrap_or(usize::MAX).min(scenario.participants_peak()),
        connections,
        embedded,
        backend: scenario.backend,
        local_ip,
        receive_buffer_bytes: scenario.receive_buffer_bytes,
        packet_ring_bytes: ring_bytes(&scenario, connections, cores.workers),
        workers: cores.workers,
    };
    let backend = check_machine(&needs, notices)?;
    hand_out_tokens(&scenario, &mut participants, notices)?;
    if let Some(keeps) = keeps {
        participants.keep(&keeps);
    }
    Ok(Prepared {
        scenario,
        clips,
        participants,
        cores,
        backend,
        notices: Vec::new(),
        cpus: allowed.len(),
        network,
        local_ip,
        addresses,
        run_id,
        seed,
        connections,
        together,
    })
}

/// A new run's name, and its seed where none is given.
fn new_run() -> Result<(String, u64), Failure> {
    let mut run_id = random_hex()?;
    let seed = u64::from_str_radix(&run_id[RUN_ID_CHARS..RUN_ID_CHARS + 8], 16).unwrap_or(1);
    run_id.truncate(RUN_ID_CHARS);
    Ok((run_id, seed))
}

/// Memory of each worker's packet ring, for so many peers of all workers.
fn ring_bytes(scenario: &Scenario, connections: usize, workers: usize) -> usize {
    let each = connections.div_ceil(workers.max(1));
    scenario.packet_ring_bytes.unwrap_or_else(|| packet_ring_bytes(each))
}

/// Reads the tokens that others have made, if there are any.
fn hand_out_tokens(
    scenario: &Scenario,
    participants: &mut Participants,
    notices: &mut Vec<String>,
) -> Result<(), Failure> {
    let Target::Server(Server { token_file: Some(path), credentials, .. }) = &scenario.target
    else {
        return Ok(());
    };
    let failed = |why: String| Failure::config(format!("--token-file {}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| failed(format!("{error}")))?.len();
    if length > TOKEN_FILE_BYTES_MAX {
        return Err(failed(format!("it has {length} bytes, more than {TOKEN_FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("{error}")))?;
    let unix_s = RunClock::start().unix_ns(now()) / 1_000_000_000;
    participants.hand_out(token_lines(&text)?, unix_s, scenario.signal)?;
    if credentials.is_none() {
        notices.push(
            "without an API secret no room is made beforehand: the server makes each when somebody \
             joins it (room.auto_create)"
                .to_owned(),
        );
    }
    Ok(())
}

/// Makes the folders that the run writes to.
fn folders(scenario: &Scenario) -> Result<(), Failure> {
    if let Some(record) = &scenario.record {
        folder("--record", &record.dir)?;
    }
    if let Some(capture) = &scenario.capture {
        folder("--capture", &capture.dir)?;
    }
    Ok(())
}

/// Makes a folder that can be written to, whatever is there already.
fn folder(flag: &str, dir: &Path) -> Result<(), Failure> {
    let failed = |what: &str, error: std::io::Error| {
        Failure::config(format!("{flag} {}: it can't be {what}: {error}", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(|error| failed("made", error))?;
    files::check_folder(dir).map_err(|error| failed("written to", error))
}

/// Also what the UDP backend is called.
fn check_machine(
    needs: &Needs,
    notices: &mut Vec<String>,
) -> Result<Option<&'static str>, Failure> {
    let (checks, backend) = preflight::check(needs);
    preflight::verdict(&checks)?;
    for check in &checks {
        let word = match check.state {
            State::Ok | State::Failed => continue,
            State::Raised => "preflight",
            State::Warning => "preflight warning",
        };
        notices.push(format!("{word}: {}", check.line()));
    }
    Ok(backend)
}

/// 128 random bits in hexadecimal.
pub(crate) fn random_hex() -> Result<String, Failure> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::other(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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
    // Who has no key leaves it to the server to make them when somebody joins.
    let Some(credentials) = server.credentials.clone() else { return Ok(()) };
    let url = server.url.clone();
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
                    PrepareError::NoRoom { why: error.kind().into(), detail }
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
pub(crate) fn engine(prepared: &Prepared) -> Result<Engine, Failure> {
    let (scenario, cores) = (&prepared.scenario, &prepared.cores);
    let defaults = EngineOptions::default();
    let each = prepared.connections.div_ceil(cores.workers.max(1));
    let capture = scenario.capture.as_ref();
    Engine::start(EngineOptions {
        workers: cores.workers,
        cores: cores.worker_cores.clone(),
        backend: preflight::backend_choice(scenario.backend),
        receive_buffer_bytes: scenario.receive_buffer_bytes,
        packet_ring_bytes_max: ring_bytes(scenario, prepared.connections, cores.workers),
        playout_deadline: scenario.playout_deadline,
        feedback: scenario.feedback,
        feedback_of_cohorts: scenario.cohorts.all().iter().map(|c| c.feedback).collect(),
        adapt: scenario.adapt,
        transport: scenario.transport,
        tls: Some(prepared.network.tls.config()),
        // Retries may hold an old peer and a new one for a moment.
        peers_per_worker_max: defaults.peers_per_worker_max.max(each * 2),
        capture: capture.map(|capture| capture::options(capture, cores.workers)),
        cohorts: scenario
            .cohorts
            .all()
            .iter()
            .map(|cohort| cohort.impair.as_ref().map(|cause| cause.spec.clone()))
            .collect(),
        seed: match &prepared.together {
            Some(together) => together.seed(prepared.seed),
            None => prepared.seed,
        },
        clock_offset_ns: prepared.clock_offset_ns(),
        // For the coordinator.
        tells_distributions: prepared.together.is_some(),
        recording_dir: scenario.record.as_ref().map(|record| record.dir.clone()),
        ..defaults
    })
    .map_err(|error| Failure::other(format!("the engine could not start: {error}")))
}

#[cfg(any(test, feature = "testing"))]
impl Prepared {
    /// Of a scenario that is not to be run: no file is opened, no machine looked at.
    pub(crate) fn for_tests(scenario: Scenario) -> Self {
        #[allow(clippy::expect_used)]
        let network = Network::open(&NetworkSpec::default(), None, &[], scenario.transport)
            .expect("nothing to open");
        let clips = clips::open(&scenario, &mut Vec::new()).unwrap_or_default();
        let participants = Participants::new(&scenario, &clips, "test", 1);
        let cores = CoreSplit {
            worker_cores: vec![0],
            workers: 1,
            sfu_cores: Vec::new(),
            other_cores: Vec::new(),
        };
        Self {
            network,
            clips,
            participants,
            cores,
            backend: None,
            notices: Vec::new(),
            cpus: 1,
            local_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            addresses: None,
            run_id: "test".to_owned(),
            seed: scenario.seed.unwrap_or(1),
            connections: scenario.connections_peak(),
            together: None,
            scenario,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tokens_that_is_too_long_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        // Nothing of it is on the disk.
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(TOKEN_FILE_BYTES_MAX + 1).unwrap();
        let scenario = Scenario::new(stampede_scenario::Draft {
            url: Some("ws://server.invalid".to_owned()),
            token_file: Some(path),
            subscribers: Some(1),
            ..Default::default()
        });
        let scenario = scenario.unwrap();
        let mut participants = Participants::new(&scenario, &Clips::default(), "test", 1);
        let refused = hand_out_tokens(&scenario, &mut participants, &mut Vec::new()).unwrap_err();
        let said = "has 1073741825 bytes, more than 1073741824";
        assert!(refused.to_string().contains(said), "{refused}");
    }

    #[test]
    fn the_way_to_loopback_begins_on_loopback() {
        let addresses = resolve("--url", "127.0.0.1:7880").unwrap();
        let ip = local_ip_towards(&addresses).unwrap();
        assert_eq!(ip, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let error = resolve("--url", "no-such-host.invalid:80").unwrap_err();
        assert!(error.to_string().contains("can't resolve"), "{error}");
        assert_eq!(error.exit, stampede_report::Exit::BadConfiguration);
    }
}
