//! Small healthy runs against the embedded SFU, and what is expected of them.

use super::Ended;

/// A small healthy run.
pub(crate) const SMALL: [&str; 9] = [
    "run",
    "--subscribers",
    "5",
    "--duration",
    "3s",
    "--num-per-second",
    "50",
    "--no-tui",
    "--seed=7",
];

pub(crate) fn small(args: &[&str]) -> Vec<&'static str> {
    let leak = |arg: &&str| &*Box::leak(arg.to_string().into_boxed_str());
    SMALL.iter().copied().chain(args.iter().map(leak)).collect()
}

/// The same for 7 s: who is connected is told of a moment later.
pub(crate) fn longer(args: &[&str]) -> Vec<&'static str> {
    small(args).into_iter().map(|arg| if arg == "3s" { "7s" } else { arg }).collect()
}

/// Everybody joined and got everything.
#[track_caller]
pub(crate) fn assert_flawless(ended: &Ended, participants: u64, subscribers: f64) {
    ended.assert_code(0);
    assert_eq!(ended.number("/join/requested") as u64, participants);
    assert_eq!(ended.number("/join/joined") as u64, participants);
    assert!(ended.number("/join/signalling/messages") as u64 > participants);
    assert_eq!(ended.number("/join/signalling/malformed"), 0.0);
    assert_eq!(ended.number("/join/failed"), 0.0);
    for kind in ["video", "audio"] {
        let number = |name: &str| ended.number(&format!("/{kind}/{name}"));
        assert_eq!(number("tracks_received"), subscribers, "{kind}");
        assert_eq!(number("tracks_expected"), subscribers, "{kind}");
        assert_eq!(number("packets/unrecovered"), 0.0, "{kind}: {:?}", ended.verdict());
        assert!(number("packets/expected") > 0.0, "{kind}");
        assert_eq!(number("packets/received"), number("packets/expected"), "{kind}");
        assert_eq!(number("loss_rate"), 0.0, "{kind}");
    }
    assert!(ended.number("/video/frames/decodable") > 0.0);
    assert_eq!(ended.number("/video/frames/dropped"), 0.0);
    assert_eq!(ended.number("/generator/udp_dropped"), 0.0);
    assert_eq!(ended.report()["verdict"]["result"], "pass");
}

/// All that was on the screen was as high as it should have been, 25 times a second.
#[track_caller]
pub(crate) fn assert_layer(ended: &Ended, height: u64) {
    let layers = &ended.report()["video"]["layers"];
    assert_eq!(layers["lower_ratio"], 0.0, "{layers:#}");
    assert_eq!(layers["height_px"]["p5"], height, "{layers:#}");
    let [row] = &layers["heights"].as_array().unwrap()[..] else { panic!("{layers:#}") };
    assert_eq!(row["name"], format!("{height}p"), "{row:#}");
    let (shown_s, fps) = (row["shown_s"].as_f64().unwrap(), row["fps"].as_f64().unwrap());
    let played_s = ended.number("/video/played_s");
    assert!((0.9..1.1).contains(&(shown_s / played_s)), "{shown_s} of {played_s}");
    assert!((22.0..28.0).contains(&fps), "{row:#}");
}
