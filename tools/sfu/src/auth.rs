//! Access tokens (LiveKit `pkg/service/auth.go`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, StatusCode, header};
use livekit_token::{AccessToken, Claims, TokenVerifier};

use crate::SfuOptions;

/// How long a token that is made here is good for at least (LiveKit `pkg/service/roommanager.go`,
/// `tokenDefaultTTL`).
const REFRESHED_TTL_MIN: Duration = Duration::from_secs(600);

/// Why a request is not allowed. The token itself is never part of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// No token at all.
    #[error("no access token: send Authorization: Bearer or ?access_token=")]
    Missing,
    /// Not signed with our key and secret by HS256, expired, not valid yet, or not a token.
    #[error(
        "invalid access token: wrong key or secret, not signed by HS256, expired, without an expiry, not \
         valid yet, or malformed"
    )]
    Invalid,
    /// It does not say whose it is.
    #[error("the token names no issuer: iss has to be the API key whose secret signed it")]
    NoIssuer,
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

    /// The claims of the request's token. What is checked is what LiveKit checks (protocol
    /// `auth/verifier.go`): HS256, the issuer, and times with a minute's leeway; and that it expires.
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
        let token = token.ok_or(AuthError::Missing)?;
        let claims = self.verifier.verify(token).map_err(|_| AuthError::Invalid)?;
        // The verifier compares issuers only where there is one.
        match claims.iss == self.api_key {
            true => Ok(claims),
            false => Err(AuthError::NoIssuer),
        }
    }

    /// The same rights for another while, as LiveKit hands them out to clients that stay
    /// (`pkg/service/roommanager.go`, `refreshToken`); `None` when the token could not be made, which
    /// only costs the client its refresh.
    pub(crate) fn refreshed(&self, claims: &Claims) -> Option<String> {
        let mut token = AccessToken::with_api_key(&self.api_key, &self.api_secret)
            .with_ttl(refreshed_ttl(claims, SystemTime::now()))
            .with_identity(&claims.sub)
            .with_name(&claims.name)
            .with_kind(&claims.kind)
            .with_metadata(&claims.metadata)
            .with_attributes(claims.attributes.clone())
            .with_grants(claims.video.clone());
        if let Some(config) = &claims.room_config {
            token = token.with_room_config(config.clone());
        }
        token.to_jwt().ok()
    }
}

/// As long as the first token, and ten minutes if that is longer: a client that stays gets another one
/// every five.
fn refreshed_ttl(claims: &Claims, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let expiry = Duration::from_secs(claims.exp as u64);
    expiry.saturating_sub(now).max(REFRESHED_TTL_MIN)
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use aws_lc_rs::hmac;
    use axum::http::HeaderValue;
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use livekit_protocol::RoomConfiguration;
    use livekit_token::VideoGrants;
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "key";
    const SECRET: &str = "a-secret-of-32-characters-at-least";

    fn auth() -> Auth {
        let (api_key, api_secret) = (KEY.to_owned(), SECRET.to_owned());
        Auth::new(&SfuOptions { api_key, api_secret, ..SfuOptions::default() })
    }

    /// So many seconds from now.
    fn at(seconds: i64) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() as i64 + seconds
    }

    fn token(algorithm: &str, signed_by: hmac::Algorithm, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "alg": algorithm, "typ": "JWT" });
        let signed = format!("{}.{}", part(&header), part(claims));
        let key = hmac::Key::new(signed_by, SECRET.as_bytes());
        let signature = hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token of these claims besides those of everyone's; `null` takes one away.
    fn claims_with(changed: Value) -> Value {
        let mut claims = json!({ "iss": KEY, "sub": "alice", "nbf": at(-5), "exp": at(60) });
        for (name, value) in changed.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn verdict(token: &str) -> Result<String, AuthError> {
        let mut headers = HeaderMap::new();
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(header::AUTHORIZATION, bearer);
        let by_header = auth().claims(&headers, None).map(|claims| claims.sub);
        let by_query = auth().claims(&HeaderMap::new(), Some(token)).map(|claims| claims.sub);
        assert_eq!(by_header, by_query);
        by_header
    }

    #[test]
    fn tokens_are_taken_as_livekit_takes_them() {
        let with = |changed| verdict(&token("HS256", hmac::HMAC_SHA256, &claims_with(changed)));
        let good = Ok("alice".to_owned());
        assert_eq!(with(json!({})), good);
        // Clocks may differ by a minute.
        assert_eq!(with(json!({ "exp": at(-30) })), good);
        assert_eq!(with(json!({ "nbf": at(30) })), good);
        assert_eq!(with(json!({ "nbf": null })), good);

        assert_eq!(with(json!({ "exp": at(-90) })), Err(AuthError::Invalid));
        assert_eq!(with(json!({ "nbf": at(90) })), Err(AuthError::Invalid));
        assert_eq!(with(json!({ "exp": null })), Err(AuthError::Invalid));
        assert_eq!(with(json!({ "iss": null })), Err(AuthError::NoIssuer));
        for issuer in [json!(""), json!("other"), json!(["key"]), json!(7)] {
            let wrong = with(json!({ "iss": issuer }));
            assert!(wrong.is_err(), "iss {issuer} is taken");
        }
        assert_eq!(AuthError::NoIssuer.status(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn tokens_of_another_algorithm_are_refused() {
        let claims = claims_with(json!({}));
        let good = token("HS256", hmac::HMAC_SHA256, &claims);
        assert!(verdict(&good).is_ok());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let nobody_s = token("none", hmac::HMAC_SHA256, &claims);
        for wrong in [
            token("HS384", hmac::HMAC_SHA384, &claims),
            token("HS512", hmac::HMAC_SHA512, &claims),
            token("none", hmac::HMAC_SHA256, &claims),
            format!("{}.", nobody_s.rsplit_once('.').unwrap().0),
            format!("{signed}."),
            format!("{signed}.A{signature}"),
            signed.to_owned(),
        ] {
            assert_eq!(verdict(&wrong), Err(AuthError::Invalid), "{wrong}");
        }
        assert_eq!(auth().claims(&HeaderMap::new(), Some("")), Err(AuthError::Missing));
    }

    #[test]
    fn a_refreshed_token_says_what_the_first_one_said() {
        let first = AccessToken::with_api_key(KEY, SECRET)
            .with_identity("alice")
            .with_name("Alice")
            .with_kind("agent")
            .with_metadata("about")
            .with_attributes([("seat", "7")])
            .with_grants(VideoGrants {
                room_join: true,
                room: "blue".into(),
                can_publish: Some(false),
                hidden: true,
                ..VideoGrants::default()
            })
            .with_room_config(RoomConfiguration { max_participants: 3, ..Default::default() })
            .with_ttl(Duration::from_secs(7_200))
            .to_jwt()
            .unwrap();
        let auth = auth();
        let claims = |token: &str| auth.claims(&HeaderMap::new(), Some(token)).unwrap();
        let first = claims(&first);
        let again = claims(&auth.refreshed(&first).unwrap());
        assert_eq!(first.attributes, HashMap::from([("seat".to_owned(), "7".to_owned())]));
        assert!(again.exp.abs_diff(first.exp) <= 1, "{} and {}", again.exp, first.exp);
        assert_eq!(Claims { exp: first.exp, nbf: first.nbf, ..again }, first);
    }

    #[test]
    fn a_short_token_becomes_one_of_ten_minutes_and_a_long_one_lasts_as_long_as_it_did() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ttl_s = |exp| refreshed_ttl(&Claims { exp, ..Claims::default() }, now).as_secs();
        assert_eq!([ttl_s(0), ttl_s(1_000_060), ttl_s(1_000_600)], [600; 3]);
        assert_eq!(ttl_s(1_021_600), 21_600);
    }
}
