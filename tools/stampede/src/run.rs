//! `stampede run`: from checked flags to a report that is written and shown.

use stampede_report::{Exit, Failure};
use stampede_run::report_of;
use stampede_scenario::Scenario;

use crate::find::{self, FindPlan};
use crate::flags::{RunFlags, run_outputs};
use crate::hosts;
use crate::play::{Show, finish, once, ready};

/// The `run` command.
///
/// # Errors
/// What ended it before there was anything to report.
pub(crate) fn command(flags: RunFlags) -> Result<Exit, Failure> {
    if let Some(search) = FindPlan::new(&flags)? {
        return find::command(flags, &search);
    }
    if let Some(hosts) = flags.together.hosts {
        return hosts::coordinate(flags, hosts);
    }
    let show = Show::of(&flags);
    let (out, quiet, outputs) = (flags.out.clone(), flags.quiet, flags.clone());
    let scenario = Scenario::new(flags.draft()?)?;
    let prepared = ready(scenario, show.mode)?;
    // Now that the folders are there, which are no files.
    run_outputs(&outputs)?;
    let data = once(prepared, &show, show.mode)?;
    Ok(finish(report_of(data, &[]), &out, quiet))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use stampede_media::{Codec, MediaClip};
    use stampede_run::{Prepared, prepare};
    use stampede_scenario::{Draft, Target};

    use super::*;
    use crate::flags::{Command, Parsed, parse};

    fn flags(args: &[&str]) -> RunFlags {
        let words = ["stampede", "run"].iter().chain(args).map(Into::into);
        let Parsed::Command(Command::Run(mut flags)) = parse(words).unwrap() else {
            panic!("not a run")
        };
        // A developer's own LIVEKIT_* must not leak into these tests.
        if !args.contains(&"--url") {
            flags.url = None;
        }
        if !args.iter().any(|arg| arg.starts_with("--api-key")) {
            flags.api_key = None;
        }
        if !args.iter().any(|arg| arg.starts_with("--api-secret")) {
            flags.api_secret = None;
        }
        *flags
    }

    fn scenario(args: &[&str]) -> Result<Scenario, Failure> {
        Scenario::new(flags(args).draft()?)
    }

    fn prepared(args: &[&str]) -> Result<Prepared, Failure> {
        let prepared = prepare(scenario(args)?)?;
        run_outputs(&flags(args)).map(|_| prepared)
    }

    const SERVER: [&str; 6] =
        ["--url", "ws://127.0.0.1:7880", "--api-key", "key", "--api-secret", "hunter2"];

    fn at_server(args: &[&str]) -> Result<Scenario, Failure> {
        scenario(&[&SERVER[..], args].concat())
    }

    #[test]
    fn without_a_url_everything_has_a_default() {
        let Prepared { scenario, clips, .. } = prepared(&[]).unwrap();
        assert!(matches!(scenario.target, Target::Embedded(_)));
        let counts = (scenario.video_publishers, scenario.audio_publishers, scenario.subscribers);
        assert_eq!(counts, (1, 1, 200));
        assert_eq!(clips.video.len(), 3);
        assert_eq!(clips.audio.unwrap().codec, Codec::Opus);
        assert_eq!(scenario.duration, Duration::from_secs(20));
    }

    #[test]
    fn at_a_server_only_what_is_asked_for_joins() {
        let scenario = at_server(&["--subscribers", "3", "--rooms", "2"]).unwrap();
        assert_eq!((scenario.shape.publishers(), scenario.participants_total()), (0, 6));
        assert!(scenario.video.is_none() && scenario.audio.is_none());
        assert!(at_server(&[]).unwrap_err().to_string().contains("nobody would join"));
    }

    #[test]
    fn one_layer_without_simulcast() {
        let clips = prepared(&["--no-simulcast"]).unwrap().clips;
        assert_eq!(clips.video.len(), 1);
        assert_eq!(clips.video[0].height, 720);
    }

    #[test]
    fn what_cameras_send_is_not_said_without_one() {
        let screens = ["--video-publishers", "0", "--screen-share-publishers", "1"];
        let refused = |more: &[&str]| scenario(&[&screens[..], more].concat()).unwrap_err();
        for flag in ["--publish-resolution", "--video"] {
            let error = refused(&[flag, "1080p"]).to_string();
            assert!(
                error.contains(&format!("{flag} is given but nobody publishes video")),
                "{error}"
            );
        }
        assert!(scenario(&screens).is_ok());
    }

    #[test]
    fn screens_are_shared_in_the_codec_or_the_file_that_is_named() {
        let shared = |more: &[&str]| {
            prepared(&[&["--subscribers=1", "--screen-share-publishers=1"], more].concat())
        };
        let codecs = |clips: &[Arc<MediaClip>]| -> Vec<(Codec, u16)> {
            clips.iter().map(|clip| (clip.codec, clip.height)).collect()
        };
        let clips = shared(&[]).unwrap().clips;
        assert_eq!(codecs(&clips.screen), [(Codec::Vp8, 540), (Codec::Vp8, 1_080)]);
        assert!(clips.screen_backup.is_none());
        let clips = shared(&["--screen-share-codec=av1"]).unwrap().clips;
        assert_eq!(codecs(&clips.screen), [(Codec::Av1, 1_080)]);
        let backup = clips.screen_backup.unwrap();
        assert_eq!((backup.codec, backup.height), (Codec::Vp8, 1_080));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/media/clips");
        let [low, high] =
            ["540", "1080"].map(|size| format!("--screen-share={path}/screen-{size}p.h264"));
        let (low, high) = (low.as_str(), high.as_str());
        let clips = shared(&[low, high]).unwrap().clips;
        assert_eq!(codecs(&clips.screen), [(Codec::H264, 540), (Codec::H264, 1_080)]);
        let refused = |args: &[&str]| shared(args).err().unwrap().to_string();
        assert!(refused(&[high, low]).contains("--screen-share: '"));
        assert!(refused(&[high, "--no-simulcast", low]).contains("one layer"));
        let error = refused(&[low, "--screen-share-codec=vp8"]);
        assert!(error.contains("--screen-share-codec to match"), "{error}");
        for flag in ["--screen-share-codec=vp9", "--screen-share=x", "--screen-share-audio"] {
            let error = scenario(&[flag]).unwrap_err().to_string();
            assert!(error.contains("nobody shares a screen"), "{error}");
        }
    }

    #[test]
    fn a_camera_of_360p_has_nothing_above() {
        let heights = |more: &[&str]| {
            let args = [&["--subscribers=1", "--publish-resolution=360p"], more].concat();
            let clips = prepared(&args).unwrap().clips;
            let of = |clips: &[Arc<MediaClip>]| {
                assert!(clips.iter().all(|clip| clip.scalability.is_none()), "{more:?}");
                clips.iter().map(|clip| clip.height).collect::<Vec<_>>()
            };
            (of(&clips.video), of(&clips.backup))
        };
        let both = || vec![180, 360];
        for codec in ["vp8", "h264"] {
            assert_eq!(heights(&["--video-codec", codec]), (both(), vec![]), "{codec}");
        }
        for codec in ["vp9", "h265"] {
            assert_eq!(heights(&["--video-codec", codec]), (both(), vec![360]), "{codec}");
        }
        assert_eq!(heights(&["--video-codec=av1"]), (vec![360], vec![360]));
        assert_eq!(heights(&["--no-simulcast"]), (vec![360], vec![]));
        let args = ["--publish-resolution=360p", "--video-codec=vp9", "--scalability-mode=L1T3"];
        let error = scenario(&args).unwrap_err().to_string();
        assert!(error.contains("--publish-resolution 360p have no layers"), "{error}");
    }

    #[test]
    fn in_1080p_nothing_has_layers_within_a_stream() {
        let heights = |codec| {
            let args = ["--subscribers=1", "--publish-resolution=1080p", "--video-codec", codec];
            let clips = prepared(&args).unwrap().clips;
            let of = |clips: &[Arc<MediaClip>]| {
                assert!(clips.iter().all(|clip| clip.scalability.is_none()), "{codec}");
                clips.iter().map(|clip| clip.height).collect::<Vec<_>>()
            };
            (of(&clips.video), of(&clips.backup))
        };
        let all = || vec![180, 360, 1_080];
        for codec in ["vp8", "h264"] {
            assert_eq!(heights(codec), (all(), vec![]), "{codec}");
        }
        for codec in ["vp9", "h265"] {
            assert_eq!(heights(codec), (all(), all()), "{codec}");
        }
        assert_eq!(heights("av1"), (vec![1_080], all()));
        let args = ["--publish-resolution=1080p", "--video-codec=vp9", "--scalability-mode=L1T3"];
        assert!(scenario(&args).unwrap_err().to_string().contains("leave one of them out"));
    }

    #[test]
    fn of_h265_the_embedded_sfu_has_one_profile() {
        let dir = tempfile::tempdir().unwrap();
        let clip = &stampede_media::builtin::video(Codec::H265).unwrap()[0];
        let mut file = Vec::new();
        for payload in &clip.frames[0].packets {
            stampede_media::h265::append_annex_b(payload, &mut file).unwrap();
        }
        let open = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            prepared(&["--subscribers=1", "--video", path.to_str().unwrap()])
        };
        assert_eq!(open("main.h265", &file).unwrap().clips.video.len(), 1);
        // Main 10 in the sequence parameter set: its header, 0, then one layer, then the profile.
        let sps = file.windows(4).position(|bytes| bytes == [0x42, 1, 1, 1]).unwrap();
        file[sps + 3] = 2;
        let error = open("main10.h265", &file).err().unwrap().to_string();
        assert!(error.contains("H.265 profile 2"), "{error}");
    }

    #[test]
    fn bad_urls_are_refused_without_their_secrets() {
        for (text, why) in [
            ("host:7880", "ws://"),
            ("", "URL"),
            ("ftp://host", "ftp"),
            ("ws://", "host"),
            ("ws://host:99999", "port"),
            ("ws://u:hunter2@host", "user name"),
            ("ws://u:hunter2@host:99999", "port"),
            ("ws://host?access_token=hunter2", "query"),
        ] {
            let args = ["--url", text, "--subscribers", "1", "--api-key=k", "--api-secret=s"];
            let error = scenario(&args).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{text}: {error}");
            assert!(error.starts_with("--url"), "{error}");
        }
    }

    #[test]
    fn livekit_cloud_is_not_load_tested() {
        let many = |url: &str, subscribers: &str| {
            let key = ["--api-key", "k", "--api-secret", "s"];
            scenario(&[&["--url", url, "--subscribers", subscribers], &key[..]].concat())
        };
        assert!(many("wss://x.livekit.cloud", "50").is_ok());
        let error = many("wss://x.livekit.cloud", "51").unwrap_err().to_string();
        assert!(error.contains("acceptable use policy"), "{error}");
        assert!(many("wss://notlivekit.cloud", "5000").is_ok());
    }

    #[test]
    fn contradictions_are_refused() {
        let missing = "/nonexistent/x";
        let of = |result: Result<Scenario, Failure>| result.map(drop);
        let prepared = |args: &[&str]| prepared(args).map(drop);
        let at_server = |args: &[&str]| of(at_server(args));
        let all = [
            (prepared(&["--rooms", "0"]), "--rooms 0"),
            (prepared(&["--workers", "0"]), "--workers 0"),
            (prepared(&["--room", ""]), "--room"),
            (prepared(&["--embedded-flag=--refuse-joins=7"]), "% sign"),
            (prepared(&["--embedded-flag=--help"]), "--embedded-flag"),
            (prepared(&["--embedded-flag=--api-secret=x"]), "sets it itself"),
            (prepared(&["--subscribers", "4000000", "--rooms", "4000"]), "more than one run"),
            (prepared(&["--record-subscribers", "1"]), "--record DIR"),
            (prepared(&["--capture-headers"]), "--capture DIR"),
            (prepared(&["--video", missing]), missing),
            (prepared(&["--audio", missing]), missing),
            (prepared(&["--video-publishers", "0", "--video", missing]), "nobody publishes video"),
            (prepared(&["--audio-publishers", "0", "--audio", missing]), "nobody publishes audio"),
            (prepared(&["--no-simulcast", "--video", "a", "--video", "b"]), "--no-simulcast"),
            (prepared(&["--video=a", "--video=b", "--video=c", "--video=d"]), "4 times"),
            (prepared(&["--out", "json=/nonexistent/x"]), "can't be written"),
            (at_server(&["--subscribers", "1", "--embedded-drop", "1%"]), "--embedded-drop"),
            (
                at_server(&["--subscribers", "1", "--embedded-impair", "loss=1%"]),
                "--embedded-impair",
            ),
            (prepared(&["--url", "ws://h", "--subscribers", "1"]), "LIVEKIT_API_KEY"),
            (
                prepared(&["--url", "ws://h", "--api-key", "k", "--subscribers", "1"]),
                "LIVEKIT_API_SECRET",
            ),
        ];
        for (result, why) in all {
            let error = result.expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.exit, Exit::BadConfiguration);
        }
    }

    #[test]
    fn flags_and_drafts_have_the_same_defaults() {
        assert_eq!(flags(&[]).draft().unwrap(), Draft::default());
    }

    #[test]
    fn what_the_embedded_sfu_drops_and_holds_back_is_one_impairment() {
        let one = |args: &[&str]| {
            let Target::Embedded(embedded) = scenario(args).unwrap().target else { panic!() };
            let [spec] = &embedded.options.impair[..] else { panic!("{:?}", embedded.options) };
            // What the report says.
            assert_eq!(embedded.short.drop, Some(spec.loss));
            (spec.loss, spec.burst_packets, spec.delay)
        };
        let (none, delay) = (Duration::ZERO, Duration::from_millis(20));
        let delayed = ["--embedded-drop=1%", "--embedded-flag=--delay=20ms"];
        assert_eq!(one(&delayed), (0.01, 1, delay));
        let dropped = ["--embedded-delay=20ms", "--embedded-flag=--drop=1%"];
        assert_eq!(one(&dropped), (0.01, 1, delay));
        let bursts = ["--embedded-drop=1%", "--embedded-flag=--drop-burst=5"];
        assert_eq!(one(&bursts), (0.01, 5, none));
        // As of a flag that is given twice the last one counts.
        let twice = ["--embedded-flag=--drop=2%", "--embedded-drop=1%", "--embedded-drop-burst=5"];
        assert_eq!(one(&twice), (0.02, 5, none));
        let error = scenario(&["--embedded-drop=99%", "--embedded-flag=--drop-burst=2"]);
        assert!(error.unwrap_err().to_string().contains("--embedded-drop: "));
    }

    #[test]
    fn thresholds_are_on_cohorts_that_there_are() {
        let with = |key: &str| {
            let test = format!("{key}<1%");
            scenario(&["--impair=cohort=50%,loss=1%", "--threshold", &test])
        };
        assert!(with("cohorts.impair-1.video.loss_rate").is_ok());
        assert!(with("cohorts.rest.audio.loss_rate").is_ok());
        let error = with("cohorts.impair-2.video.loss_rate").unwrap_err();
        assert_eq!(error.exit, Exit::BadConfiguration);
        let error = error.to_string();
        assert!(error.contains("no 'impair-2' among 'rest', 'impair-1'"), "{error}");
        let none = scenario(&["--threshold=impairment.cohorts.far.dropped<9"]).unwrap_err();
        assert!(none.to_string().contains("nothing is impaired"), "{none}");
        let none = scenario(&["--threshold=cohorts.rest.video.loss_rate<1%"]).unwrap_err();
        assert!(none.to_string().contains("no cohorts"), "{none}");
    }

    #[test]
    fn recordings_need_a_folder_and_enough_subscribers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").display().to_string();
        let record = prepared(&["--record", &path]).unwrap().scenario.record.unwrap();
        assert_eq!(record.subscribers, 1);
        assert!(record.dir.is_dir() && fs::read_dir(&record.dir).unwrap().next().is_none());
        let many = ["--record", &path, "--subscribers", "2", "--record-subscribers", "3"];
        assert!(prepared(&many).unwrap_err().to_string().contains("between 1 and the 2"));
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let file = file.display().to_string();
        assert!(prepared(&["--record", &file]).unwrap_err().to_string().contains("can't be made"));
    }

    #[test]
    fn the_secret_is_in_no_debug_text() {
        let args = [&SERVER[..], &["--subscribers", "1"]].concat();
        assert!(!format!("{:?}", scenario(&args).unwrap()).contains("hunter2"));
        assert!(!format!("{:?}", flags(&args).draft().unwrap()).contains("hunter2"));
    }
}
