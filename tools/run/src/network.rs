//! The way to the server: what was asked for and what the environment says, opened.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stampede_engine::{PathKind, Transport};
use stampede_report::Failure;
use stampede_scenario::NetworkSpec;
use stampede_signaling::connection::{Dial, TlsSetup, TlsSetupError};
use stampede_signaling::presence::{self, Absence};
use stampede_signaling::{Proxies, Proxy, ServerUrl};

/// Longest `--ca` read; Mozilla's whole list has a quarter of a megabyte.
const CA_BYTES_MAX: u64 = 16 << 20;

/// How servers are reached.
#[derive(Debug, Clone)]
pub struct Network {
    /// Whom TLS trusts.
    pub(crate) tls: TlsSetup,
    /// Proxies, for HTTP clients.
    pub(crate) proxies: Proxies,
    /// The one on the way to the server.
    pub(crate) proxy: Option<Proxy>,
    /// What makes the byte streams of signalling; `None` for TCP.
    pub(crate) dial: Option<Arc<dyn Dial>>,
}

impl Network {
    /// Reads the certificates and the environment, as far as what is to be reached needs them: the
    /// server, and `others`.
    ///
    /// # Errors
    /// Exit code 104: what can't be read or used.
    pub fn open(
        spec: &NetworkSpec,
        server: Option<&ServerUrl>,
        others: &[&reqwest::Url],
        transport: Transport,
    ) -> Result<Self, Failure> {
        let environment = |name: &str| std::env::var_os(name);
        let proxies = match &spec.proxy {
            Some(asked) => Proxies::asked("--proxy", asked.expose(), environment),
            None => Ok(Proxies::of_environment(environment)),
        }
        .map_err(Failure::config)?;
        let proxy = server.map_or(Ok(None), |url| proxies.of(url)).map_err(Failure::config)?;
        for url in others {
            proxies.of_http(url).map_err(Failure::config)?;
        }
        let secure = server.is_some_and(ServerUrl::is_secure)
            || others.iter().any(|url| url.scheme() == "https");
        let tls = match &spec.ca {
            Some(file) => {
                let bad = |why: String| Failure::config(format!("--ca {}: {why}", file.display()));
                let pem = read(file).map_err(bad)?;
                TlsSetup::system(Some(&pem)).map_err(|error| match error {
                    TlsSetupError::BadPem { .. } => bad(error.to_string()),
                    other => Failure::config(other),
                })?
            }
            None if secure || transport == Transport::Only(PathKind::TurnTls) => {
                TlsSetup::system(None).map_err(Failure::config)?
            }
            // A TURN server may be asked, if nothing else works.
            None if server.is_some() && transport == Transport::Auto => {
                TlsSetup::system(None).or_else(|_| TlsSetup::new()).map_err(Failure::other)?
            }
            // Nobody will ask: no file is read.
            None => TlsSetup::new().map_err(Failure::other)?,
        };
        Ok(Self { tls, proxies, proxy, dial: None })
    }

    /// An HTTP client that trusts and goes by what this says, and follows no redirects. Set its
    /// timeouts.
    pub fn http_client(&self) -> reqwest::ClientBuilder {
        self.tls.http_client(&self.proxies)
    }

    /// Asks a server whether it is still there.
    ///
    /// # Errors
    /// Why it is taken to be gone.
    pub(crate) async fn ask(&self, url: &ServerUrl, limit: Duration) -> Result<(), Absence> {
        let Some(dial) = &self.dial else {
            return presence::ask(url, &self.tls, &self.proxies, limit).await;
        };
        match tokio::time::timeout(limit, dial.dial(url)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Absence::Refused),
            Err(_) => Err(Absence::Silent(limit)),
        }
    }

    /// What has to be said of it before the run starts.
    pub(crate) fn notice(&self) -> Option<String> {
        let proxy = self.proxy.as_ref()?;
        Some(format!(
            "signalling goes through the proxy {} ({}); media does not",
            proxy.authority(),
            proxy.named_by()
        ))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut pem = Vec::new();
    let opened = File::open(file).map_err(|error| format!("cannot be read: {error}"))?;
    opened
        .take(CA_BYTES_MAX + 1)
        .read_to_end(&mut pem)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(format!(
            "it is longer than {CA_BYTES_MAX} bytes: is it a bundle of certificates?"
        ));
    }
    Ok(pem)
}
