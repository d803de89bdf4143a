//! The scenario file: TOML whose keys are the long flags of `run`, with `_` for `-`.
//!
//! No second list of options: a key is looked up among the flags as clap knows them, and its value
//! goes through the parser of its flag. Only `[[cohort]]`, `[[room]]`, `[[stage]]` and `[[fault]]`
//! have a form of their own. Whatever is wrong is named with file, line and column.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use clap::{Arg, ArgAction, Command};
use stampede_impair::{Spec as ImpairSpec, SpecError as ImpairSpecError};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use stampede_report::Failure;
use stampede_scenario::values::{self, Resolution};
use stampede_scenario::{
    CodecMix, CodecMixError, CohortProfile, CohortSize, CohortSpec, CongestionFeedback, DataDraft,
    DataKinds, DataKindsError, DataTrackSubscribe, FaultSpec, FeedbackError, Grant, RoomDraft,
    RpcDraft,
};

use super::people::attribute;

/// Flags that make no sense in a file.
const NOT_IN_FILES: [&str; 3] = ["scenario", "help", "version"];
/// Tables with a form of their own; `room` is a name if it is no table.
const TABLES: [&str; 2] = ["cohort", "room"];
/// Least likeness of a name to be suggested (Jaro-Winkler).
const ALIKE: f64 = 0.75;

/// What a scenario file holds.
#[derive(Debug, Default)]
pub(super) struct ScenarioFile {
    /// For each flag set in it: its id and the words for the command line.
    pub flags: Vec<(String, Vec<String>)>,
    /// Its `[[cohort]]` tables.
    pub cohorts: Vec<CohortSpec>,
    /// Its `[[room]]` tables.
    pub rooms: Vec<RoomDraft>,
}

/// Something wrong at a place.
type Wrong = (Range<usize>, String);

/// Reads a scenario file against the flags of `run`; its text, if that is known already.
///
/// # Errors
/// The first thing wrong, with its place; exit code 104.
pub(super) fn load(
    path: &Path,
    text: Option<&str>,
    run: &Command,
) -> Result<ScenarioFile, Failure> {
    let name = path.display();
    let text = match text {
        Some(text) => text.to_owned(),
        None => fs::read_to_string(path).map_err(|error| {
            Failure::config(format!("--scenario {name}: can't be read: {error}"))
        })?,
    };
    parse(&text, run).map_err(|(span, why)| {
        let (line, column) = position(&text, span.start);
        Failure::config(format!("{name}:{line}:{column}: {why}"))
    })
}

fn parse(text: &str, run: &Command) -> Result<ScenarioFile, Wrong> {
    let document = DeTable::parse(text)
        .map_err(|error| (error.span().unwrap_or(0..0), error.message().to_owned()))?;
    let mut file = ScenarioFile::default();
    for (key, value) in document.get_ref() {
        let name: &str = key.get_ref();
        match (name, value.get_ref()) {
            ("cohort", _) => file.cohorts = tables(value, "cohort", cohort)?,
            ("room", DeValue::Array(_) | DeValue::Table(_)) => {
                file.rooms = tables(value, "room", room)?;
            }
            _ => {
                let arg = flag(name, run).ok_or_else(|| (key.span(), unknown(name, run)))?;
                let words = words(name, arg, value)?;
                for word in &words {
                    check(name, word, value.span(), run)?;
                }
                file.flags.push((arg.get_id().to_string(), words));
            }
        }
    }
    Ok(file)
}

/// The flag of a key.
fn flag<'a>(name: &str, run: &'a Command) -> Option<&'a Arg> {
    let long = name.replace('_', "-");
    run.get_arguments().find(|arg| {
        arg.get_long() == Some(&*long) && !NOT_IN_FILES.contains(&&*long) && !name.contains('-')
    })
}

fn unknown(name: &str, run: &Command) -> String {
    let longs = run.get_arguments().filter_map(Arg::get_long);
    let keys = longs.filter(|long| !NOT_IN_FILES.contains(long)).map(|long| long.replace('-', "_"));
    did_you_mean("key", name, keys.chain(TABLES.map(str::to_owned)))
}

/// `unknown key 'x'; did you mean 'y'?`
fn did_you_mean(what: &str, name: &str, known: impl Iterator<Item = String>) -> String {
    let best = known
        .map(|known| (strsim::jaro_winkler(name, &known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= ALIKE);
    match best {
        Some((_, known)) => format!("unknown {what} '{name}'; did you mean '{known}'?"),
        None => format!("unknown {what} '{name}'; see `stampede run --help` or `stampede init`"),
    }
}

/// The words that set a flag.
fn words(name: &str, arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, Wrong> {
    let long = arg.get_long().unwrap_or_default();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return match value.get_ref() {
            DeValue::Boolean(true) => Ok(vec![format!("--{long}")]),
            DeValue::Boolean(false) => Ok(Vec::new()),
            other => Err((value.span(), format!("'{name}' is true or false, not {}", kind(other)))),
        };
    }
    let word = |value: &Spanned<DeValue<'_>>| -> Result<String, Wrong> {
        let text = match value.get_ref() {
            DeValue::Table(table) if name == "stage" => stage(table, value.span())?,
            DeValue::Table(table) if name == "fault" => fault(table, value.span())?,
            DeValue::Table(table) if is_list(arg) => specification(table)?,
            _ => scalar(name, value)?,
        };
        Ok(format!("--{long}={text}"))
    };
    match value.get_ref() {
        DeValue::Array(values) if is_list(arg) => values.iter().map(word).collect(),
        _ => Ok(vec![word(value)?]),
    }
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// `[[stage]]` with `duration` and `subscribers`.
fn stage(table: &DeTable<'_>, span: Range<usize>) -> Result<String, Wrong> {
    let fields = Fields::new(table, span, "stage", &["duration", "subscribers"])?;
    let duration = fields.needed("duration", |text| Ok(text.to_owned()))?;
    let subscribers = fields.needed("subscribers", |text| Ok(text.to_owned()))?;
    Ok(format!("{duration}:{subscribers}"))
}

/// `[[fault]]` with what happens as `kind`, or as `simulate` what is simulated.
fn fault(table: &DeTable<'_>, span: Range<usize>) -> Result<String, Wrong> {
    const KEYS: [&str; 9] =
        ["kind", "simulate", "for", "at", "every", "spread", "share", "who", "cohort"];
    let fields = Fields::new(table, span.clone(), "fault", &KEYS)?;
    let text = |name| fields.optional(name, |text| Ok(text.to_owned()));
    let mut words = match (text("kind")?, text("simulate")?) {
        (Some(kind), None) => vec![kind],
        (None, Some(name)) => vec![format!("simulate={name}")],
        _ => return Err((span, "[[fault]] needs 'kind' or 'simulate', one of them".to_owned())),
    };
    for name in &KEYS[2..] {
        words.extend(text(name)?.map(|value| format!("{name}={value}")));
    }
    let fault = words.join(",");
    match fault.parse::<FaultSpec>() {
        Ok(_) => Ok(fault),
        Err(error) => Err((span, format!("[[fault]]: {error}"))),
    }
}

/// A table as `key=value,key=value`, the form of `--impair` and `--out`.
fn specification(table: &DeTable<'_>) -> Result<String, Wrong> {
    let parts = table.iter().map(|(key, value)| {
        let name: &str = key.get_ref();
        Ok(format!("{name}={}", scalar(name, value)?))
    });
    Ok(parts.collect::<Result<Vec<_>, Wrong>>()?.join(","))
}

/// Text, number or boolean as it would stand on the command line.
fn scalar(name: &str, value: &Spanned<DeValue<'_>>) -> Result<String, Wrong> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| (value.span(), format!("'{name}': the number is too large"))),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        other => {
            Err((value.span(), format!("'{name}' takes one text or number, not {}", kind(other))))
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Gives one word to its flag's own parser, so that what is wrong with it is said at its place.
fn check(name: &str, word: &str, span: Range<usize>, run: &Command) -> Result<(), Wrong> {
    use clap::error::ErrorKind;
    let Err(error) = run.clone().try_get_matches_from(["run", word]) else { return Ok(()) };
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        // About this flag and others: said when all of them are there.
        return Ok(());
    }
    let line = super::usage_line(&error);
    let after = |text: &str| line.split_once(text).map(|(_, rest)| rest.to_owned());
    // clap: invalid value 'x' for '--flag <X>': why / a value is required for '--flag <X>' but …
    let why = after(">': ").or_else(|| after(">' ")).unwrap_or_else(|| line.clone());
    let value = word.split_once('=').map_or(word, |(_, value)| value);
    Err((span, format!("invalid value '{value}' for '{name}': {why}")))
}

/// The tables of one kind.
fn tables<T>(
    value: &Spanned<DeValue<'_>>,
    name: &str,
    read: impl Fn(&DeTable<'_>, Range<usize>) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let wrong = |span, found: &DeValue<'_>| {
        (span, format!("'{name}' is a list of tables, [[{name}]], not {}", kind(found)))
    };
    let DeValue::Array(values) = value.get_ref() else {
        return Err(wrong(value.span(), value.get_ref()));
    };
    let one = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::Table(table) => read(table, value.span()),
        other => Err(wrong(value.span(), other)),
    };
    values.iter().map(one).collect()
}

fn cohort(table: &DeTable<'_>, span: Range<usize>) -> Result<CohortSpec, Wrong> {
    const KEYS: [&str; 20] = [
        "name",
        "share",
        "count",
        "video_resolution",
        "subscribe_codecs",
        "record",
        "impair",
        "grant",
        "participant_metadata",
        "participant_attribute",
        "feedback",
        "data_publishers",
        "data_rate",
        "data_size",
        "data_kind",
        "data_track_subscribe",
        "rpc_callers",
        "rpc_rate",
        "rpc_size",
        "metadata_updates_per_second",
    ];
    let fields = Fields::new(table, span.clone(), "cohort", &KEYS)?;
    let name = fields.needed("name", cohort_name)?;
    let share = fields.optional("share", values::share)?;
    let count = fields.optional("count", number)?;
    let size = match (share, count) {
        (Some(share), None) => CohortSize::Share(share),
        (None, Some(count)) => CohortSize::Count(count),
        _ => {
            let why = format!("cohort '{name}' needs a share or a count, one of them");
            return Err((span, why));
        }
    };
    Ok(CohortSpec {
        name,
        size,
        resolution: fields.optional("video_resolution", resolution)?,
        subscribe_codecs: fields.optional("subscribe_codecs", |text| text.parse())?,
        record: fields.flag("record")?,
        impair: fields.optional("impair", impair)?,
        feedback: fields.optional("feedback", feedback)?,
        profile: CohortProfile {
            grants: fields
                .list("grant", |text| text.parse::<Grant>().map_err(|error| error.to_string()))?,
            metadata: fields.optional("participant_metadata", |text| Ok(text.to_owned()))?,
            attributes: fields.list("participant_attribute", attribute)?,
        },
        data: DataDraft {
            publishers: fields.optional("data_publishers", number)?,
            rate: fields.optional("data_rate", values::data_rate)?,
            bytes: fields.optional("data_size", values::data_bytes)?,
            kinds: fields.optional("data_kind", data_kinds)?,
            subscribe: fields.optional("data_track_subscribe", subscribe)?,
        },
        rpc: RpcDraft {
            callers: fields.optional("rpc_callers", number)?,
            rate: fields.optional("rpc_rate", values::rpc_rate)?,
            bytes: fields.optional("rpc_size", values::rpc_bytes)?,
            ..RpcDraft::default()
        },
        metadata_updates_per_second: fields
            .optional("metadata_updates_per_second", values::updates_rate)?,
    })
}

fn room(table: &DeTable<'_>, span: Range<usize>) -> Result<RoomDraft, Wrong> {
    const KEYS: [&str; 9] = [
        "name",
        "data_publishers",
        "screen_share_publishers",
        "video_codec",
        "video_publishers",
        "audio_publishers",
        "subscribers",
        "participants",
        "video_resolution",
    ];
    let fields = Fields::new(table, span, "room", &KEYS)?;
    Ok(RoomDraft {
        name: fields.optional("name", |text| Ok(text.to_owned()))?,
        video_publishers: fields.optional("video_publishers", number)?,
        audio_publishers: fields.optional("audio_publishers", number)?,
        screen_share_publishers: fields.optional("screen_share_publishers", number)?,
        data_publishers: fields.optional("data_publishers", number)?,
        participants: fields.optional("participants", number)?,
        subscribers: fields.optional("subscribers", number)?,
        video_resolution: fields.optional("video_resolution", resolution)?,
        video_codec: fields.optional("video_codec", codecs)?,
    })
}

fn codecs(text: &str) -> Result<CodecMix, String> {
    text.parse().map_err(|error: CodecMixError| error.to_string())
}

fn data_kinds(text: &str) -> Result<DataKinds, String> {
    text.parse().map_err(|error: DataKindsError| error.to_string())
}

fn feedback(text: &str) -> Result<CongestionFeedback, String> {
    text.parse().map_err(|error: FeedbackError| error.to_string())
}

/// What is done to a cohort, which is this table.
fn impair(text: &str) -> Result<ImpairSpec, String> {
    let spec: ImpairSpec = text.parse().map_err(|error: ImpairSpecError| error.to_string())?;
    match spec.names_cohort() {
        false => Ok(spec),
        true => Err("it is for this cohort: leave 'cohort' out".to_owned()),
    }
}

/// It becomes a part of identities.
fn cohort_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=32).contains(&text.len()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 32 of A-Z a-z 0-9 - _ .".to_owned())
    }
}

fn number(text: &str) -> Result<u32, String> {
    u32::from_str(text).map_err(|_| "it is not a whole number".to_owned())
}

fn resolution(text: &str) -> Result<Resolution, String> {
    clap::ValueEnum::from_str(text, false).map_err(|_| "use high, medium or low".to_owned())
}

fn subscribe(text: &str) -> Result<DataTrackSubscribe, String> {
    clap::ValueEnum::from_str(text, false).map_err(|_| "use auto, manual or none".to_owned())
}

/// The fields of one table, all of them known.
struct Fields<'a> {
    table: &'a DeTable<'a>,
    span: Range<usize>,
    what: &'static str,
}

impl<'a> Fields<'a> {
    fn new(
        table: &'a DeTable<'_>,
        span: Range<usize>,
        what: &'static str,
        keys: &[&str],
    ) -> Result<Self, Wrong> {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !keys.contains(&name) {
                let known = keys.iter().map(|known| (*known).to_owned());
                let why = did_you_mean("key", name, known);
                return Err((key.span(), format!("[[{what}]]: {why}")));
            }
        }
        Ok(Self { table, span, what })
    }

    fn optional<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Wrong> {
        let Some(value) = self.table.get(name) else { return Ok(None) };
        let text = match value.get_ref() {
            DeValue::Table(table) if name == "impair" => specification(table)?,
            _ => scalar(name, value)?,
        };
        let parsed = parse(&text)
            .map_err(|why| (value.span(), format!("invalid value '{text}' for '{name}': {why}")))?;
        Ok(Some(parsed))
    }

    /// One value, or several in a list.
    fn list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Wrong> {
        let Some(value) = self.table.get(name) else { return Ok(Vec::new()) };
        let values = match value.get_ref() {
            DeValue::Array(values) => values.iter().collect(),
            _ => vec![value],
        };
        let one = |value: &Spanned<DeValue<'_>>| {
            let text = scalar(name, value)?;
            parse(&text).map_err(|why| {
                (value.span(), format!("invalid value '{text}' for '{name}': {why}"))
            })
        };
        values.into_iter().map(one).collect()
    }

    fn needed<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Wrong> {
        let missing = || (self.span.clone(), format!("[[{}]] needs '{name}'", self.what));
        self.optional(name, parse)?.ok_or_else(missing)
    }

    fn flag(&self, name: &str) -> Result<bool, Wrong> {
        match self.table.get(name).map(|value| (value.get_ref(), value.span())) {
            None => Ok(false),
            Some((DeValue::Boolean(set), _)) => Ok(*set),
            Some((other, span)) => {
                Err((span, format!("'{name}' is true or false, not {}", kind(other))))
            }
        }
    }
}

/// Line and column of a byte, both from 1; columns are characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Command {
        let cli = <crate::flags::Cli as clap::CommandFactory>::command();
        cli.find_subcommand("run").unwrap().clone()
    }

    fn words_of(text: &str) -> Vec<String> {
        parse(text, &run()).unwrap().flags.into_iter().flat_map(|(_, words)| words).collect()
    }

    #[test]
    fn every_flag_has_a_key_of_its_name() {
        let run = run();
        let longs = run.get_arguments().filter_map(Arg::get_long);
        for long in longs.filter(|long| !NOT_IN_FILES.contains(long)) {
            let name = long.replace('-', "_");
            let found = flag(&name, &run).unwrap_or_else(|| panic!("no key for --{long}"));
            assert_eq!(found.get_id().as_str(), name, "ids are the keys");
        }
    }

    /// Files made of the template, and of all tables, are refused at a place or make a scenario that
    /// makes sense, whatever they say.
    #[test]
    fn no_file_makes_it_panic() {
        const WORDS: &[&[u8]] = &[
            b"\n[[cohort]]\n",
            b"\n[[room]]\n",
            b"\n[[stage]]\n",
            b"\n[[fault]]\n",
            b" = ",
            b"\"",
            b"[",
            b"{ ",
            b"subscribers = ",
            b"4000000000",
            b"-1",
            b"0",
            b"1e308",
            b"true",
            b"\"100%\"",
            b"\"0s\"",
            b"count = 1\n",
            b"impair = \"loss=1%\"\n",
            b"\nrooms = ",
            b"data_publishers = 2\n",
            b"name = \"\"\n",
            b"\nparticipants = ",
            b"\nno_media = true\n",
            b"layout = \"3x3\"\n",
        ];
        let template = super::super::init::TEMPLATE;
        // What stands behind # is what else there is.
        let open: Vec<&str> = template
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
            .collect();
        let tables = "url = \"ws://h\"\napi_key = \"k\"\napi_secret = \"s\"\nsubscribers = 20\n\
            fault = \"signal_drop,at=5s\"\n[[cohort]]\nname = \"m\"\nshare = \"30%\"\n\
            data_publishers = 1\nmetadata_updates_per_second = 0.5\n[[cohort]]\nname = \"t\"\ncount = 1\n\
            impair = { loss = \"2%\", burst = 3 }\n[[room]]\nname = \"hall\"\nsubscribers = 9\n[[room]]\n";
        let seeds = [template.into(), open.join("\n").into_bytes(), tables.into()];
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scenario.toml");
        let arguments = ["stampede".into(), "run".into(), "--scenario".into(), file.clone().into()];
        let mut scenarios = 0;
        stampede_testing::mutate::series(&seeds, 600, 17, WORDS, |text| {
            fs::write(&file, text).unwrap();
            let parsed = super::super::parse(arguments.clone());
            let Ok(super::super::Parsed::Command(super::super::Command::Run(flags))) = parsed
            else {
                return;
            };
            let Ok(draft) = flags.draft() else { return };
            let Ok(scenario) = stampede_scenario::Scenario::new(draft) else { return };
            assert!(scenario.participants_peak() <= scenario.participants_total());
            assert!(scenario.participants_total() > 0);
            scenarios += 1;
        });
        assert!(scenarios > 10, "{scenarios} of 600 files are scenarios");
    }

    #[test]
    fn values_become_words_of_their_flags() {
        let mut words = words_of(
            "subscribers = 1_000\nnum_per_second = 0.5\nduration = \"1m30s\"\nquiet = true\n\
             no_tui = false\nvideo = [\"a.ivf\", \"b.ivf\"]\nout = \"json=x.json\"\n\
             stage = [\"10s:5\", { duration = \"1s\", subscribers = 0x10 }]\nseed = 7\n",
        );
        words.sort();
        assert_eq!(
            words,
            [
                "--duration=1m30s",
                "--num-per-second=0.5",
                "--out=json=x.json",
                "--quiet",
                "--seed=7",
                "--stage=10s:5",
                "--stage=1s:16",
                "--subscribers=1000",
                "--video=a.ivf",
                "--video=b.ivf",
            ]
        );
    }

    #[test]
    fn tables_are_cohorts_rooms_stages_and_specifications() {
        let text = "[[stage]]\nduration = \"5s\"\nsubscribers = 10\n[[out]]\njson = \"x.json\"\n\
                    [[cohort]]\nname = \"mobile\"\nshare = \"30%\"\nvideo_resolution = \"low\"\n\
                    grant = [\"canPublish=false\", \"canPublishData=true\"]\n\
                    participant_metadata = \"m\"\nparticipant_attribute = \"lang=fr\"\n\
                    [[cohort]]\nname = \"rec\"\ncount = 2\nrecord = true\nimpair = \"loss=2%\"\n\
                    feedback = \"none\"\n\
                    [[cohort]]\nname = \"t\"\ncount = 1\nimpair = { loss = \"2%\", burst = 3 }\n\
                    [[cohort]]\nname = \"d\"\ncount = 1\ndata_publishers = 1\ndata_rate = 2.5\n\
                    data_size = \"1kB\"\ndata_kind = \"lossy,track\"\ndata_track_subscribe = \"none\"\n\
                    rpc_callers = 1\nrpc_rate = 3\nrpc_size = 99\nmetadata_updates_per_second = 0.5\n\
                    [[room]]\nname = \"hall\"\nsubscribers = 9\ndata_publishers = 2\n[[room]]\n";
        let file = parse(text, &run()).unwrap();
        let words: Vec<_> = file.flags.into_iter().flat_map(|(_, words)| words).collect();
        assert_eq!(words.len(), 2);
        assert!(words.contains(&"--stage=5s:10".to_owned()));
        assert!(words.contains(&"--out=json=x.json".to_owned()));
        assert_eq!(file.cohorts[0].size, CohortSize::Share(0.3));
        assert_eq!(file.cohorts[0].resolution, Some(Resolution::Low));
        let CohortProfile { grants, metadata, attributes } = &file.cohorts[0].profile;
        assert_eq!((grants.len(), metadata.as_deref()), (2, Some("m")));
        assert_eq!(attributes[..], [("lang".to_owned(), "fr".to_owned())]);
        assert_eq!(file.cohorts[1].profile, CohortProfile::default());
        assert_eq!((file.cohorts[1].size, file.cohorts[1].record), (CohortSize::Count(2), true));
        let told = [None, Some(CongestionFeedback::None)];
        assert_eq!([0, 1].map(|index| file.cohorts[index].feedback), told);
        let impair = |index: usize| file.cohorts[index].impair.as_ref().map(ImpairSpec::text);
        assert_eq!((impair(0), impair(1)), (None, Some("loss=2%")));
        assert_eq!(file.cohorts[2].impair, Some("burst=3,loss=2%".parse().unwrap()));
        let CohortSpec { data, rpc, metadata_updates_per_second: updates, .. } = &file.cohorts[3];
        let kinds = Some("lossy,track".parse().unwrap());
        let sent = (data.publishers, data.rate, data.bytes, data.kinds, data.subscribe);
        let none = Some(DataTrackSubscribe::None);
        assert_eq!(sent, (Some(1), Some(2.5), Some(1_000), kinds, none));
        assert_eq!(
            (rpc.callers, rpc.rate, rpc.bytes, *updates),
            (Some(1), Some(3.0), Some(99), Some(0.5))
        );
        assert_eq!(file.cohorts[2].data, DataDraft::default());
        assert_eq!(file.rooms.len(), 2);
        assert_eq!(file.rooms[0].data_publishers, Some(2));
        assert_eq!(
            (file.rooms[0].name.as_deref(), file.rooms[0].subscribers),
            (Some("hall"), Some(9))
        );
        assert_eq!(words_of("room = \"hall\"\n"), ["--room=hall"]);
    }

    #[test]
    fn faults_are_tables_or_texts_of_their_flag() {
        let text = "reconnect = 3\nstay = \"30s\"\n\
                    [[fault]]\nkind = \"outage\"\nfor = \"1s\"\nat = \"10s\"\nshare = \"10%\"\n\
                    [[fault]]\nsimulate = \"speaker_update:5s\"\nevery = \"30s\"\nwho = \"publishers\"\n\
                    [[fault]]\nkind = \"signal_drop\"\nspread = \"2s\"\ncohort = \"mobile\"\n";
        let mut words = words_of(text);
        words.sort();
        assert_eq!(
            words,
            [
                "--fault=outage,for=1s,at=10s,share=10%",
                "--fault=signal_drop,spread=2s,cohort=mobile",
                "--fault=simulate=speaker_update:5s,every=30s,who=publishers",
                "--reconnect=3",
                "--stay=30s",
            ]
        );
        assert_eq!(words_of("fault = [\"move,at=1s\"]"), ["--fault=move,at=1s"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, place, why) in [
            ("subscriber = 5", "1:1", "did you mean 'subscribers'?"),
            ("# ä\n\n  qu1et = true", "3:3", "did you mean 'quiet'?"),
            ("num-per-second = 5", "1:1", "did you mean 'num_per_second'?"),
            ("zzz = 1", "1:1", "stampede init"),
            ("scenario = \"x\"", "1:1", "unknown key 'scenario'"),
            ("subscribers = \"many\"", "1:15", "invalid value 'many' for 'subscribers': "),
            ("a = 1\nb = ", "2:5", ""),
            ("duration = 90", "1:12", "without a unit"),
            ("video_resolution = \"4k\"", "1:20", "high"),
            ("quiet = \"yes\"", "1:9", "'quiet' is true or false, not a text"),
            ("subscribers = true", "1:15", "one text or number, not true"),
            ("subscribers = [1]", "1:15", "not a list"),
            ("stage = [\"10s:1\", \"10s\"]", "1:9", "':' is missing"),
            ("[[stage]]\nduration = \"1s\"", "1:1", "[[stage]] needs 'subscribers'"),
            ("[[stage]]\nduratoin = \"1s\"", "2:1", "did you mean 'duration'?"),
            ("[[cohort]]\nname = \"a\"\ncount = 1\nfeedback = \"firefox\"", "4:12", "chrome"),
            (
                "[[cohort]]\nname = \"a\"\ncount = 1\ndata_kind = \"stream\"",
                "4:13",
                "several with commas",
            ),
            ("[[cohort]]\nname = \"a\"\ncount = 1\ndata_size = 5", "4:13", "32"),
            ("[[cohort]]\nname = \"a\"\ncount = 1\ndata_track_subscribe = \"x\"", "4:24", "manual"),
            (
                "[[cohort]]\nname = \"a\"\ncount = 1\nmetadata_updates_per_second = 1e-20",
                "4:31",
                "0.01 or more",
            ),
            ("[[cohort]]\nname = \"a\"", "1:1", "a share or a count"),
            ("[[cohort]]\nname = \"a b\"\ncount = 1", "2:8", "1 to 32"),
            (
                "[[cohort]]\nname = \"a\"\ncount = 1\ngrant = [\"canPublish=false\", \"x\"]",
                "4:30",
                "invalid value 'x' for 'grant'",
            ),
            (
                "[[cohort]]\nname = \"a\"\ncount = 1\nparticipant_attribute = \"x\"",
                "4:25",
                "lang=en",
            ),
            ("[[cohort]]\nname = \"a\"\nshare = 10", "3:9", "like 10% or 0.1"),
            ("[[cohort]]\nname = \"a\"\nshare = 0.1\nrecord = 1", "4:10", "true or false"),
            ("[[cohort]]\nnmae = \"a\"", "2:1", "did you mean 'name'?"),
            ("[[cohort]]\nname = \"a\"\nshare = 0.1\nimpair = \"loss=2\"", "4:10", "% sign"),
            (
                "[[cohort]]\nname = \"a\"\nshare = 0.1\nimpair = \"cohort=2%,loss=2%\"",
                "4:10",
                "leave",
            ),
            ("[[fault]]\nat = \"1s\"", "1:1", "[[fault]] needs 'kind' or 'simulate'"),
            ("[[fault]]\nkind = \"move\"\nsimulate = \"migration\"", "1:1", "one of them"),
            (
                "[[fault]]\nkind = \"move\"\n[[fault]]\nkind = \"crash\"",
                "3:1",
                "begin with signal_drop",
            ),
            ("[[fault]]\nkind = \"move\"\nevry = \"1s\"", "3:1", "did you mean 'every'?"),
            ("[[fault]]\nkind = \"move\"\nshare = 0.5", "1:1", "share=0.5: the % sign"),
            ("fault = [\"move,at=1\"]", "1:9", "without a unit"),
            ("stay = 30", "1:8", "without a unit"),
            ("cohort = 5", "1:10", "[[cohort]], not a number"),
            ("[[room]]\nsubscribers = -1", "2:15", "not a whole number"),
            ("[[room]]\nduration = \"1s\"", "2:1", "[[room]]: unknown key 'duration'"),
        ] {
            let (span, found) = parse(text, &run()).expect_err(text);
            let (line, column) = position(text, span.start);
            assert_eq!(format!("{line}:{column}"), place, "{text}: {found}");
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
