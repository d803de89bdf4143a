//! Flags of the way to the server, and what they and the environment come to.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use stampede_signaling::connection::{TlsSetup, TlsSetupError};
use stampede_signaling::{Proxies, Proxy, ServerUrl};

use super::Secret;
use crate::exit::Failure;

/// Longest `--ca` read; Mozilla's whole list has a quarter of a megabyte.
const CA_BYTES_MAX: u64 = 16 << 20;

/// Flags of the way to the server.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkFlags {
    /// PEM file with certificates to trust besides those of the system (or of SSL_CERT_FILE), such
    /// as a private CA's.
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub ca: Option<PathBuf>,
    /// HTTP proxy for signalling, http://[USER:PASSWORD@]HOST:PORT, or 'none' [default: HTTPS_PROXY,
    /// HTTP_PROXY or ALL_PROXY, but never for loopback]. NO_PROXY is obeyed. Media does not use it.
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub proxy: Option<Secret>,
}

/// How servers are reached.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// Whom TLS trusts.
    pub tls: TlsSetup,
    /// Proxies, for HTTP clients.
    pub proxies: Proxies,
    /// The one on the way to the server.
    pub proxy: Option<Proxy>,
}

impl Network {
    /// Reads the certificates and the environment, as far as what is to be reached needs them.
    ///
    /// # Errors
    /// Exit code 104: what can't be read or used.
    pub(super) fn new(
        flags: &NetworkFlags,
        server: Option<&ServerUrl>,
        metrics: &[reqwest::Url],
    ) -> Result<Self, Failure> {
        let environment = |name: &str| std::env::var_os(name);
        let proxies = match &flags.proxy {
            Some(asked) => Proxies::asked("--proxy", asked.expose(), environment),
            None => Ok(Proxies::of_environment(environment)),
        }
        .map_err(Failure::config)?;
        let proxy = server.map_or(Ok(None), |url| proxies.of(url)).map_err(Failure::config)?;
        for url in metrics {
            proxies.of_http(url).map_err(Failure::config)?;
        }
        let secure = server.is_some_and(ServerUrl::is_secure)
            || metrics.iter().any(|url| url.scheme() == "https");
        let tls = match &flags.ca {
            Some(file) => {
                let bad = |why: String| Failure::config(format!("--ca {}: {why}", file.display()));
                let pem = read(file).map_err(bad)?;
                TlsSetup::system(Some(&pem)).map_err(|error| match error {
                    TlsSetupError::BadPem { .. } => bad(error.to_string()),
                    other => Failure::config(other),
                })?
            }
            None if secure => TlsSetup::system(None).map_err(Failure::config)?,
            // Nobody will ask: no file is read.
            None => TlsSetup::new().map_err(Failure::other)?,
        };
        Ok(Self { tls, proxies, proxy })
    }

    /// What has to be said of it before the run starts.
    pub(super) fn note(&self) -> Option<String> {
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
