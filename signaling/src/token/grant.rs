//! Grants of a join token by the names that LiveKit's tokens have for them.

use std::fmt;
use std::str::FromStr;

use livekit_token::VideoGrants;
use thiserror::Error;

/// Sources that `canPublishSources` may name (livekit protocol auth/grants.go, `sourceToString`).
const SOURCES: [&str; 4] = ["camera", "microphone", "screen_share", "screen_share_audio"];

/// One grant, `NAME=VALUE`: `canPublish=false`, `canPublishSources=camera,microphone`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    name: String,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Flag(bool),
    List(Vec<String>),
    Text(String),
}

/// Why a text is no grant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrantError {
    /// No `=`.
    #[error("write it like canPublish=false")]
    NotAGrant,
    /// Given otherwise.
    #[error("the room is --room's")]
    Room,
    /// No such grant.
    #[error(
        "there is no grant '{0}'; there are roomJoin, roomCreate, roomList, roomRecord, roomAdmin, \
         ingressAdmin, canPublish, canSubscribe, canPublishData, canPublishSources, \
         canUpdateOwnMetadata, hidden, recorder, agent and destinationRoom"
    )]
    Unknown(String),
    /// No flag.
    #[error("'{0}' is true or false")]
    NotAFlag(String),
    /// No source.
    #[error(
        "there is no source '{0}'; there are camera, microphone, screen_share and screen_share_audio"
    )]
    NotASource(String),
}

impl Grant {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets it among these.
    pub(super) fn apply(&self, grants: &mut VideoGrants) {
        match (self.name.as_str(), &self.value) {
            ("canPublishSources", Value::List(sources)) => {
                grants.can_publish_sources.clone_from(sources);
            }
            ("destinationRoom", Value::Text(room)) => grants.destination_room.clone_from(room),
            (name, Value::Flag(flag)) => {
                if let Some(place) = place(grants, name) {
                    place.set(*flag);
                }
            }
            _ => {}
        }
    }
}

/// Where a flag is.
enum Place<'a> {
    Flag(&'a mut bool),
    Known(&'a mut Option<bool>),
}

impl Place<'_> {
    fn set(self, flag: bool) {
        match self {
            Self::Flag(place) => *place = flag,
            Self::Known(place) => *place = Some(flag),
        }
    }
}

fn place<'a>(grants: &'a mut VideoGrants, name: &str) -> Option<Place<'a>> {
    Some(match name {
        "roomJoin" => Place::Flag(&mut grants.room_join),
        "roomCreate" => Place::Flag(&mut grants.room_create),
        "roomList" => Place::Flag(&mut grants.room_list),
        "roomRecord" => Place::Flag(&mut grants.room_record),
        "roomAdmin" => Place::Flag(&mut grants.room_admin),
        "ingressAdmin" => Place::Flag(&mut grants.ingress_admin),
        "hidden" => Place::Flag(&mut grants.hidden),
        "recorder" => Place::Flag(&mut grants.recorder),
        "agent" => Place::Flag(&mut grants.agent),
        "canPublish" => Place::Known(&mut grants.can_publish),
        "canSubscribe" => Place::Known(&mut grants.can_subscribe),
        "canPublishData" => Place::Known(&mut grants.can_publish_data),
        "canUpdateOwnMetadata" => Place::Known(&mut grants.can_update_own_metadata),
        _ => return None,
    })
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or(GrantError::NotAGrant)?;
        let (name, value) = (name.trim(), value.trim());
        let value = match name {
            "room" => return Err(GrantError::Room),
            "destinationRoom" => Value::Text(value.to_owned()),
            "canPublishSources" => {
                let sources: Vec<String> =
                    value.split(',').map(|source| source.trim().to_owned()).collect();
                let unknown = sources.iter().find(|source| !SOURCES.contains(&source.as_str()));
                if let Some(unknown) = unknown {
                    return Err(GrantError::NotASource(unknown.clone()));
                }
                Value::List(sources)
            }
            _ if place(&mut VideoGrants::default(), name).is_none() => {
                return Err(GrantError::Unknown(name.to_owned()));
            }
            _ => Value::Flag(value.parse().map_err(|_| GrantError::NotAFlag(name.to_owned()))?),
        };
        Ok(Self { name: name.to_owned(), value })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Flag(flag) => write!(f, "{}={flag}", self.name),
            Value::List(list) => write!(f, "{}={}", self.name, list.join(",")),
            Value::Text(text) => write!(f, "{}={text}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{ApiCredentials, JoinGrant, Profile, TOKEN_TTL, Token, TokenError};

    #[test]
    fn grants_are_read_shown_and_refused_by_name() {
        for text in ["canPublish=false", "hidden=true", "canPublishSources=camera,microphone"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for (text, error) in [
            ("canPublish", GrantError::NotAGrant),
            ("room=a", GrantError::Room),
            ("canpublish=true", GrantError::Unknown("canpublish".to_owned())),
            ("hidden=1", GrantError::NotAFlag("hidden".to_owned())),
            ("canPublishSources=cam", GrantError::NotASource("cam".to_owned())),
        ] {
            assert_eq!(text.parse::<Grant>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_token_says_what_it_was_asked_to_say() {
        let credentials = ApiCredentials::new("key", "secret").unwrap();
        let grants = ["canPublish=false", "canUpdateOwnMetadata=true", "roomAdmin=true"];
        let profile = Profile {
            grants: grants.map(|text| text.parse().unwrap()).to_vec(),
            metadata: "about me".to_owned(),
            attributes: vec![("lang".to_owned(), "en".to_owned())],
        };
        let grant = JoinGrant {
            room: "a room",
            identity: "somebody",
            can_publish: true,
            can_publish_data: false,
            can_subscribe: true,
            hidden: false,
            ttl: TOKEN_TTL,
            profile: &profile,
        };
        let token = credentials.join_token(&grant).unwrap();
        let facts = token.facts().unwrap();
        assert_eq!((facts.identity.as_str(), facts.room.as_str()), ("somebody", "a room"));
        assert!(facts.can_join && facts.can_subscribe && facts.can_update_own_metadata);
        assert!(!facts.can_publish && !facts.hidden);
        let claims = livekit_token::Claims::from_unverified(token.expose()).unwrap();
        assert!(claims.video.room_admin);
        assert_eq!((claims.metadata.as_str(), &*claims.attributes["lang"]), ("about me", "en"));
        assert_eq!(Token::new("no.token").unwrap().facts(), Err(TokenError::Unreadable));
    }
}
