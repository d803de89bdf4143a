//! Whole runs of what participants are and say besides their media: signalling alone, updates of
//! themselves, who speaks, tokens of others. Against the embedded SFU, and a real livekit-server where
//! `LIVEKIT_URL`, `LIVEKIT_API_KEY` and `LIVEKIT_API_SECRET` say which.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::{Ended, KEY, Running, SECRET, Sfu, beside, run};
use stampede_signaling::{ApiCredentials, JoinGrant, PLAIN, TOKEN_TTL};
use stampede_testing::skip_without_server;

/// A server and the key to it.
struct Server {
    url: String,
    key: String,
    secret: String,
}

/// The server of the environment; `None` if there is none.
fn real() -> Option<Server> {
    let Ok(url) = std::env::var("LIVEKIT_URL") else {
        skip_without_server("LIVEKIT_URL is not set");
        return None;
    };
    let of = |name| std::env::var(name).unwrap_or_default();
    Some(Server { url, key: of("LIVEKIT_API_KEY"), secret: of("LIVEKIT_API_SECRET") })
}

/// With the key in the environment, as it is given there.
fn run_at(server: &Server, args: &[&str]) -> Ended {
    let all = [&["run", "--url", &server.url, "--no-tui"], args].concat();
    let ended = Running::start_with(&all, |command| {
        command.env("LIVEKIT_API_KEY", &server.key).env("LIVEKIT_API_SECRET", &server.secret);
    })
    .end();
    assert!(!ended.stderr.contains(&server.secret) && !ended.stdout.contains(&server.secret));
    ended
}

/// Longer than what had no time in the end.
const SIGNALLING_ALONE: [&str; 7] = [
    "--no-media",
    "--subscribers=6",
    "--num-per-second=50",
    "--metadata-updates-per-second=1",
    "--participant-metadata=about me",
    "--participant-attribute=lang=en",
    "--duration=8s",
];

fn assert_heard_of_each_other(ended: &Ended) {
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 6.0);
    assert!(ended.report()["video"].is_null(), "{:#}", ended.report()["video"]);
    let of = |name: &str| ended.number(&format!("/signalling/metadata/{name}"));
    assert!(of("sent") >= 40.0 && of("refused") == 0.0, "{:#}", ended.report()["signalling"]);
    assert!(of("expected") >= 5.0 * 15.0, "{:#}", ended.report()["signalling"]);
    assert_eq!(of("missing"), 0.0, "{:#}", ended.report()["signalling"]);
    assert_eq!(of("seen") + of("superseded"), of("expected"));
    assert!(of("latency_ms/p50") < 500.0, "{:#}", ended.report()["signalling"]);
    assert!(ended.number("/signalling/ping_rtt_ms/count") >= 6.0);
    assert!(ended.stdout.contains("updates "), "{}", ended.stdout);
}

#[test]
fn participants_without_media_hear_of_each_other() {
    let _beside = beside();
    let args = [&["run", "--no-tui"], &SIGNALLING_ALONE[..]].concat();
    assert_heard_of_each_other(&run(&args));
    let refused = run(&[
        "run",
        "--no-tui",
        "--no-media",
        "--subscribers=2",
        "--metadata-updates-per-second=2",
        "--grant=canUpdateOwnMetadata=false",
        "--duration=2s",
    ]);
    let of = |name: &str| refused.number(&format!("/signalling/metadata/{name}"));
    assert!(of("refused") > 0.0 && of("refused") <= of("sent"));
}

#[test]
fn participants_without_media_hear_of_each_other_at_a_real_server() {
    let _beside = beside();
    let Some(server) = real() else { return };
    assert_heard_of_each_other(&run_at(&server, &SIGNALLING_ALONE));
}

/// Two of six, who watch as the others do, send data, call and change what they say of themselves.
#[test]
fn a_cohort_may_do_more_than_watch() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cohorts.toml");
    let text = "[[cohort]]\nname = \"waving\"\ncount = 2\ndata_publishers = 2\ndata_rate = 20\n\
                data_size = 100\ndata_kind = \"lossy,track\"\nrpc_callers = 1\nrpc_rate = 4\n\
                metadata_updates_per_second = 2\n\
                [[cohort]]\nname = \"deaf\"\ncount = 1\ndata_track_subscribe = \"none\"\n";
    std::fs::write(&file, text).unwrap();
    let args = ["run", "--no-tui", "--video-publishers=0", "--subscribers=6", "--duration=6s"];
    // By v0 they have a second connection for it.
    let scenario = ["--signal=v0", "--scenario", file.to_str().unwrap()];
    let ended = run(&[&args[..], &scenario].concat());
    ended.assert_code(0);
    let data = &ended.report()["data"];
    let of = |name: &str| ended.number(&format!("/data/{name}"));
    assert_eq!(of("reliable/sent") + of("reliable/expected"), 0.0, "{data:#}");
    assert!((160.0..=260.0).contains(&of("lossy/sent")), "{data:#}");
    // Each of both is heard by the five others, of whom one wants no data tracks.
    for (kind, heard) in [("lossy", 5.0), ("track", 4.0)] {
        let of = |name: &str| of(&format!("{kind}/{name}"));
        // Some come in the second before they are expected.
        let per_message = (of("received") + of("unexpected")) / of("sent");
        assert!((0.95 * heard..=1.05 * heard).contains(&per_message), "{kind}: {data:#}");
        assert_eq!(of("received"), of("expected"), "{kind}: {data:#}");
    }
    assert_eq!(of("lossy/bytes_sent"), 100.0 * of("lossy/sent"));
    let updates = ended.number("/signalling/metadata/sent");
    assert!((18.0..=26.0).contains(&updates), "{:#}", ended.report()["signalling"]);
    let rpc = |name: &str| ended.number(&format!("/rpc/{name}"));
    assert!((8.0..=26.0).contains(&rpc("answered")), "{:#}", ended.report()["rpc"]);
    assert_eq!(rpc("answered") + rpc("cut_off"), rpc("called"));
}

/// A turn begins every six seconds, so that one or two do in the window.
const SPEAKERS: [&str; 6] = [
    "--audio-publishers=2",
    "--video-publishers=0",
    "--subscribers=3",
    "--simulate-speakers",
    // With it a pause of a second may be over before a server has heard of it.
    "--no-audio-dtx",
    "--duration=8s",
];

fn assert_speakers_told(ended: &Ended) {
    ended.assert_code(0);
    let signalling = &ended.report()["signalling"];
    let of = |name: &str| ended.number(&format!("/signalling/speakers/{name}"));
    assert!((1.0..=2.0).contains(&of("turns")), "{signalling:#}");
    assert!(of("expected") >= 3.0 && of("named") == of("expected"), "{signalling:#}");
    assert_eq!((of("missed"), of("flaps")), (0.0, 0.0), "{signalling:#}");
    let p50 = of("latency_ms/p50");
    assert!((100.0..1_500.0).contains(&p50), "{signalling:#}");
    assert!(ended.stdout.contains("speakers "), "{}", ended.stdout);
}

#[test]
fn subscribers_are_told_who_speaks() {
    let _beside = beside();
    assert_speakers_told(&run(&[&["run", "--no-tui"], &SPEAKERS[..]].concat()));
}

#[test]
fn subscribers_are_told_who_speaks_at_a_real_server() {
    let _beside = beside();
    let Some(server) = real() else { return };
    assert_speakers_told(&run_at(&server, &SPEAKERS));
}

/// Who has no secret brings tokens, and nothing that is written shows them.
fn assert_joins_by_tokens(server: &Server) {
    let credentials = ApiCredentials::new(&server.key, &server.secret).unwrap();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let room = format!("handed-out-{since_epoch}");
    let token = |identity: &str, publishes: bool| {
        let grant = JoinGrant {
            room: &room,
            identity,
            can_publish: publishes,
            can_publish_data: false,
            can_subscribe: true,
            hidden: false,
            ttl: TOKEN_TTL,
            profile: &PLAIN,
        };
        credentials.join_token(&grant).unwrap().expose().to_owned()
    };
    let tokens = [token("stage", true), token("seat-1", false), token("seat-2", false)];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, format!("# handed out\n\n{}\n", tokens.join("\n"))).unwrap();
    let file = file.display().to_string();
    let run = |counts: &[&str]| {
        let all = ["run", "--url", &server.url, "--token-file", &file, "--no-tui"];
        let ended = Running::start_with(&[&all, counts].concat(), |command| {
            command.env_remove("LIVEKIT_API_KEY").env_remove("LIVEKIT_API_SECRET");
        })
        .end();
        for token in &tokens {
            assert!(!ended.stderr.contains(token) && !ended.stdout.contains(token));
        }
        ended
    };
    let counts = ["--audio-publishers=1", "--subscribers=2", "--duration=2s"];
    let ended = run(&counts);
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 3.0);
    assert_eq!(ended.number("/audio/tracks_received"), 2.0);
    let text = ended.report().to_string();
    assert!(text.contains(&room) && tokens.iter().all(|token| !text.contains(token)));
    assert!(ended.stderr.contains("without an API secret no room is made"), "{}", ended.stderr);
    let short = run(&["--audio-publishers=1", "--subscribers=3", "--duration=2s"]);
    assert_eq!(short.code, Some(104));
    assert!(short.stderr.contains("has 3 tokens for the room"), "{}", short.stderr);
    let wrong = run(&["--audio-publishers=2", "--subscribers=1", "--duration=2s"]);
    assert_eq!(wrong.code, Some(104));
    assert!(wrong.stderr.contains("does not grant canPublish"), "{}", wrong.stderr);
}

#[test]
fn who_has_no_secret_joins_by_tokens_of_others() {
    let _beside = beside();
    let sfu = Sfu::start(&[]);
    let server = Server { url: sfu.url.clone(), key: KEY.to_owned(), secret: SECRET.to_owned() };
    assert_joins_by_tokens(&server);
}

#[test]
fn who_has_no_secret_joins_a_real_server_by_tokens_of_others() {
    let _beside = beside();
    let Some(server) = real() else { return };
    assert_joins_by_tokens(&server);
}
