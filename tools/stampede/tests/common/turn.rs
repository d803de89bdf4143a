//! coturn, with a certificate for loopback.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) const USER: &str = "turn-user";
pub(crate) const PASSWORD: &str = "turn-password-0123";
/// How long it may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(20);

pub(crate) struct Coturn {
    child: Child,
    dir: TempDir,
    port: u16,
    tls_port: u16,
}

/// A port of loopback that is free for UDP and TCP.
fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Coturn {
    /// `None`, which is said, where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        if let Err(error) = Command::new("turnserver").arg("--version").output() {
            stampede_testing::skip(format!("turnserver (coturn) can't be run: {error}"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (ca, certificate, key) = certificate();
        for (name, pem) in [("ca.pem", ca), ("cert.pem", certificate), ("key.pem", key)] {
            fs::write(dir.path().join(name), pem).unwrap();
        }
        let (port, tls_port) = (free_port(), free_port());
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut command = Command::new("turnserver");
        command
            .args(["-n", "--no-cli", "--no-dtls", "--allow-loopback-peers", "--lt-cred-mech"])
            .args(["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--realm=stampede"])
            .args(["--fingerprint", "--log-file=stdout", "--simple-log", "--verbose"])
            .arg(format!("--user={USER}:{PASSWORD}"))
            .arg(format!("--listening-port={port}"))
            .arg(format!("--tls-listening-port={tls_port}"))
            .arg(format!("--cert={}", path("cert.pem")))
            .arg(format!("--pkey={}", path("key.pem")))
            .arg(format!("--userdb={}", path("turndb")))
            .arg(format!("--pidfile={}", path("pid")))
            .stdin(Stdio::null())
            .stdout(File::create(path("log")).unwrap())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut coturn = Self { child, dir, port, tls_port };
        let began = Instant::now();
        let listens = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        while !listens(port) || !listens(tls_port) {
            let gone = coturn.child.try_wait().unwrap();
            assert!(gone.is_none() && began.elapsed() < READY_WITHIN, "{}", coturn.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(coturn)
    }

    /// Allocations that clients have given back, once there are so many, or after a while.
    pub(crate) fn given_back(&self, wanted: usize) -> usize {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let log = self.log();
            let refreshed = log.lines().filter(|line| line.contains(": refreshed,"));
            let count = refreshed.filter(|line| line.contains(", lifetime=0")).count();
            if count >= wanted || Instant::now() > end {
                return count;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Who has signed its certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A flag for the embedded SFU to name it by these schemes: `turn`, `turn-tcp`, `turns`.
    pub(crate) fn named(&self, schemes: &[&str], password: &str) -> String {
        let url = |scheme: &&str| match *scheme {
            "turns" => format!("turns:127.0.0.1:{}?transport=tcp", self.tls_port),
            "turn-tcp" => format!("turn:127.0.0.1:{}?transport=tcp", self.port),
            _ => format!("turn:127.0.0.1:{}?transport=udp", self.port),
        };
        let urls: Vec<_> = schemes.iter().map(url).collect();
        let servers = serde_json::json!([{"urls": urls, "username": USER, "credential": password}]);
        let file = self.dir.path().join(format!("servers-{}.json", urls.len()));
        fs::write(&file, servers.to_string()).unwrap();
        format!("--embedded-flag=--ice-servers={}", file.display())
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A private CA, a certificate of loopback, and its key.
fn certificate() -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (ca_certificate.pem(), certificate.pem(), key.serialize_pem())
}
