//! The rooms' "may not use" column holds: who may depend on what, where `unsafe` may stand, and
//! that the sans-IO peer reads no clock and opens no socket.
//!
//! Dependencies are read from `cargo metadata` (normal dependencies, not those of tests); sources
//! are read as tokens, so that comments and strings don't count.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;

/// The one crate that may hold `unsafe`.
const UNSAFE_ROOM: &str = "engine/udp";

fn workspace_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("benches lies in the workspace root")
}

// Dependencies.

/// Which package names depend directly on which, normal dependencies only.
struct Graph {
    direct: BTreeMap<String, BTreeSet<String>>,
    workspace: BTreeSet<String>,
}

impl Graph {
    fn of_workspace() -> Graph {
        // Of this platform alone: on a fresh machine cargo has downloaded nothing else.
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--offline"])
            .args(["--filter-platform", "host-tuple"])
            .current_dir(workspace_root())
            .output()
            .expect("cargo runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo metadata: {text}");
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
        Graph::from_metadata(&metadata)
    }

    fn from_metadata(metadata: &Value) -> Graph {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let names: BTreeMap<String, String> = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let mut direct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let dependencies = direct.entry(names[&text(&node["id"])].clone()).or_default();
            for dependency in list(&node["deps"]) {
                let kinds = list(&dependency["dep_kinds"]);
                if kinds.iter().any(|kind| kind["kind"].is_null()) {
                    dependencies.insert(names[&text(&dependency["pkg"])].clone());
                }
            }
        }
        let members = list(&metadata["workspace_members"]);
        let workspace = members.iter().map(|id| names[&text(id)].clone()).collect();
        Graph { direct, workspace }
    }

    fn direct(&self, package: &str) -> &BTreeSet<String> {
        self.direct.get(package).unwrap_or_else(|| panic!("no package {package} in the workspace"))
    }

    /// The way from `from` to `to`, if there is one that doesn't lead through `around`.
    fn path(&self, from: &str, to: &str, around: &[&str]) -> Option<Vec<String>> {
        self.direct(from);
        let mut reached_from: BTreeMap<String, String> = BTreeMap::new();
        let mut open = vec![from.to_owned()];
        while let Some(package) = open.pop() {
            if package == to {
                let mut path = vec![package];
                while let Some(before) = path.last().and_then(|last| reached_from.get(last)) {
                    path.push(before.clone());
                }
                path.reverse();
                return Some(path);
            }
            for dependency in self.direct.get(&package).into_iter().flatten() {
                let seen = reached_from.contains_key(dependency) || dependency == from;
                if !seen && !around.contains(&dependency.as_str()) {
                    reached_from.insert(dependency.clone(), package.clone());
                    open.push(dependency.clone());
                }
            }
        }
        None
    }

    fn assert_never(&self, room: &str, forbidden: &[&str], around: &[&str]) {
        for other in forbidden {
            if let Some(path) = self.path(room, other, around) {
                panic!("{room} may not use {other}, but does: {}", path.join(" -> "));
            }
        }
    }

    fn assert_not_direct(&self, room: &str, forbidden: &[&str]) {
        for other in forbidden {
            assert!(!self.direct(room).contains(*other), "{room} may not depend on {other}");
        }
    }
}

/// Crates that open sockets or make system calls.
const SYSTEM_CRATES: &[&str] = &[
    "async-io",
    "core_affinity",
    "io-uring",
    "libc",
    "mio",
    "nix",
    "rustix",
    "socket2",
    "stampede-udp",
    "tokio-uring",
];

/// tokio-uring rests on tokio; the media room's disk thread is the one place that may use it.
const DISK_THREAD: &[&str] = &["tokio-uring"];

#[test]
fn core_uses_no_sockets_and_no_tokio() {
    let graph = Graph::of_workspace();
    graph.assert_not_direct("stampede-core", SYSTEM_CRATES);
    graph.assert_never("stampede-core", &["tokio", "mio"], DISK_THREAD);
    let others = ["stampede-engine", "stampede-signaling", "stampede-udp", "stampede-sfu"];
    graph.assert_never("stampede-core", &others, &[]);
}

#[test]
fn udp_uses_no_str0m() {
    let graph = Graph::of_workspace();
    graph.assert_never("stampede-udp", &["str0m", "tokio"], &[]);
    let others = ["stampede-core", "stampede-engine", "stampede-media", "stampede-signaling"];
    graph.assert_never("stampede-udp", &others, &[]);
}

#[test]
fn the_engine_uses_no_tokio_and_no_signaling() {
    let graph = Graph::of_workspace();
    graph.assert_never("stampede-engine", &["tokio", "mio"], DISK_THREAD);
    graph.assert_never("stampede-engine", &["stampede-signaling", "livekit-protocol"], &[]);
    graph.assert_never("stampede-engine", &["stampede-sfu", "stampede"], &[]);
}

#[test]
fn impairments_and_descriptions_stand_alone() {
    let graph = Graph::of_workspace();
    for alone in ["stampede-impair", "stampede-sdp"] {
        graph.assert_not_direct(alone, SYSTEM_CRATES);
        graph.assert_never(alone, &["tokio", "str0m"], &[]);
        for room in graph.workspace.iter().filter(|room| *room != alone) {
            graph.assert_not_direct(alone, &[room]);
        }
    }
}

#[test]
fn media_uses_no_sockets_and_keeps_the_disk_thread_to_itself() {
    let graph = Graph::of_workspace();
    let allowed = ["tokio-uring"];
    let system: Vec<&str> =
        SYSTEM_CRATES.iter().copied().filter(|name| !allowed.contains(name)).collect();
    graph.assert_not_direct("stampede-media", &system);
    graph.assert_never("stampede-media", &["str0m", "stampede-core", "stampede-engine"], &[]);
    for room in &graph.workspace {
        if room != "stampede-media" && room != "stampede-benches" {
            graph.assert_not_direct(room, &["tokio-uring"]);
        }
    }
}

#[test]
fn signaling_uses_no_str0m_and_no_engine() {
    let graph = Graph::of_workspace();
    let engine = ["stampede-core", "stampede-engine", "stampede-media", "stampede-udp"];
    graph.assert_never("stampede-signaling", &["str0m"], &[]);
    graph.assert_never("stampede-signaling", &engine, &[]);
}

#[test]
fn a_forbidden_dependency_is_found_through_others_and_around_the_disk_thread() {
    let edges = [
        ("room", "helper"),
        ("room", "tokio-uring"),
        ("tokio-uring", "tokio"),
        ("helper", "str0m"),
        ("str0m", "room"),
    ];
    let mut direct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in edges {
        direct.entry(from.to_owned()).or_default().insert(to.to_owned());
    }
    let graph = Graph { direct, workspace: BTreeSet::new() };
    assert_eq!(graph.path("room", "str0m", &[]).unwrap(), ["room", "helper", "str0m"]);
    assert_eq!(graph.path("room", "tokio", &[]).unwrap(), ["room", "tokio-uring", "tokio"]);
    assert!(graph.path("room", "tokio", DISK_THREAD).is_none());
    assert!(graph.path("room", "absent", &[]).is_none());
}

// Sources.

/// Every Rust file below `folder` of the workspace, but for built and fetched ones.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !["target", "node_modules"].contains(&name) {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn tokens(path: &Path) -> TokenStream {
    let source = fs::read_to_string(path).expect("the source can be read");
    TokenStream::from_str(&source)
        .unwrap_or_else(|error| panic!("{} is not Rust: {error}", path.display()))
}

/// All words and signs of a stream in order, groups opened, literals left out.
fn flatten(stream: TokenStream, words: &mut Vec<String>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => flatten(group.stream(), words),
            TokenTree::Ident(ident) => words.push(ident.to_string()),
            TokenTree::Punct(punct) => words.push(punct.as_char().to_string()),
            TokenTree::Literal(_) => {}
        }
    }
}

fn words(stream: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    flatten(stream, &mut found);
    found
}

/// A stream without what stands under `#[cfg(test)]`, and the names of the modules
/// `#[cfg(test)] mod name;` that live in files of their own.
fn without_tests(stream: TokenStream, modules: &mut Vec<String>) -> TokenStream {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !is_cfg_test(&tokens[at..]) {
            kept.push(match tokens[at].clone() {
                TokenTree::Group(group) => {
                    let inner = without_tests(group.stream(), modules);
                    proc_macro2::Group::new(group.delimiter(), inner).into()
                }
                other => other,
            });
            at += 1;
            continue;
        }
        // The item ends at its body, or at a semicolon or comma where it has none.
        let mut last_word = String::new();
        at += 2;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                TokenTree::Punct(punct) if [';', ','].contains(&punct.as_char()) => {
                    modules.push(last_word);
                    break;
                }
                TokenTree::Ident(ident) => last_word = ident.to_string(),
                _ => {}
            }
        }
    }
    kept.into_iter().collect()
}

fn is_cfg_test(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(group), ..] = tokens else { return false };
    let said = words(group.stream());
    hash.as_char() == '#' && said.len() == 2 && said == ["cfg", "test"]
}

/// The file that `mod name;` in `path` stands for, in both of its possible places.
fn module_files(path: &Path, name: &str) -> [PathBuf; 2] {
    let folder = path.parent().expect("a file lies in a folder");
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let folder = match stem {
        "lib" | "main" | "mod" => folder.to_owned(),
        _ => folder.join(stem),
    };
    [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]
}

/// What in `words` reads a clock, opens a socket or starts a thread.
fn impurities(words: &[String]) -> Vec<String> {
    const NAMES: &[&str] =
        &["TcpListener", "TcpStream", "UdpSocket", "UnixStream", "thread", "tokio"];
    let named = words.iter().filter(|word| NAMES.contains(&word.as_str())).cloned();
    // Whatever the type is called where it is used: only clocks have a `now`.
    let now = words.windows(4).filter(|four| four[1..] == [":", ":", "now"]);
    let elapsed = words.windows(2).filter(|two| *two == [".", "elapsed"]);
    named
        .chain(now.map(|four| format!("{}::now", four[0])))
        .chain(elapsed.map(|_| "elapsed() (which reads the clock)".to_owned()))
        .collect()
}

#[test]
fn core_reads_no_clock_opens_no_socket_starts_no_thread() {
    let folder = workspace_root().join("engine/core/src");
    let mut of_tests: BTreeSet<PathBuf> = BTreeSet::new();
    let mut sources = Vec::new();
    for path in rust_files(&folder) {
        let mut modules = Vec::new();
        let stream = without_tests(tokens(&path), &mut modules);
        of_tests.extend(modules.iter().flat_map(|name| module_files(&path, name)));
        sources.push((path, words(stream)));
    }
    assert!(sources.len() > 3, "only {} files in {}", sources.len(), folder.display());
    for (path, words) in sources {
        // A test module's own modules lie below its folder.
        let is_test =
            of_tests.iter().any(|test| path == *test || path.starts_with(test.with_extension("")));
        let found = if is_test { Vec::new() } else { impurities(&words) };
        assert!(found.is_empty(), "{} uses {}", path.display(), found.join(", "));
    }
}

#[test]
fn unsafe_stands_in_engine_udp_only() {
    let root = workspace_root();
    let mut scanned = 0;
    for room in ["engine", "signaling", "tools", "benches"] {
        for path in rust_files(&root.join(room)) {
            if path.starts_with(root.join(UNSAFE_ROOM)) {
                continue;
            }
            scanned += 1;
            let found = words(tokens(&path)).iter().any(|word| word == "unsafe");
            assert!(!found, "{} holds unsafe code", path.display());
        }
    }
    assert!(scanned > 20, "only {scanned} files were found");
}

#[test]
fn every_other_crate_forbids_unsafe() {
    let root = workspace_root();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the root manifest");
    let members: Vec<&str> = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list.split(',').map(|it| it.trim().trim_matches('"')).collect())
        .expect("the root manifest lists its members");
    let mut roots = 0;
    for member in members.into_iter().filter(|it| !it.is_empty() && *it != UNSAFE_ROOM) {
        for name in ["src/lib.rs", "src/main.rs"] {
            let path = root.join(member).join(name);
            if !path.exists() {
                continue;
            }
            roots += 1;
            let found = words(tokens(&path));
            let forbids = found.windows(2).any(|two| two == ["forbid", "unsafe_code"]);
            assert!(forbids, "{} lacks #![forbid(unsafe_code)]", path.display());
        }
    }
    assert!(roots >= 7, "only {roots} crate roots were found");
}

#[test]
fn clocks_are_found_outside_tests_only() {
    let pure = r#"
        //! Instant::now is spoken of here.
        fn now_of(text: &str) -> bool { text == "std::thread and Instant::now" }
        #[cfg(test)]
        mod tests { fn at() { let _ = Instant::now(); } }
        #[cfg(test)]
        mod elsewhere;
    "#;
    let mut modules = Vec::new();
    let stream = without_tests(TokenStream::from_str(pure).unwrap(), &mut modules);
    assert_eq!(impurities(&words(stream)), Vec::<String>::new());
    assert_eq!(modules, ["elsewhere"]);

    for (source, expected) in [
        ("fn at() -> Instant { std::time::Instant::now() }", "Instant::now"),
        ("fn at() -> u64 { ms(SystemTime::now() - SystemTime::UNIX_EPOCH) }", "SystemTime::now"),
        ("use std::{net::UdpSocket, fmt};", "UdpSocket"),
        ("fn go() { std::thread::spawn(|| ()); }", "thread"),
        ("fn late(at: Instant) { at.elapsed(); }", "elapsed() (which reads the clock)"),
        ("#[cfg(feature = \"test\")] fn at() { Instant::now(); }", "Instant::now"),
    ] {
        let stream = without_tests(TokenStream::from_str(source).unwrap(), &mut modules);
        assert_eq!(impurities(&words(stream)), [expected], "in {source}");
    }
}
