//! Links in the pages lead somewhere: to a file of the repository, and a heading in it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose pages are read, from the workspace's root.
const FOLDERS: [&str; 4] = [".", "docs", "benches", "tools/foreign"];

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
