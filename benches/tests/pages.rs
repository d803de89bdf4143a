//! The pages say what is: links lead to a file of the repository and a heading in it, and bounds
//! are those of the sources.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose pages are read, from the workspace's root.
const FOLDERS: [&str; 5] = [".", "docs", "benches", "fuzz", "tools/foreign"];

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let entries = FOLDERS.map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let paths = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The text without blocks and spans of code.
fn prose(text: &str) -> String {
    let blocks = text.split("\n```").step_by(2);
    blocks.flat_map(|block| block.split('`').step_by(2)).collect()
}

/// Targets of `[text](target)` that lie in the repository.
fn targets(text: &str) -> Vec<&str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    ends.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// Headings' anchors, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let lines = text.split("\n```").step_by(2).flat_map(str::lines);
    let headings =
        lines.filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_matches('#'));
    headings
        .map(|heading| {
            let kept = heading.trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let pages = pages();
    let mut wrongs = Vec::new();
    let mut links = 0;
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for target in targets(&prose(&text)) {
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let found = path.exists()
                && (anchor.is_empty()
                    || anchors(&fs::read_to_string(&path).unwrap()).iter().any(|it| it == anchor));
            if !found {
                wrongs.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(links > 50 && pages.len() > 8, "{links} links in {} pages", pages.len());
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

#[test]
fn links_and_anchors_are_read_as_github_does() {
    let text =
        "# A `b`, c\n[x](y.md#a) `[no](code)`\n```sh\n# no [z](z)\n```\n## Bought, not built\n";
    assert_eq!(targets(&prose(text)), ["y.md#a"]);
    assert_eq!(anchors(text), ["a-b-c", "bought-not-built"]);
}

/// Rust sources below a folder with their paths.
fn sources(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() && !entry.ends_with("target") {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).unwrap();
            into.push((entry, text));
        }
    }
}

/// Those of the workspace's product.
fn all_sources() -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for folder in ["engine", "signaling", "tools"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut all);
    }
    all
}

/// Values of the constants that are a maximum, by name; those of a computed one are left out.
fn maxima(text: &str, into: &mut BTreeMap<String, Vec<Option<u64>>>) {
    for rest in text.split("const ").skip(1) {
        let Some((name, rest)) = rest.split_once(':') else { continue };
        let Some(value) = rest.split([';', '=']).nth(1) else { continue };
        if name.ends_with("_MAX") {
            let value = value.trim().replace('_', "").parse().ok();
            into.entry(name.to_owned()).or_default().push(value);
        }
    }
}

/// What of a source is tests: all of a file of tests, else what is behind the line that begins them.
fn tests_of<'a>(path: &Path, text: &'a str) -> &'a str {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let in_folder = path.components().any(|part| part.as_os_str() == "tests");
    if in_folder || stem == "tests" || stem.ends_with("_tests") {
        return text;
    }
    text.split_once("#[cfg(test)]\nmod tests {").map_or("", |(_, tests)| tests)
}

/// The words of it that may be constants.
fn constants(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.ends_with("_MAX"))
}

/// Named maxima of a page, with the number that follows each, if one does.
fn maxima_of_page(text: &str) -> Vec<(&str, Option<u64>)> {
    let pairs = text.split('`').skip(1).step_by(2).zip(text.split('`').skip(2).step_by(2));
    let names = pairs.filter(|(name, _)| {
        name.len() > 4
            && name.ends_with("_MAX")
            && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    });
    names
        .map(|(name, after)| {
            let mut words = after.trim_start().split([' ', '|']);
            let number = words.next().unwrap_or_default().trim_end_matches([',', '.']);
            let unit = words.next().unwrap_or_default();
            let plain = !["KiB", "MiB", "GiB", "ms", "s"].contains(&unit.trim_end_matches(','));
            (name, number.replace(',', "").parse().ok().filter(|_| plain))
        })
        .collect()
}

#[test]
fn bounds_in_the_pages_are_those_of_the_sources() {
    let mut declared = BTreeMap::new();
    all_sources().iter().for_each(|(_, text)| maxima(text, &mut declared));
    let (mut compared, mut wrongs) = (0, Vec::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (name, said) in maxima_of_page(&text) {
            let place = page.display();
            let Some(values) = declared.get(name) else {
                wrongs.push(format!("{place}: no source declares {name}"));
                continue;
            };
            let known = values.iter().all(Option::is_some);
            if said.is_some() && known {
                compared += 1;
                if !values.contains(&said) {
                    wrongs.push(format!("{place}: {name} is {values:?}, not {said:?}"));
                }
            }
        }
    }
    assert!(compared > 30, "{compared} bounds compared");
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

#[test]
fn bounds_of_a_page_are_read_with_their_numbers() {
    let text = "| a | `ONE_MAX` 8,192 | b |\n| c | `TWO_MAX` 4 MiB, `THREE_MAX` 64, `x_MAX` 1 |";
    let read = [("ONE_MAX", Some(8_192)), ("TWO_MAX", None), ("THREE_MAX", Some(64))];
    assert_eq!(maxima_of_page(text), read);
}

/// The part of a page that is headed so.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    rest.split_once("\n## ").map_or(rest, |(own, _)| own)
}

#[test]
fn each_maximum_of_the_table_of_queues_is_reached_in_a_test_that_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let all = all_sources();
    let tested: BTreeSet<&str> =
        all.iter().flat_map(|(path, text)| constants(tests_of(path, text))).collect();
    let named = maxima_of_page(section(&page, "Queues and their bounds"));
    let untested: Vec<_> =
        named.iter().map(|(name, _)| *name).filter(|name| !tested.contains(name)).collect();
    assert!(named.len() > 120, "{} maxima are in the table", named.len());
    assert!(untested.is_empty(), "no test names {untested:?}");
}

#[test]
fn what_is_tests_of_a_source_is_told_from_the_rest() {
    let text = "const A_MAX: u8 = 1;\n#[cfg(test)]\nmod tests {\n assert_eq!(x, B_MAX - 1);";
    let of = |path: &str| constants(tests_of(Path::new(path), text)).collect::<Vec<_>>();
    assert_eq!(of("engine/src/a.rs"), ["B_MAX"]);
    for path in ["engine/tests/a.rs", "engine/src/a/tests.rs", "engine/src/a_tests.rs"] {
        assert_eq!(of(path), ["A_MAX", "B_MAX"]);
    }
    assert_eq!(section("# a\n\n## b\nc\n\n## d\ne\n", "b"), "c\n");
}
