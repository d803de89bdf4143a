//! The pages say what is: links lead to a file of the repository and a heading in it, and bounds
//! are those of the sources.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

use std::collections::BTreeMap;
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

/// Values of the constants that are a maximum, by name; those of a computed one are left out.
fn maxima(folder: &Path, into: &mut BTreeMap<String, Vec<Option<u64>>>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() && !entry.ends_with("target") {
            maxima(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).unwrap();
            for rest in text.split("const ").skip(1) {
                let Some((name, rest)) = rest.split_once(':') else { continue };
                let Some(value) = rest.split([';', '=']).nth(1) else { continue };
                if name.ends_with("_MAX") {
                    let value = value.trim().replace('_', "").parse().ok();
                    into.entry(name.to_owned()).or_default().push(value);
                }
            }
        }
    }
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
    for folder in ["engine", "signaling", "tools"] {
        maxima(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut declared);
    }
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
