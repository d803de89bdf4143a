//! Replays the corpus of each target, and tries so many inputs that are made of it.
//!
//! `STAMPEDE_FUZZ_TRIES=100` tries a hundred times as many; `STAMPEDE_FUZZ_SEED=N` tries others. An input
//! that fails is written to the temporary folder: put it into the corpus once it is mended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests may panic, and say where an input lies"
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::{env, fs};

use stampede_fuzzing::{TARGETS, Target};
use stampede_testing::mutate;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| text.parse().expect("it is a number"))
}

/// What lies in its corpus, in the order of names.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let Ok(folder) = fs::read_dir(root().join("corpus").join(target.name)) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = folder.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Checks it; if that fails, says where the input lies, and what it was.
fn check(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.check(input))) {
        let file = env::temp_dir().join(format!("stampede-fuzz-{}", target.name));
        fs::write(&file, input).unwrap();
        eprintln!("{}: {} bytes that fail are in {}", target.name, input.len(), file.display());
        resume_unwind(panic);
    }
}

fn fuzz(name: &str) {
    let target = Target::named(name).unwrap();
    let mut seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    seeds.extend(corpus(target));
    // What is made once, such as keys and clips, is not of an input.
    (target.run)(&seeds[0]);
    seeds.iter().for_each(|seed| check(target, seed));
    check(target, &[]);
    let tries = target.tries * u32::try_from(number("STAMPEDE_FUZZ_TRIES", 1)).unwrap();
    let seed = number("STAMPEDE_FUZZ_SEED", 17);
    mutate::series(&seeds, tries, seed, target.words, |input| check(target, input));
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { fuzz(stringify!($name)); })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    client_datagrams client_media client_publishing client_sdp sdp payloads files signal_responses
    sfu_datagrams sfu_sdp signal_requests reports values
}

#[test]
fn each_target_has_a_test_and_a_binary() {
    let all: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(all, NAMES.iter().copied().collect(), "the tests in this file");
    let binaries = fs::read_dir(root().join("fuzz_targets")).unwrap();
    let binaries: Vec<PathBuf> = binaries.map(|file| file.unwrap().path()).collect();
    let names = binaries.iter().map(|file| file.file_stem().unwrap().to_str().unwrap());
    assert_eq!(all, names.collect(), "the files in fuzz/fuzz_targets");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in all {
        let text = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("\"{name}\"")), "{name}.rs fuzzes something else: {text}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in Cargo.toml");
    }
    let corpora = fs::read_dir(root().join("corpus")).unwrap();
    for folder in corpora {
        let name = folder.unwrap().file_name();
        assert!(Target::named(name.to_str().unwrap()).is_some(), "the corpus of nothing: {name:?}");
    }
}
