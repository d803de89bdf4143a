//! One TLS client configuration for a whole process.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_platform_verifier::Verifier;
use thiserror::Error;

use crate::proxy::Proxies;

/// Environment variables that name another store than the system's, as OpenSSL and curl read them.
const STORE_FILE: &str = "SSL_CERT_FILE";
const STORE_DIR: &str = "SSL_CERT_DIR";

/// Why a TLS setup can't be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsSetupError {
    /// The PEM text holds no usable certificate.
    #[error("no usable certificate: {detail}")]
    BadPem {
        /// What was wrong.
        detail: String,
    },
    /// The environment names a store, and there is nothing in it to trust.
    #[error("{variable} {place}: no usable certificate: {detail}; put it right or unset it")]
    BadStore {
        /// `SSL_CERT_FILE` or `SSL_CERT_DIR`.
        variable: &'static str,
        /// Its value.
        place: String,
        /// What was wrong.
        detail: String,
    },
    /// rustls refused its own defaults.
    #[error("TLS can't be set up: {detail}")]
    Unavailable {
        /// What rustls said.
        detail: String,
    },
}

impl TlsSetupError {
    fn unavailable(error: impl ToString) -> Self {
        Self::Unavailable { detail: error.to_string() }
    }
}

/// TLS for `wss://` and `https://`: rustls on aws-lc-rs. Make one and clone it: connections share
/// the configuration and its session tickets.
///
/// The provider is named rather than taken from the process default, which is ambiguous as soon as
/// a second provider is compiled in.
#[derive(Clone)]
pub struct TlsSetup {
    config: Arc<ClientConfig>,
}

impl TlsSetup {
    /// Trusts Mozilla's roots as they were compiled in (webpki-roots), and reads no file.
    ///
    /// # Errors
    /// [`TlsSetupError::Unavailable`].
    pub fn new() -> Result<Self, TlsSetupError> {
        Self::compiled_in(Vec::new())
    }

    /// Trusts what the system trusts, or the store that `SSL_CERT_FILE` and `SSL_CERT_DIR` name,
    /// and every certificate of `extra`, a PEM text (a private CA). Where the system has no store,
    /// as in an empty container, Mozilla's roots take its place. Reads files.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn system(extra: Option<&[u8]>) -> Result<Self, TlsSetupError> {
        let (file, dir) = (std::env::var_os(STORE_FILE), std::env::var_os(STORE_DIR));
        let extra = extra.map_or(Ok(Vec::new()), certificates)?;
        check_named_file(file.as_deref())?;
        // Asked alone: with `extra` the verifier would be content with nothing else.
        let Ok(verifier) = Verifier::new(provider()) else {
            check_named_dir(file.as_deref(), dir.as_deref())?;
            return Self::compiled_in(extra);
        };
        let verifier = if extra.is_empty() {
            verifier
        } else {
            Verifier::new_with_extra_roots(extra, provider())
                .map_err(|error| TlsSetupError::BadPem { detail: error.to_string() })?
        };
        let builder = builder()?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Self { config: Arc::new(builder.with_no_client_auth()) })
    }

    fn compiled_in(extra: Vec<CertificateDer<'static>>) -> Result<Self, TlsSetupError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in extra {
            roots
                .add(certificate)
                .map_err(|error| TlsSetupError::BadPem { detail: error.to_string() })?;
        }
        let config = builder()?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }

    /// An HTTP client with this setup, by way of these proxies, that follows no redirects; set its
    /// timeout before use.
    pub fn http_client(&self, proxies: &Proxies) -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured((*self.config).clone())
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("stampede/", env!("CARGO_PKG_VERSION")));
        proxies.apply(builder)
    }

    /// The configuration itself, for TLS to others than HTTP servers.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl std::fmt::Debug for TlsSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSetup").finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsSetupError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError::unavailable)
}

/// Every certificate of a PEM text; there is one at least.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let bad = |detail: String| TlsSetupError::BadPem { detail };
    let mut found = Vec::new();
    let mut trial = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        trial.add(certificate.clone()).map_err(|error| bad(error.to_string()))?;
        found.push(certificate);
    }
    if found.is_empty() {
        return Err(bad("it has no BEGIN CERTIFICATE section".to_owned()));
    }
    Ok(found)
}

/// The verifier only logs what it could not read: a file that somebody named must not be passed
/// over for another store.
fn check_named_file(file: Option<&OsStr>) -> Result<(), TlsSetupError> {
    let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(()) };
    let bad = |detail: String| TlsSetupError::BadStore {
        variable: STORE_FILE,
        place: Path::new(file).display().to_string(),
        detail,
    };
    let found = CertificateDer::pem_file_iter(file).map_err(|error| bad(error.to_string()))?;
    // A bundle may hold some that are of no use; one that is will do.
    let usable = |certificate: CertificateDer<'static>| RootCertStore::empty().add(certificate);
    let mut why = "it has no BEGIN CERTIFICATE section".to_owned();
    for certificate in found {
        match certificate.map_err(|error| error.to_string()).map(usable) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => why = error.to_string(),
            Err(error) => why = error,
        }
    }
    Err(bad(why))
}

/// Nothing was found to trust: that is a fault if it is the folder that somebody named.
fn check_named_dir(file: Option<&OsStr>, dir: Option<&OsStr>) -> Result<(), TlsSetupError> {
    let named = |value: Option<&OsStr>| value.is_some_and(|value| !value.is_empty());
    match dir {
        Some(dir) if named(Some(dir)) && !named(file) => Err(TlsSetupError::BadStore {
            variable: STORE_DIR,
            place: Path::new(dir).display().to_string(),
            detail: "no file there holds any".to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_without_certificates_is_refused() {
        let refused = |pem: &[u8]| TlsSetup::system(Some(pem)).unwrap_err().to_string();
        assert!(refused(b"nothing here").contains("no BEGIN CERTIFICATE"));
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refused(cut.as_bytes()).contains("no usable certificate"));
    }

    #[test]
    fn a_store_that_somebody_named_is_not_passed_over() {
        assert_eq!(check_named_file(None), Ok(()));
        assert_eq!(check_named_file(Some(OsStr::new(""))), Ok(()));
        for (file, why) in [("/nonexistent/ca.pem", "No such file"), ("/dev/null", "no BEGIN")] {
            let error = check_named_file(Some(OsStr::new(file))).unwrap_err().to_string();
            let needs = [STORE_FILE, file, why];
            assert!(needs.iter().all(|need| error.contains(need)), "{error}");
        }
        let dir = Some(OsStr::new("/nonexistent"));
        assert_eq!(check_named_dir(Some(OsStr::new("/a")), dir), Ok(()));
        assert!(check_named_dir(None, dir).unwrap_err().to_string().contains(STORE_DIR));
    }
}
