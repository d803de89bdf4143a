//! Access tokens (LiveKit `pkg/service/auth.go`).

use axum::http::{HeaderMap, StatusCode, header};
use livekit_token::{AccessToken, Claims, TokenVerifier};

use crate::SfuOptions;

/// Why a request is not allowed. The token itself is never part of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// No token at all.
    #[error("no access token: send Authorization: Bearer or ?access_token=")]
    Missing,
    /// Not signed with our key and secret, expired, or not a token.
    #[error("invalid access token: wrong key, wrong secret, expired or malformed")]
    Invalid,
    /// The token lacks the grant.
    #[error("the token does not grant {0}")]
    NotGranted(&'static str),
    /// The token has no identity.
    #[error("the token has an empty identity")]
    NoIdentity,
}

impl AuthError {
    /// LiveKit answers all of these with 401 but an empty identity, which is a bad request.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NoIdentity => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}

/// Checks tokens and makes fresh ones. `Debug` would show the key but never the secret.
#[derive(Clone)]
pub(crate) struct Auth {
    verifier: TokenVerifier,
    api_key: String,
    api_secret: String,
}

impl Auth {
    pub(crate) fn new(options: &SfuOptions) -> Self {
        Self {
            verifier: TokenVerifier::with_api_key(&options.api_key, &options.api_secret),
            api_key: options.api_key.clone(),
            api_secret: options.api_secret.clone(),
        }
    }

    /// The claims of the request's token.
    pub(crate) fn claims(
        &self,
        headers: &HeaderMap,
        query_token: Option<&str>,
    ) -> Result<Claims, AuthError> {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let token = bearer.or(query_token).filter(|token| !token.is_empty());
        self.verifier.verify(token.ok_or(AuthError::Missing)?).map_err(|_| AuthError::Invalid)
    }

    /// The same rights for another while, as LiveKit hands them out to clients that stay; `None`
    /// when the token could not be made, which only costs the client its refresh.
    pub(crate) fn refreshed(&self, claims: &Claims) -> Option<String> {
        AccessToken::with_api_key(&self.api_key, &self.api_secret)
            .with_identity(&claims.sub)
            .with_name(&claims.name)
            .with_metadata(&claims.metadata)
            .with_attributes(claims.attributes.clone())
            .with_grants(claims.video.clone())
            .to_jwt()
            .ok()
    }
}

/// Whether a token lets its holder join its room.
pub(crate) fn may_join(claims: &Claims) -> Result<(), AuthError> {
    if !claims.video.room_join || claims.video.room.is_empty() {
        return Err(AuthError::NotGranted("roomJoin"));
    }
    if claims.sub.is_empty() {
        return Err(AuthError::NoIdentity);
    }
    Ok(())
}
