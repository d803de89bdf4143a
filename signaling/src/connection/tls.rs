//! One TLS client configuration for a whole process.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Why a TLS setup can't be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsSetupError {
    /// The PEM text holds no usable certificate.
    #[error("no usable certificate in the PEM text: {detail}")]
    BadPem {
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

/// TLS for `wss://` and `https://`: rustls on aws-lc-rs, Mozilla's roots. Make one and clone it:
/// connections share the configuration and its session tickets.
///
/// The provider is named rather than taken from the process default, which is ambiguous as soon as
/// a second provider is compiled in.
#[derive(Clone)]
pub struct TlsSetup {
    config: Arc<ClientConfig>,
}

impl TlsSetup {
    /// Mozilla's roots (webpki-roots).
    ///
    /// # Errors
    /// [`TlsSetupError::Unavailable`].
    pub fn new() -> Result<Self, TlsSetupError> {
        Self::build(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    /// Mozilla's roots and every certificate of `pem` (a private CA).
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn with_extra_roots(pem: &[u8]) -> Result<Self, TlsSetupError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let bad = |detail: String| TlsSetupError::BadPem { detail };
        let mut added = 0_usize;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(bad("it has no BEGIN CERTIFICATE section".to_owned()));
        }
        Self::build(roots)
    }

    fn build(roots: RootCertStore) -> Result<Self, TlsSetupError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsSetupError::Unavailable { detail: error.to_string() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }

    /// An HTTP client with this setup that follows no redirects; set its timeout before use.
    pub fn http_client(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .tls_backend_preconfigured((*self.config).clone())
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("stampede/", env!("CARGO_PKG_VERSION")))
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl std::fmt::Debug for TlsSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSetup").finish_non_exhaustive()
    }
}
