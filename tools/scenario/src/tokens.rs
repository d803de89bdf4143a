//! Join tokens that others have made: which participant joins with which.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use stampede_report::Failure;
use stampede_signaling::session::{DataTracks, SignalVersion, TrackSource};
use stampede_signaling::{Token, TokenFacts};

use crate::{OwnIdentities, ParticipantSpec, Participants, Signal};

/// Most tokens of a file; more is a slip.
pub const TOKENS_MAX: usize = 1_000_000;

/// A token and the line that it stands in.
#[derive(Debug, Clone)]
pub struct TokenLine {
    /// From 1.
    pub line: usize,
    /// It.
    pub token: Token,
}

/// The tokens of a text, one a line; empty lines and those that begin with `#` are none.
///
/// # Errors
/// The first line that is no token, by its number and never by what it holds; exit code 104.
pub fn token_lines(text: &str) -> Result<Vec<TokenLine>, Failure> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let tokens: Result<Vec<_>, _> = lines
        .take(TOKENS_MAX + 1)
        .map(|(line, text)| match Token::new(text) {
            Ok(token) => Ok(TokenLine { line, token }),
            Err(error) => Err(wrong(line, error)),
        })
        .collect();
    match tokens {
        Ok(tokens) if tokens.is_empty() => {
            Err(Failure::config("--token-file: there is no token in it; write one a line"))
        }
        Ok(tokens) if tokens.len() > TOKENS_MAX => {
            Err(Failure::config(format!("--token-file: it has more than {TOKENS_MAX} tokens")))
        }
        tokens => tokens,
    }
}

fn wrong(line: usize, why: impl std::fmt::Display) -> Failure {
    Failure::config(format!("--token-file, line {line}: {why}"))
}

/// The tokens of a room, in the order of the file.
struct OfRoom {
    name: Rc<str>,
    tokens: VecDeque<(TokenLine, TokenFacts)>,
}

impl Participants {
    /// Gives everybody a token, and with it identity and room: the first room of the file is the
    /// first of the run, and within a room publishers come first, then who do both, then
    /// subscribers. It is `unix_s` now, and they speak `signal`.
    ///
    /// # Errors
    /// Too few tokens, or one that does not allow what its participant is to do; exit code 104.
    pub fn hand_out(
        &mut self,
        tokens: Vec<TokenLine>,
        unix_s: u64,
        signal: Signal,
    ) -> Result<(), Failure> {
        let mut rooms = by_room(tokens, unix_s)?;
        if rooms.len() < self.rooms.len() {
            return Err(Failure::config(format!(
                "--token-file has tokens for {} rooms, but the run has {}: lower --rooms, or add \
                 tokens",
                rooms.len(),
                self.rooms.len()
            )));
        }
        rooms.truncate(self.rooms.len());
        let parts = [&self.publishers, &self.participants, &self.subscribers];
        for (own, room) in self.rooms.iter().zip(&rooms) {
            let joins = parts.iter().flat_map(|part| part.iter());
            let joins = joins.filter(|spec| spec.room == *own).count();
            if joins > room.tokens.len() {
                return Err(Failure::config(format!(
                    "--token-file has {} tokens for the room '{}', but {joins} participants are to \
                     join it: add tokens, or lower the counts",
                    room.tokens.len(),
                    room.name
                )));
            }
        }
        let everybody = parts.iter().flat_map(|part| part.iter());
        let of_run = OfRun {
            two_connections: signal.first() == SignalVersion::V0,
            subscribes: everybody
                .map(|spec| spec.role.data_tracks_of_others)
                .any(|tracks| tracks == DataTracks::Manual),
        };
        let mut named = HashSet::new();
        let parts = [&mut self.publishers, &mut self.participants, &mut self.subscribers];
        for spec in parts.into_iter().flatten() {
            let number = self.rooms.iter().position(|own| *own == spec.room).unwrap_or(0);
            let Some(room) = rooms.get_mut(number) else { continue };
            let Some((TokenLine { line, token }, facts)) = room.tokens.pop_front() else {
                continue;
            };
            check(spec, &facts, of_run).map_err(|why| wrong(line, why))?;
            (spec.identity, spec.hidden) = (facts.identity, facts.hidden);
            (spec.room, spec.token) = (Rc::clone(&room.name), Some(token));
            named.insert(spec.identity.clone());
        }
        self.rooms = rooms.into_iter().map(|room| room.name).collect();
        if let Some(first) = self.rooms.first() {
            self.room_base = first.to_string();
        }
        self.own = OwnIdentities::named(named).into();
        Ok(())
    }
}

/// The tokens by their rooms, in the order in which these come.
fn by_room(tokens: Vec<TokenLine>, unix_s: u64) -> Result<Vec<OfRoom>, Failure> {
    let mut rooms: Vec<OfRoom> = Vec::new();
    let mut seen = HashSet::new();
    for one in tokens {
        let facts = one.token.facts().map_err(|error| wrong(one.line, error))?;
        if !facts.can_join || facts.room.is_empty() {
            return Err(wrong(one.line, "the token is not for joining a room (roomJoin, room)"));
        }
        if facts.identity.is_empty() {
            return Err(wrong(one.line, "the token has no identity (sub)"));
        }
        if facts.expires_unix_s <= unix_s {
            let ago = unix_s - facts.expires_unix_s;
            return Err(wrong(one.line, format!("the token expired {ago} s ago")));
        }
        if !seen.insert((facts.room.clone(), facts.identity.clone())) {
            let why = format!("a token of '{}' for this room stands before it", facts.identity);
            return Err(wrong(one.line, why));
        }
        // A file has few rooms, or each of them once: the latest is the likeliest.
        match rooms.iter_mut().rev().find(|room| *room.name == *facts.room) {
            Some(room) => room.tokens.push_back((one, facts)),
            None => {
                let name = facts.room.as_str().into();
                rooms.push(OfRoom { name, tokens: [(one, facts)].into() });
            }
        }
    }
    Ok(rooms)
}

/// What of a run decides which tokens will do.
#[derive(Clone, Copy)]
struct OfRun {
    /// Who receives has a connection for that alone (v0).
    two_connections: bool,
    /// Somebody subscribes by itself to the data tracks that it is told of.
    subscribes: bool,
}

/// Whether a token allows what a participant is to do.
fn check(spec: &ParticipantSpec, facts: &TokenFacts, of_run: OfRun) -> Result<(), String> {
    let lacks = |what: &str, grant: &str| {
        let identity = &facts.identity;
        Err(format!("the token of '{identity}' is {what}'s, and does not grant {grant}"))
    };
    for track in &spec.role.tracks {
        let (what, shown) = match track.source {
            TrackSource::Microphone => ("an audio publisher", "microphone"),
            TrackSource::ScreenShare => ("a screen share publisher", "screen share"),
            TrackSource::ScreenShareAudio => ("a screen share publisher", "screen share's audio"),
            TrackSource::Camera | TrackSource::Unknown => ("a video publisher", "camera"),
        };
        if !facts.may_publish(track.source.name()) {
            return lacks(what, &format!("canPublish of the {shown}"));
        }
    }
    if spec.sends_data() && !facts.can_publish_data {
        return lacks("a data publisher", "canPublishData");
    }
    if spec.role.rpc && !facts.can_publish_data {
        return lacks("somebody who is called", "canPublishData, which answers take");
    }
    // By v0 a server sends data to who may subscribe by the subscriber's connection (livekit
    // pkg/rtc/transportmanager.go, `getTransport`), which who only publishes does not have.
    let hears = spec.media.rpc.as_ref().is_some_and(|rpc| {
        // Who is called by name is somebody else.
        rpc.calls.is_some() || rpc.callee.is_none()
    });
    if of_run.two_connections && hears && !spec.receives() && facts.can_subscribe {
        return Err(format!(
            "the token of '{}' is a publisher's, and grants canSubscribe: by --signal v0 it would \
             hear no calls or answers; take it without canSubscribe, or --signal v1",
            facts.identity
        ));
    }
    if facts.hidden && spec.role.data_track && of_run.subscribes {
        return Err(
            "the token is of a hidden participant, to whose data track nobody subscribes by \
                    itself: take --data-track-subscribe auto"
                .into(),
        );
    }
    if spec.receives() && !facts.can_subscribe {
        return lacks("a subscriber", "canSubscribe");
    }
    let updates = spec.updates_every.is_some();
    if updates && !facts.can_update_own_metadata {
        return lacks("a participant", "canUpdateOwnMetadata, which updates of itself take");
    }
    if updates && facts.hidden {
        return Err("the token is of a hidden participant, of whose updates nobody is told".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use stampede_signaling::{ApiCredentials, JoinGrant, Profile, TOKEN_TTL};

    use super::*;
    use crate::{Clips, Draft, Scenario};

    const V1: Signal = Signal::Only(SignalVersion::V1);

    fn token(room: &str, identity: &str, grants: &[&str]) -> String {
        let profile = Profile {
            grants: grants.iter().map(|text| text.parse().unwrap()).collect(),
            ..Profile::default()
        };
        let grant = JoinGrant {
            room,
            identity,
            can_publish: true,
            can_publish_data: false,
            can_subscribe: true,
            hidden: false,
            ttl: TOKEN_TTL,
            profile: &profile,
        };
        let credentials = ApiCredentials::new("key", "secret").unwrap();
        credentials.join_token(&grant).unwrap().expose().to_owned()
    }

    fn draft() -> Draft {
        Draft {
            url: Some("ws://server.invalid".to_owned()),
            token_file: Some("tokens".into()),
            audio_publishers: Some(1),
            subscribers: Some(2),
            ..Draft::default()
        }
    }

    fn participants(draft: Draft) -> Participants {
        let clip = stampede_media::builtin::audio().unwrap();
        let clips = Clips { audio: Some(clip.into()), ..Clips::default() };
        Participants::new(&Scenario::new(draft).unwrap(), &clips, "ab", 1)
    }

    fn handed(draft: Draft, text: &str) -> Result<Participants, Failure> {
        let signal = draft.signal;
        let mut all = participants(draft);
        all.hand_out(token_lines(text)?, 0, signal).map(|()| all)
    }

    #[test]
    fn a_file_has_so_many_tokens_and_no_more() {
        let mut text = "x\n".repeat(TOKENS_MAX);
        text.push_str("# a comment\n\n");
        assert_eq!(token_lines(&text).unwrap().len(), TOKENS_MAX);
        text.push('x');
        let error = token_lines(&text).unwrap_err().to_string();
        assert!(error.contains("more than 1000000 tokens"), "{error}");
    }

    #[test]
    fn by_v0_who_only_publishes_hears_calls_by_tokens_that_do_not_subscribe() {
        let with = |signal, to: Option<&str>, can_subscribe: &str| {
            let rpc = crate::RpcDraft {
                callers: Some(1),
                to: to.map(str::to_owned),
                ..Default::default()
            };
            let all = "canPublishData=true";
            let text = [
                token("a", "1", &[all, &format!("canSubscribe={can_subscribe}")]),
                token("a", "2", &[all]),
                token("a", "3", &[all]),
            ];
            let handed = handed(Draft { rpc, signal, ..draft() }, &text.join("\n"));
            handed.map(|_| ()).map_err(|error| error.to_string())
        };
        let v0 = Signal::Only(SignalVersion::V0);
        assert_eq!(with(v0, None, "false"), Ok(()));
        for to in [None, Some("bot")] {
            let error = with(v0, to, "true").unwrap_err();
            assert!(error.contains("line 1") && error.contains("by --signal v0"), "{error}");
        }
        assert_eq!(with(V1, None, "true"), Ok(()));
    }

    #[test]
    fn data_tracks_of_hidden_ones_are_not_subscribed_to_by_others() {
        use crate::DataTrackSubscribe::{Auto, Manual};
        let with = |subscribe, hidden: &str| {
            let data = crate::DataDraft {
                publishers: Some(1),
                kinds: Some("track".parse().unwrap()),
                subscribe: Some(subscribe),
                ..Default::default()
            };
            let text = [
                token("a", "1", &["canPublishData=true", &format!("hidden={hidden}")]),
                token("a", "2", &[]),
                token("a", "3", &[]),
            ];
            let handed = handed(Draft { data, ..draft() }, &text.join("\n"));
            handed.map(|_| ()).map_err(|error| error.to_string())
        };
        let error = with(Manual, "true").unwrap_err();
        assert!(error.contains("line 1") && error.contains("--data-track-subscribe"), "{error}");
        assert_eq!((with(Auto, "true"), with(Manual, "false")), (Ok(()), Ok(())));
    }

    #[test]
    fn what_tokens_say_no_cohort_says() {
        let size = crate::CohortSize::Share(0.5);
        let cohort =
            |profile| crate::CohortSpec { profile, ..crate::CohortSpec::new("c".to_owned(), size) };
        let nothing = crate::CohortProfile::default();
        let with = |profile| Draft { cohorts: vec![cohort(profile)], ..draft() };
        assert!(Scenario::new(with(nothing.clone())).is_ok());
        let grants = vec!["recorder=true".parse().unwrap()];
        let attributes = vec![("a".to_owned(), "b".to_owned())];
        for (profile, what) in [
            (crate::CohortProfile { grants, ..nothing.clone() }, "grants"),
            (
                crate::CohortProfile { metadata: Some("m".to_owned()), ..nothing.clone() },
                "metadata",
            ),
            (crate::CohortProfile { attributes, ..nothing }, "attributes"),
        ] {
            let error = Scenario::new(with(profile)).unwrap_err().to_string();
            assert!(error.contains(&format!("leave a [[cohort]]'s {what} out")), "{error}");
        }
    }

    #[test]
    fn tokens_name_participants_and_rooms_in_their_order() {
        let lines = [("b", "x"), ("a", "1"), ("b", "y"), ("b", "z"), ("a", "2"), ("a", "3")];
        let text: Vec<_> = lines.map(|(room, who)| token(room, who, &[])).to_vec();
        let text = format!("# ours\n\n{}\n", text.join("\n"));
        let all = handed(Draft { rooms: 2, ..draft() }, &text).unwrap();
        let who = |specs: &[ParticipantSpec]| {
            specs.iter().map(|spec| format!("{}/{}", spec.room, spec.identity)).collect::<Vec<_>>()
        };
        assert_eq!(who(&all.publishers), ["b/x", "a/1"]);
        assert_eq!(who(&all.subscribers), ["b/y", "a/2", "b/z", "a/3"]);
        assert!(all.subscribers.iter().all(|spec| spec.token.is_some()));
        assert!(all.own.has("x") && all.own.has("3") && !all.own.has("other"));
        assert_eq!(all.rooms.iter().map(|room| &**room).collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_line_and_never_by_its_token() {
        let good = token("a", "1", &[]);
        let error = |text: &str| {
            let error = handed(draft(), text).unwrap_err();
            assert_eq!(error.exit, stampede_report::Exit::BadConfiguration);
            let text = error.to_string();
            assert!(!text.contains("eyJ"), "{text}");
            text
        };
        for (text, why) in [
            (good.clone(), "has 1 tokens for the room 'a', but 3 participants"),
            ("#\n".to_owned(), "there is no token"),
            (format!("{good}\n{good}"), "line 2: a token of '1' for this room stands before it"),
            (format!("{good}\nto ken"), "line 2: the token holds characters"),
            (format!("#\neyJ.eyJ.x\n{good}"), "line 2: it is no LiveKit access token"),
            (token("a", "1", &["roomJoin=false"]), "line 1: the token is not for joining"),
        ] {
            let found = error(&text);
            assert!(found.contains(why), "{found}");
        }
        let rest = format!("{}\n{}", token("a", "2", &[]), token("a", "3", &[]));
        for (grant, why) in [
            ("canPublish=false", "an audio publisher's, and does not grant canPublish of the"),
            ("canPublishSources=camera", "does not grant canPublish of the microphone"),
        ] {
            let found = error(&format!("{}\n{rest}", token("a", "1", &[grant])));
            assert!(found.contains(why), "{found}");
        }
        // Each track by its own source.
        let shares = |sources: &str| {
            let draft = Draft {
                video_publishers: Some(0),
                audio_publishers: Some(0),
                subscribers: Some(0),
                screen_share_publishers: 1,
                screen_share_audio: true,
                ..draft()
            };
            let clips = Clips {
                screen: stampede_media::builtin::screen_share(stampede_media::Codec::Vp8)
                    .unwrap()
                    .into_iter()
                    .map(Into::into)
                    .collect(),
                screen_audio: Some(stampede_media::builtin::audio().unwrap().into()),
                ..Clips::default()
            };
            let mut all = Participants::new(&Scenario::new(draft).unwrap(), &clips, "ab", 1);
            let text = token("a", "1", &[&format!("canPublishSources={sources}")]);
            all.hand_out(token_lines(&text).unwrap(), 0, V1).map_err(|error| error.to_string())
        };
        assert_eq!(shares("screen_share,screen_share_audio"), Ok(()));
        for (sources, lacks) in [
            (
                "camera,microphone",
                "a screen share publisher's, and does not grant canPublish of the",
            ),
            ("screen_share,microphone", "canPublish of the screen share's audio"),
        ] {
            let found = shares(sources).unwrap_err();
            assert!(found.contains(lacks), "{found}");
        }
        let blind = token("a", "9", &["canSubscribe=false"]);
        let found = error(&format!("{good}\n{}\n{blind}", token("a", "2", &[])));
        assert!(found.contains("line 3: the token of '9' is a subscriber's"), "{found}");
        let tokens = token_lines(&format!("{good}\n{rest}")).unwrap();
        let late = participants(draft()).hand_out(tokens.clone(), u64::MAX, V1).unwrap_err();
        assert!(late.to_string().contains("line 1: the token expired"), "{late}");
        let updating = Draft { metadata_updates_per_second: Some(1.0), ..draft() };
        let plain = participants(updating).hand_out(tokens.clone(), 0, V1).unwrap_err();
        assert!(plain.to_string().contains("canUpdateOwnMetadata"), "{plain}");
        let rpc = crate::RpcDraft { callers: Some(1), ..Default::default() };
        let mute = participants(Draft { rpc, ..draft() }).hand_out(tokens, 0, V1).unwrap_err();
        assert!(mute.to_string().contains("canPublishData, which answers take"), "{mute}");
    }

    #[test]
    fn what_tokens_say_is_not_said_twice_and_what_takes_a_key_is_refused_without() {
        let refused = |draft| Scenario::new(draft).unwrap_err().to_string();
        let error = refused(Draft { room: Some("a".to_owned()), ..draft() });
        assert!(error.contains("leave --room out"), "{error}");
        let error = refused(Draft { url: None, ..draft() });
        assert!(error.contains("add --url"), "{error}");
        let moves = "move,at=1s".parse().unwrap();
        let error = refused(Draft { rooms: 2, faults: vec![moves], ..draft() });
        assert!(error.contains("add --api-key and --api-secret"), "{error}");
    }
}
