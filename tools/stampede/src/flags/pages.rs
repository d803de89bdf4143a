//! What is generated from the flags: the man page, completions, and `docs/flags.md`.

use std::io;

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::Roff;

use stampede_output::console;
use stampede_report::{Exit, Failure};

/// Print the man page of all commands.
///
/// Read it with `stampede man | man -l -`, or write it to share/man/man1/stampede.1.
#[derive(Debug, Args)]
pub(crate) struct ManFlags {}

/// Print what a shell needs to complete commands and flags.
///
/// For example: `stampede completions bash > /etc/bash_completion.d/stampede`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsFlags {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// `stampede man`.
///
/// # Errors
/// Never in practice: the page is made in memory.
pub(crate) fn man(command: clap::Command) -> Result<Exit, Failure> {
    console::out(&man_page(command).map_err(Failure::other)?);
    Ok(Exit::Pass)
}

/// `stampede completions SHELL`.
pub(crate) fn completions(mut command: clap::Command, shell: Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "stampede", &mut script);
    console::out(&String::from_utf8_lossy(&script));
    Exit::Pass
}

/// All commands and flags with their full names, without clap's own `help` command.
fn built(command: clap::Command) -> clap::Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

/// One page in roff: the command, a section for each of its commands, exit codes.
fn man_page(command: clap::Command) -> io::Result<String> {
    let command = built(command);
    let page = Man::new(command.clone());
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    for inner in command.get_subcommands() {
        let name = inner.get_bin_name().unwrap_or_else(|| inner.get_name());
        let mut heading = Roff::new();
        heading.control("SH", [name.to_uppercase().as_str()]);
        out.extend(heading.to_roff().into_bytes());
        out.extend(section_of(inner)?.into_bytes());
    }
    page.render_extra_section(&mut out)?;
    page.render_version_section(&mut out)?;
    Ok(without_repeated_preambles(&String::from_utf8_lossy(&out)))
}

/// A command of the command: what would be its own page's sections are subsections here.
fn section_of(command: &clap::Command) -> io::Result<String> {
    let page = Man::new(command.clone());
    let mut out = Vec::new();
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    let text = String::from_utf8_lossy(&out);
    let lines = text.lines().map(|line| match line.strip_prefix(".SH ") {
        Some(heading) => format!(".SS {heading}\n"),
        None => format!("{line}\n"),
    });
    Ok(lines.collect())
}

/// Each part comes with roff's definition of an apostrophe; once is enough.
fn without_repeated_preambles(text: &str) -> String {
    let is_preamble = |line: &str| [".ie \\n(.g", ".el .ds Aq"].iter().any(|s| line.starts_with(s));
    let mut preambles = 0;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        preambles += usize::from(is_preamble(line));
        if !is_preamble(line) || preambles <= 2 {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::{Arg, CommandFactory, ValueEnum};

    use super::super::Cli;
    use super::*;

    /// Where the page of all flags lies.
    const FLAGS_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/flags.md");
    const FLAGS_INTRO: &str = "\
# Flags

Every command and flag, as `stampede COMMAND --help` and `stampede man` have them too. This page is generated from the flags' definitions:
`STAMPEDE_BLESS=1 cargo test -p stampede the_page_of_flags` writes it anew. How values are written is in
[scenarios.md](scenarios.md#values). A flag given twice counts as the last one says, but for those that may be repeated. An option of
`stampede run` can stand in a [scenario file](scenarios.md#scenario-files) too; the command line and the environment override it.

";

    /// Its flags but for `--help`.
    fn shown(command: &clap::Command) -> impl Iterator<Item = &Arg> {
        command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help")
    }

    /// As it is typed: `--url <URL>`, `--quiet`, `<FILE>...`.
    fn typed(arg: &Arg) -> String {
        let names = arg.get_value_names().unwrap_or_default();
        let takes_value = arg.get_action().takes_values();
        let value = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
        let short = arg.get_short().map_or_else(String::new, |short| format!("-{short}, "));
        match arg.get_long() {
            Some(long) if takes_value => format!("{short}--{long} {value}"),
            Some(long) => format!("{short}--{long}"),
            None => value,
        }
    }

    /// Text as Markdown in a table's cell.
    fn cell(text: &str) -> String {
        let text = text.replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*");
        text.replace("\n\n", "<br>").replace('\n', " ")
    }

    fn code(text: &str) -> String {
        if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) }
    }

    fn row(arg: &Arg) -> String {
        let defaults: Vec<_> =
            arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if arg.get_action().takes_values() { defaults.join(" ") } else { "".into() };
        let variable = arg.get_env().map(|name| name.to_string_lossy()).unwrap_or_default();
        let help = arg.get_long_help().or_else(|| arg.get_help()).cloned().unwrap_or_default();
        let mut help = cell(&help.to_string());
        let values = arg.get_possible_values();
        if !values.is_empty() {
            let values = values.iter().filter(|value| !value.is_hide_set());
            let values = values.map(|value| match value.get_help() {
                Some(help) => format!("`{}` ({})", value.get_name(), cell(&help.to_string())),
                None => format!("`{}`", value.get_name()),
            });
            let _ = write!(help, "<br>Values: {}", values.collect::<Vec<_>>().join(", "));
        }
        let (typed, default) = (code(&typed(arg)), code(&default));
        format!("| {typed} | {default} | {} | {help} |\n", code(&variable))
    }

    /// The flags of a command by their headings, in the order in which they are defined.
    fn groups(command: &clap::Command) -> Vec<(&str, Vec<&Arg>)> {
        let mut groups: Vec<(&str, Vec<&Arg>)> = Vec::new();
        for arg in shown(command) {
            let none = if arg.is_positional() { "Arguments" } else { "Options" };
            let heading = arg.get_help_heading().unwrap_or(none);
            match groups.iter_mut().find(|(known, _)| *known == heading) {
                Some((_, args)) => args.push(arg),
                None => groups.push((heading, vec![arg])),
            }
        }
        groups
    }

    fn flags_page(command: clap::Command) -> String {
        let mut command = built(command);
        let mut text = FLAGS_INTRO.to_owned();
        for inner in command.get_subcommands() {
            let name = inner.get_name();
            let about = inner.get_about().cloned().unwrap_or_default();
            let _ = writeln!(text, "- [stampede {name}](#stampede-{name}): {about}");
        }
        let all = command.get_subcommands_mut().map(|inner| {
            let usage = inner.render_usage().to_string();
            (usage.trim_start_matches("Usage: ").to_owned(), inner)
        });
        for (usage, inner) in all {
            let about = inner.get_long_about().or_else(|| inner.get_about());
            let about = about.cloned().unwrap_or_default();
            let name = inner.get_name();
            let _ = write!(text, "\n## stampede {name}\n\n{about}\n\n```\n{usage}\n```\n");
            for (heading, args) in groups(inner) {
                let _ = write!(text, "\n**{heading}**\n\n| flag | default | variable | what |\n");
                text.push_str("|---|---|---|---|\n");
                text.extend(args.into_iter().map(row));
            }
        }
        text
    }

    /// `STAMPEDE_BLESS=1` writes the file anew.
    #[test]
    fn the_page_of_flags_is_what_the_definitions_say() {
        let text = flags_page(Cli::command());
        if std::env::var_os("STAMPEDE_BLESS").is_some() {
            std::fs::write(FLAGS_PAGE, &text).unwrap();
        }
        let kept = std::fs::read_to_string(FLAGS_PAGE).unwrap_or_default();
        assert!(
            kept == text,
            "docs/flags.md is stale; write it anew with STAMPEDE_BLESS=1 cargo test -p stampede \
             the_page_of_flags"
        );
    }

    #[test]
    fn the_page_of_flags_has_everything_but_what_is_hidden() {
        let text = flags_page(Cli::command());
        let row = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(row("| `--url URL` |").contains("| `LIVEKIT_URL` | Server to join"));
        assert!(row("| `--rooms N` |").contains("| `1` |"));
        assert!(row("| `--backend BACKEND` |").contains("`packet_ring`"));
        assert!(row("| `--threshold EXPR` |").contains("loss_rate&lt;1%"));
        assert!(text.contains("**Embedded SFU (without --url)**"));
        assert!(!text.contains("--embedded-child"), "it is hidden");
        for inner in built(Cli::command()).get_subcommands() {
            for arg in shown(inner) {
                assert!(text.contains(&format!("| `{}` |", typed(arg))), "{arg:?}");
            }
        }
    }

    #[test]
    fn the_man_page_has_every_command_and_flag() {
        let text = man_page(Cli::command()).unwrap();
        assert_eq!(text.matches(".TH ").count(), 1);
        assert_eq!(text.matches(".ie \\n(.g").count(), 1, "{}", &text[..600]);
        // roff's hyphens are minus signs.
        let text = text.replace("\\-", "-");
        for inner in built(Cli::command()).get_subcommands() {
            let name = inner.get_bin_name().unwrap().to_uppercase();
            let heading = format!(".SH \"{name}\"\n");
            let (_, section) = text.split_once(&heading).unwrap_or_else(|| panic!("{heading}"));
            let section = section.split(".SH ").next().unwrap();
            for arg in shown(inner) {
                let long = arg.get_long().map(|long| format!("--{long}"));
                let name = long.unwrap_or_else(|| typed(arg));
                assert!(section.contains(&name), "{heading}{name}");
            }
            assert!(!section.contains("embedded-child"));
        }
        assert!(text.contains(".SS SERVER\n") && text.contains("LIVEKIT_API_KEY"));
        assert!(text.contains("Exit codes: 0 pass"));
    }

    #[test]
    fn every_shell_has_completions_of_every_command() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "stampede", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["doctor", "completions", "video-publishers", "packet_ring"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
