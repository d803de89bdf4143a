//! Credentials and join tokens. Nothing here prints a secret.

mod grant;

use std::fmt;
use std::time::Duration;

use livekit_token::{AccessToken, Claims, VideoGrants};
use thiserror::Error;

pub use grant::{Grant, GrantError};

/// Secrets shorter than this are refused by livekit-server itself at its start
/// (livekit pkg/config `ValidateKeys`), so one that short is likely a slip.
pub const SECRET_CHARS_MIN: usize = 32;

/// Lifetime of a join token unless told otherwise; the server refreshes it while connected.
pub const TOKEN_TTL: Duration = Duration::from_secs(6 * 3600);

/// Why credentials or a token can't be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// No API key.
    #[error("the API key is empty; give --api-key or LIVEKIT_API_KEY")]
    EmptyKey,
    /// No API secret.
    #[error("the API secret is empty; give --api-secret or LIVEKIT_API_SECRET")]
    EmptySecret,
    /// No room name.
    #[error("the room name is empty")]
    EmptyRoom,
    /// No identity.
    #[error("the participant identity is empty")]
    EmptyIdentity,
    /// Can't go into an HTTP header.
    #[error("the token holds characters that can't be sent in a header")]
    NotAToken,
    /// Not three parts, or no JSON in them.
    #[error("it is no LiveKit access token")]
    Unreadable,
    /// Signing failed.
    #[error("signing the token failed")]
    Signing,
}

/// An API key and its secret. `Debug` shows the key only.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiCredentials {
    key: String,
    secret: String,
}

impl ApiCredentials {
    /// Checks that neither is empty; blanks around them are dropped.
    ///
    /// # Errors
    /// [`TokenError::EmptyKey`], [`TokenError::EmptySecret`].
    pub fn new(key: &str, secret: &str) -> Result<Self, TokenError> {
        let (key, secret) = (key.trim(), secret.trim());
        if key.is_empty() {
            return Err(TokenError::EmptyKey);
        }
        if secret.is_empty() {
            return Err(TokenError::EmptySecret);
        }
        Ok(Self { key: key.to_owned(), secret: secret.to_owned() })
    }

    /// The API key, which is no secret.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A line for the user where the secret is shorter than a livekit-server takes.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let chars = self.secret.chars().count();
        (chars < SECRET_CHARS_MIN).then(|| {
            format!(
                "the API secret has {chars} characters; livekit-server wants at least \
                 {SECRET_CHARS_MIN} outside --dev"
            )
        })
    }

    /// Signs a join token (HS256; livekit pkg/service/auth.go checks it).
    ///
    /// # Errors
    /// An empty room or identity.
    pub fn join_token(&self, grant: &JoinGrant<'_>) -> Result<Token, TokenError> {
        if grant.room.is_empty() {
            return Err(TokenError::EmptyRoom);
        }
        if grant.identity.is_empty() {
            return Err(TokenError::EmptyIdentity);
        }
        let mut grants = VideoGrants {
            room_join: true,
            room: grant.room.to_owned(),
            can_publish: Some(grant.can_publish),
            can_subscribe: Some(grant.can_subscribe),
            can_publish_data: Some(grant.can_publish_data),
            hidden: grant.hidden,
            ..VideoGrants::default()
        };
        let Profile { grants: own, metadata, attributes } = grant.profile;
        own.iter().for_each(|own| own.apply(&mut grants));
        self.token(grants, grant.identity, grant.ttl)
            .with_metadata(metadata)
            .with_attributes(attributes.iter().cloned())
            .to_jwt()
            .map(Token)
            .map_err(|_| TokenError::Signing)
    }

    pub(crate) fn sign(
        &self,
        grants: VideoGrants,
        identity: &str,
        ttl: Duration,
    ) -> Result<Token, TokenError> {
        let token = self.token(grants, identity, ttl).to_jwt();
        token.map(Token).map_err(|_| TokenError::Signing)
    }

    fn token(&self, grants: VideoGrants, identity: &str, ttl: Duration) -> AccessToken {
        AccessToken::with_api_key(&self.key, &self.secret)
            .with_identity(identity)
            .with_grants(grants)
            .with_ttl(ttl)
    }
}

impl fmt::Debug for ApiCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiCredentials").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What a join token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinGrant<'a> {
    /// Room to join.
    pub room: &'a str,
    /// Identity; a second participant with the same one evicts the first.
    pub identity: &'a str,
    /// May publish tracks.
    pub can_publish: bool,
    /// May send data messages.
    pub can_publish_data: bool,
    /// May subscribe; with `false` the server makes no subscriber peer connection.
    pub can_subscribe: bool,
    /// Not shown to others: saves the server the fan-out of participant updates.
    pub hidden: bool,
    /// Lifetime, usually [`TOKEN_TTL`].
    pub ttl: Duration,
    /// What else it says; its grants come last.
    pub profile: &'a Profile,
}

/// What a join token says besides who joins which room as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// In the place of what the role would be granted.
    pub grants: Vec<Grant>,
    /// The participant's metadata.
    pub metadata: String,
    /// The participant's attributes.
    pub attributes: Vec<(String, String)>,
}

impl Profile {
    /// Bytes of metadata and attributes, which others are told whenever they are told of their owner.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| name.len() + value.len());
        self.metadata.len() + attributes.sum::<usize>()
    }
}

/// That says nothing.
pub static PLAIN: Profile =
    Profile { grants: Vec::new(), metadata: String::new(), attributes: Vec::new() };

/// What a join token says, unverified: only the server has the secret to do that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// Who joins with it.
    pub identity: String,
    /// The room that it is for.
    pub room: String,
    /// It is for joining a room.
    pub can_join: bool,
    /// Its holder may publish tracks.
    pub can_publish: bool,
    /// Its holder may send data messages.
    pub can_publish_data: bool,
    /// Of these sources alone, as LiveKit's tokens name them; empty is of all.
    pub publish_sources: Vec<String>,
    /// Its holder may subscribe.
    pub can_subscribe: bool,
    /// Its holder may change its own metadata and attributes.
    pub can_update_own_metadata: bool,
    /// Its holder is not shown to others.
    pub hidden: bool,
    /// When it expires, in seconds since the Unix epoch.
    pub expires_unix_s: u64,
}

impl TokenFacts {
    /// True if its holder may publish this source (livekit protocol auth/grants.go,
    /// `GetCanPublishSource`).
    #[must_use]
    pub fn may_publish(&self, source: &str) -> bool {
        let sources = &self.publish_sources;
        self.can_publish && (sources.is_empty() || sources.iter().any(|own| own == source))
    }
}

/// A signed access token. Neither `Debug` nor anything else prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token made elsewhere.
    ///
    /// # Errors
    /// [`TokenError::NotAToken`] if it is empty or holds anything but visible ASCII.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::NotAToken);
        }
        Ok(Self(text.to_owned()))
    }

    /// What it says, unverified.
    ///
    /// # Errors
    /// [`TokenError::Unreadable`] if it is no access token of LiveKit's.
    pub fn facts(&self) -> Result<TokenFacts, TokenError> {
        let claims = Claims::from_unverified(&self.0).map_err(|_| TokenError::Unreadable)?;
        let grants = claims.video;
        Ok(TokenFacts {
            identity: claims.sub,
            can_join: grants.room_join,
            can_publish: grants.can_publish(),
            can_publish_data: grants.can_publish_data(),
            can_subscribe: grants.can_subscribe(),
            can_update_own_metadata: grants.can_update_own_metadata(),
            hidden: grants.hidden,
            room: grants.room,
            publish_sources: grants.can_publish_sources,
            expires_unix_s: claims.exp as u64,
        })
    }

    /// The token itself. Never print it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(<redacted>)")
    }
}
