//! Every flag: defined, documented and parsed here and nowhere else.
//!
//! [`parse`] turns an argument list into a [`Command`] or a one-line [`Failure`]. What a run asks for
//! goes into a [`Draft`](stampede_scenario::Draft), which is checked as a whole.

mod audience;
mod file;
mod find;
mod hosts;
mod init;
mod kubernetes;
mod outputs;
mod pages;
mod people;
mod reports;
mod run;
mod sfu;
mod tools;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use file::ScenarioFile;
use stampede_report::{Exit, Failure};

pub(crate) use hosts::{OnLostHost, WorkFlags};
pub(crate) use init::{InitFlags, init};
pub(crate) use kubernetes::{KubernetesFlags, PodFlags};
pub(crate) use outputs::{outputs, run_outputs};
pub(crate) use pages::{CompletionsFlags, ManFlags};
pub(crate) use reports::{CompareFlags, ReportFlags};
pub(crate) use run::RunFlags;
pub(crate) use sfu::{SfuFlags, known_secret_warning, sfu_options};
pub(crate) use tools::DoctorFlags;

/// Stampede: a WebRTC load engine for LiveKit.
///
/// Joins thousands of full-fidelity subscribers and publishers from one host and tells what they
/// received, what was lost, and whether the load box itself was to blame.
#[derive(Debug, Parser)]
#[command(name = "stampede", version, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 pass; 99 a threshold failed; 98 the run is invalid (the generator was at fault); 104 bad configuration; \
105 interrupted (the report is still written); 1 anything else.
Logging: RUST_LOG=info (or debug, or stampede=debug) writes to stderr.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // The texts are those of the flag structs: a doc comment here would replace them.
    // Of a flag given twice the last one counts, so that scripts can add to a common command.
    #[command(args_override_self = true)]
    Run(Box<RunFlags>),
    #[command(args_override_self = true)]
    Sfu(Box<SfuFlags>),
    Work(WorkFlags),
    Doctor(DoctorFlags),
    Init(InitFlags),
    Kubernetes(KubernetesFlags),
    Pod(PodFlags),
    Report(ReportFlags),
    Compare(CompareFlags),
    Man(ManFlags),
    Completions(CompletionsFlags),
}

/// A parsed command line, or text to print (help, version) with exit code 0.
pub(crate) enum Parsed {
    /// Do this.
    Command(Command),
    /// Print this to stdout and end well.
    Text(String),
}

/// `stampede man`.
///
/// # Errors
/// The page could not be made.
pub(crate) fn man() -> Result<Exit, Failure> {
    pages::man(Cli::command())
}

/// `stampede completions SHELL`.
pub(crate) fn completions(flags: &CompletionsFlags) -> Exit {
    pages::completions(Cli::command(), flags.shell)
}

/// Parses a command line.
///
/// # Errors
/// One line, exit code 104.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    parse_with(args.into_iter().collect(), None)
}

/// Parses the words of a run on another host, with the text of the scenario file that they name.
///
/// # Errors
/// The same.
pub(crate) fn parse_run(words: &[String], scenario: Option<&str>) -> Result<RunFlags, Failure> {
    let args = ["stampede", "run"].into_iter().chain(words.iter().map(String::as_str));
    match parse_with(args.map(OsString::from).collect(), scenario)? {
        Parsed::Command(Command::Run(flags)) => Ok(*flags),
        _ => Err(Failure::config("the coordinator's words are no run")),
    }
}

/// The words behind `run` of a command line.
///
/// # Errors
/// One is no text, exit code 104.
pub(crate) fn words_of_run(
    args: impl IntoIterator<Item = OsString>,
) -> Result<Vec<String>, Failure> {
    let words = args.into_iter().skip(1).skip_while(|arg| arg != "run").skip(1);
    let text = |word: OsString| {
        word.into_string().map_err(|word| {
            let word = word.to_string_lossy();
            Failure::config(format!("--hosts: '{word}' is no UTF-8, and can't be sent"))
        })
    };
    words.map(text).collect()
}

fn parse_with(args: Vec<OsString>, scenario: Option<&str>) -> Result<Parsed, Failure> {
    let matches = match Cli::command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let text = error.render();
                let colour = std::io::stdout().is_terminal() && !stampede_output::no_color();
                let text = if colour { text.ansi().to_string() } else { text.to_string() };
                return Ok(Parsed::Text(text));
            }
            _ => return Err(usage_failure(&error)),
        },
    };
    let file = scenario_file(&matches, scenario)?;
    let matches = match &file {
        Some(file) => with_file(&args, &matches, file)?,
        None => matches,
    };
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| usage_failure(&error))?;
    if let (Command::Run(flags), Some(run)) = (&mut cli.command, matches.subcommand_matches("run"))
    {
        let typed = |id| run.value_source(id) == Some(ValueSource::CommandLine);
        // A key typed without a URL is a forgotten URL; one from the environment is just there.
        if flags.url.is_none() {
            for (id, flag) in [("api_key", "--api-key"), ("api_secret", "--api-secret")] {
                if typed(id) {
                    return Err(Failure::config(format!(
                        "{flag} is given without --url: the embedded SFU makes its own keys; \
                         add --url ws://HOST:7880 or leave {flag} out"
                    )));
                }
            }
        }
        if let Some(file) = file {
            flags.shape.cohorts = file.cohorts;
            flags.shape.room_drafts = file.rooms;
        }
    }
    Ok(Parsed::Command(cli.command))
}

/// The scenario file, if one is named; with this text if it is another host's.
fn scenario_file(
    matches: &ArgMatches,
    text: Option<&str>,
) -> Result<Option<ScenarioFile>, Failure> {
    let Some(run) = matches.subcommand_matches("run") else { return Ok(None) };
    let Some(path) = run.get_one::<PathBuf>("scenario") else { return Ok(None) };
    let cli = Cli::command();
    let command = cli.find_subcommand("run").cloned().unwrap_or_default();
    file::load(path, text, &command).map(Some)
}

/// The command line again, with the file's options in front of what was typed. Of those given on the
/// command line or in the environment the file's are left out, so that lists don't add up.
fn with_file(
    args: &[OsString],
    typed: &ArgMatches,
    file: &ScenarioFile,
) -> Result<ArgMatches, Failure> {
    let Some(run) = typed.subcommand_matches("run") else { return Ok(typed.clone()) };
    let open = |id: &str| {
        !matches!(run.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let words = file.flags.iter().filter(|(id, _)| open(id)).flat_map(|(_, words)| words);
    let after_run =
        args.iter().skip(1).position(|arg| arg == "run").map_or(args.len(), |at| at + 2);
    let (front, back) = args.split_at(after_run);
    let all = front.iter().cloned().chain(words.map(OsString::from)).chain(back.iter().cloned());
    Cli::command().try_get_matches_from(all).map_err(|error| usage_failure(&error))
}

/// clap's paragraphs as one line: the error itself and its tips, without usage and help.
fn usage_failure(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::config(
            "no command is given; use `stampede run`, `stampede sfu`, `stampede doctor`, \
             `stampede init`, `stampede kubernetes`, `stampede report` or `stampede compare` (see \
             `stampede --help`)",
        );
    }
    Failure::config(format!("{} (see `stampede --help`)", usage_line(error)))
}

/// clap's paragraphs as one line.
fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let kept: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = kept.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(args: &[&str]) -> String {
        let args = ["stampede"].iter().chain(args).map(OsString::from);
        match parse(args) {
            Err(failure) => {
                assert_eq!(failure.exit, Exit::BadConfiguration);
                let line = failure.to_string();
                assert!(!line.contains('\n'), "{line}");
                line
            }
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_are_one_line_with_flag_value_and_reason() {
        for (args, needs) in [
            (&["run", "--duration", "90"][..], &["--duration", "90", "unit"][..]),
            (&["run", "--subscribers", "many"], &["--subscribers", "many"]),
            (&["run", "--subscribers", "-3"], &["-3"]),
            (&["run", "--num-per-second", "0"], &["--num-per-second", "above 0"]),
            (&["run", "--video-resolution", "4k"], &["4k", "high, medium, low"]),
            (&["run", "--video-codec", "h266"], &["h266", "unknown codec"]),
            (&["run", "--out", "pdf=x.pdf"], &["pdf", "unknown kind"]),
            (&["run", "--backend", "dpdk"], &["dpdk", "auto, io_uring, mmsg"]),
            (&["run", "--cores", "1-0"], &["backwards"]),
            (&["run", "--subscriber", "3"], &["--subscriber", "--subscribers"]),
            (&["run", "--stage", "10s"], &["--stage", "30s:200"]),
            (&["run", "--layout", "2x2"], &["2x2", "speaker, 3x3"]),
            (&["run", "--scenario", "/nonexistent/x"], &["--scenario /nonexistent/x"]),
            (&["run", "--impair", "loss=1"], &["--impair", "loss=1:", "% sign"]),
            (&["run", "--impair", "los=1%"], &["'los'", "cohort, loss"]),
            (&["run", "--fault", "crash"], &["--fault", "'crash'", "signal_drop"]),
            (&["run", "--fault", "outage,every=1"], &["--fault", "every=1:", "without a unit"]),
            (&["run", "--reconnect", "0"], &["--reconnect", "sdk", "1 to 100"]),
            (&["run", "--signal", "v2"], &["--signal", "auto", "v0 or v1"]),
            (&["run", "--feedback", "remb"], &["--feedback", "chrome", "none"]),
            (&["run", "--transport", "sctp"], &["--transport", "auto", "udp", "tcp"]),
            (&["run", "--data-kind", "stream"], &["--data-kind", "use reliable, lossy, track"]),
            (&["run", "--data-rate", "0"], &["--data-rate", "0.01 and 1000"]),
            (&["run", "--data-size", "8"], &["--data-size", "32 and 60000"]),
            (&["run", "--stay", "10ms"], &["--stay", "100ms or longer"]),
            (&["run", "--rejoin", "0%"], &["--rejoin", "above 0%"]),
            (&["run", "--arrival", "never"], &["--arrival", "constant, poisson, flash"]),
            (&["run", "--room-sizes", "normal:5"], &["--room-sizes", "uniform:2-10"]),
            (&["sfu", "--stall-signalling", "5s"], &["--stall-signalling", "start is missing"]),
            (&["run", "--threshold", "x<1"], &["--threshold", "no figure 'x'"]),
            (&["run", "--threshold", "vido.loss_rate<1%"], &["did you mean 'video.loss_rate'"]),
            (&["compare", "a", "b", "--fail-if", "video.fps"], &["--fail-if", "compares nothing"]),
            (&["report"], &["<FILE>"]),
            (&["sfu", "--drop", "1"], &["--drop", "% sign"]),
            (&["fly"], &["fly"]),
            (&[], &["no command"]),
            (&["run", "--api-secret", "hunter2"], &["without --url"]),
        ] {
            let line = fails(args);
            for need in needs {
                assert!(line.contains(need), "{args:?}: {line}");
            }
            assert!(!line.contains("hunter2"));
        }
    }

    #[test]
    fn of_a_flag_given_twice_the_last_counts_and_lists_add_up() {
        let args = ["run", "--rooms=2", "--rooms=3", "--video=a", "--video=b"];
        let args = ["stampede"].iter().chain(&args).map(OsString::from);
        let Ok(Parsed::Command(Command::Run(flags))) = parse(args) else { panic!() };
        assert_eq!((flags.rooms, flags.video.len()), (3, 2));
    }

    #[test]
    fn faults_and_audiences_go_into_the_draft() {
        let draft = |args: &[&str]| {
            let args = ["stampede", "run"].iter().chain(args).map(OsString::from);
            let Ok(Parsed::Command(Command::Run(flags))) = parse(args) else { panic!() };
            flags.draft().unwrap()
        };
        let all = draft(&[
            "--fault=signal_drop,at=5s",
            "--fault=simulate=migration",
            "--reconnect=none",
            "--signal=v0",
            "--feedback=none",
            "--transport=tcp",
            "--data-publishers=2",
            "--data-size=1kB",
            "--stay=30s",
            "--rejoin=25%",
            "--away=5s",
            "--arrival=poisson",
            "--room-sizes=uniform:2-5",
            "--rooms=3",
        ]);
        let faults: Vec<_> = all.faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults, ["signal_drop,at=5s", "simulate=migration"]);
        assert_eq!(all.reconnect.tries(), 0);
        assert_eq!(all.signal.to_string(), "v0");
        assert_eq!(all.feedback.to_string(), "none");
        assert_eq!(all.transport.to_string(), "tcp");
        assert_eq!((all.data.publishers, all.data.bytes), (Some(2), Some(1_000)));
        let audience = stampede_scenario::AudienceDraft {
            stay: Some(std::time::Duration::from_secs(30)),
            rejoin: Some(0.25),
            away: Some(std::time::Duration::from_secs(5)),
            arrival: stampede_scenario::Arrival::Poisson,
        };
        assert_eq!(all.audience, audience);
        assert!(all.seed.is_some(), "rooms are drawn from a seed that the report can tell");
        assert!(stampede_scenario::Scenario::new(all).is_ok());
        assert_eq!(draft(&["--room-sizes=uniform:2-5", "--seed=9"]).seed, Some(9));
        let plain = draft(&[]);
        assert_eq!((plain.seed, plain.audience), (None, Default::default()));
        assert_eq!(plain.reconnect, stampede_scenario::Reconnect::default());
    }

    #[test]
    fn help_names_every_flag_with_a_text() {
        for name in [
            "run",
            "sfu",
            "work",
            "doctor",
            "init",
            "kubernetes",
            "pod",
            "report",
            "compare",
            "completions",
        ] {
            let mut cli = Cli::command();
            let command = cli.find_subcommand_mut(name).unwrap();
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{name} {:?} has no help", arg.get_id());
            }
        }
    }

    #[test]
    fn flags_override_the_scenario_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.toml");
        let text = "rooms = 2\nsubscribers = 7\nquiet = true\nvideo = [\"a\", \"b\"]\n\
                    [[cohort]]\nname = \"c\"\nshare = 0.5\n";
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let args = ["run", "--subscribers=9", "--scenario", &path, "--video=x"];
        let args = ["stampede"].iter().chain(&args).map(OsString::from);
        let Ok(Parsed::Command(Command::Run(flags))) = parse(args) else { panic!() };
        assert_eq!((flags.rooms, flags.subscribers, flags.quiet), (2, Some(9), true));
        assert_eq!(flags.video, [PathBuf::from("x")], "a list is replaced, not added to");
        assert_eq!(flags.shape.cohorts.len(), 1);
        std::fs::write(dir.path().join("s.toml"), "subscribers = 7\nsubscriber = 3\n").unwrap();
        let line = fails(&["run", "--scenario", &path]);
        assert!(line.contains("s.toml:2:1: unknown key 'subscriber'"), "{line}");
    }

    #[test]
    fn the_file_that_init_writes_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new.toml");
        assert_eq!(init(&InitFlags { file: path.clone() }).unwrap(), Exit::Pass);
        let again = init(&InitFlags { file: path.clone() }).unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
        let path = path.display().to_string();
        let args = ["stampede", "run", "--scenario", &path].map(OsString::from);
        let Ok(Parsed::Command(Command::Run(flags))) = parse(args) else { panic!() };
        assert_eq!((flags.shape.stage.len(), flags.shape.cohorts.len()), (3, 1));
        // So are the tables that it only shows.
        let mut in_table = false;
        let lines = init::TEMPLATE.lines().map(|line| {
            in_table = line.starts_with("# [[") || in_table && line.starts_with("# ");
            if in_table { &line[2..] } else { line }
        });
        let all = lines.collect::<Vec<_>>().join("\n");
        std::fs::write(&path, all).unwrap();
        let args = ["stampede", "run", "--scenario", &path].map(OsString::from);
        let Ok(Parsed::Command(Command::Run(flags))) = parse(args) else { panic!() };
        let shape = &flags.shape;
        assert_eq!((shape.cohorts.len(), shape.room_drafts.len(), flags.fault.len()), (3, 1, 2));
        let draft = stampede_scenario::Draft { record: Some(".".into()), ..flags.draft().unwrap() };
        stampede_scenario::Scenario::new(draft).unwrap();
    }
}
