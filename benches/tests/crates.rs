//! Who may use what: crates, modules, `unsafe`, clocks and sockets.
//!
//! [`CRATES`] is the table. A crate that is not in it, a use that it does not allow, two files of a
//! crate that use each other, `unsafe` outside of `engine/udp`, and a clock in the sans-IO peer are
//! all found here. Dependencies are read from `cargo metadata` (normal dependencies, not those of
//! tests); sources are read as tokens, so that comments and strings don't count.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;

/// The one crate that may hold `unsafe`.
const UNSAFE_CRATE: &str = "engine/udp";

fn workspace_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("benches lies in the workspace root")
}

// Dependencies.

/// What cargo knows of the workspace.
fn metadata() -> Value {
    // Of this platform alone: on a fresh machine cargo has downloaded nothing else.
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "host-tuple"])
        .current_dir(workspace_root())
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {text}");
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

/// Which package names depend directly on which, normal dependencies only.
struct Graph {
    direct: BTreeMap<String, BTreeSet<String>>,
    workspace: BTreeSet<String>,
}

impl Graph {
    fn of_workspace() -> Graph {
        Graph::from_metadata(&metadata())
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

    /// What a crate of the table uses although it may not, in words.
    fn wrongs(&self, row: &Row) -> Vec<String> {
        let name = row.name;
        let own = self.direct(name).intersection(&self.workspace).map(String::as_str);
        let mut wrongs: Vec<String> = own
            .filter(|used| !row.uses.contains(used))
            .map(|used| format!("{name} uses {used}, which its row does not list"))
            .collect();
        for unused in row.uses.iter().filter(|used| !self.direct(name).contains(**used)) {
            wrongs.push(format!("{name} does not use {unused}, which its row lists"));
        }
        for other in row.never {
            if let Some(path) = self.path(name, other, DISK_THREAD) {
                wrongs.push(format!("{name} may not use {other}, but does: {}", path.join(" -> ")));
            }
        }
        if !row.system {
            let direct = self.direct(name);
            let disk = |name: &str| name == "tokio-uring" && row.name == "stampede-media";
            let system =
                SYSTEM_CRATES.iter().filter(|system| direct.contains(**system) && !disk(system));
            wrongs.extend(system.map(|system| format!("{name} may not depend on {system}")));
        }
        wrongs
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

/// tokio-uring rests on tokio; the disk thread of `stampede-media` is the one place that may use
/// it.
const DISK_THREAD: &[&str] = &["tokio-uring"];

/// What a crate may use.
struct Row {
    /// The crate.
    name: &'static str,
    /// Crates of the workspace that it uses, and no others.
    uses: &'static [&'static str],
    /// Crates that it never uses, neither itself nor through others (but for the disk thread).
    never: &'static [&'static str],
    /// It may open sockets and make system calls.
    system: bool,
}

/// The table, lower crates first; a crate uses those above it.
const CRATES: &[Row] = &[
    Row { name: "stampede-units", uses: &[], never: &["tokio", "str0m", "serde"], system: false },
    Row { name: "stampede-counters", uses: &[], never: &["tokio", "str0m"], system: false },
    Row { name: "stampede-protobuf", uses: &[], never: &["tokio", "str0m"], system: false },
    Row { name: "stampede-sdp", uses: &[], never: &["tokio", "str0m"], system: false },
    // For tests and benches: no row lists it, so none may use it otherwise.
    Row { name: "stampede-testing", uses: &[], never: &["tokio", "str0m"], system: false },
    Row {
        name: "stampede-impair",
        uses: &["stampede-counters", "stampede-units"],
        never: &["tokio", "str0m"],
        system: false,
    },
    Row {
        name: "stampede-media",
        uses: &["stampede-counters"],
        never: &["tokio", "str0m"],
        system: false,
    },
    Row {
        name: "stampede-udp",
        uses: &["stampede-counters"],
        never: &["tokio", "str0m"],
        system: true,
    },
    Row {
        name: "stampede-core",
        uses: &["stampede-counters", "stampede-media", "stampede-protobuf", "stampede-sdp"],
        never: &["tokio", "mio"],
        system: false,
    },
    Row {
        name: "stampede-engine",
        uses: &[
            "stampede-core",
            "stampede-counters",
            "stampede-impair",
            "stampede-media",
            "stampede-udp",
        ],
        never: &["tokio", "mio", "livekit-protocol"],
        system: true,
    },
    Row {
        name: "stampede-signaling",
        uses: &["stampede-counters", "stampede-protobuf", "stampede-sdp"],
        never: &["str0m"],
        system: false,
    },
    Row { name: "stampede-http", uses: &[], never: &["str0m"], system: true },
    Row {
        name: "stampede-sfu",
        uses: &[
            "stampede-core",
            "stampede-counters",
            "stampede-http",
            "stampede-impair",
            "stampede-media",
            "stampede-protobuf",
            "stampede-sdp",
            "stampede-udp",
        ],
        never: &[],
        system: true,
    },
    Row { name: "stampede-output", uses: &[], never: &["tokio", "str0m", "serde"], system: true },
    Row {
        name: "stampede-report",
        uses: &[
            "stampede-core",
            "stampede-counters",
            "stampede-output",
            "stampede-sfu",
            "stampede-units",
        ],
        never: &["clap", "ratatui", "stampede-engine", "stampede-signaling"],
        system: false,
    },
    Row {
        name: "stampede-scenario",
        uses: &[
            "stampede-core",
            "stampede-impair",
            "stampede-media",
            "stampede-report",
            "stampede-sfu",
            "stampede-signaling",
            "stampede-units",
        ],
        never: &["ratatui", "stampede-engine"],
        system: false,
    },
    Row {
        name: "stampede-run",
        uses: &[
            "stampede-core",
            "stampede-counters",
            "stampede-engine",
            "stampede-impair",
            "stampede-media",
            "stampede-output",
            "stampede-report",
            "stampede-scenario",
            "stampede-sfu",
            "stampede-signaling",
            "stampede-udp",
        ],
        never: &["ratatui"],
        system: true,
    },
    // For tests and fuzz/: no row lists it, so none may use it otherwise.
    Row {
        name: "stampede-fuzzing",
        uses: &[
            "stampede-core",
            "stampede-impair",
            "stampede-media",
            "stampede-report",
            "stampede-scenario",
            "stampede-sdp",
            "stampede-sfu",
            "stampede-signaling",
            "stampede-units",
        ],
        never: &["ratatui", "stampede-engine"],
        system: false,
    },
    Row {
        name: "stampede",
        uses: &[
            "stampede-counters",
            "stampede-engine",
            "stampede-http",
            "stampede-impair",
            "stampede-output",
            "stampede-report",
            "stampede-run",
            "stampede-scenario",
            "stampede-sfu",
            "stampede-units",
        ],
        never: &[],
        system: true,
    },
    // Of tests alone: above the SFU, for it holds one, and used by nobody.
    Row {
        name: "stampede-sim",
        uses: &[
            "stampede-core",
            "stampede-counters",
            "stampede-media",
            "stampede-report",
            "stampede-sfu",
            "stampede-signaling",
        ],
        never: &["clap", "ratatui", "stampede-engine"],
        system: false,
    },
];

#[test]
fn each_crate_uses_what_the_table_says() {
    let graph = Graph::of_workspace();
    for name in graph.workspace.iter().filter(|name| *name != "stampede-benches") {
        assert!(CRATES.iter().any(|row| row.name == name), "{name} has no row in the table");
    }
    let mut wrongs = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    for row in CRATES {
        let below = row.uses.iter().filter(|used| !above.contains(used));
        wrongs.extend(below.map(|used| format!("the row of {used} stands below {}", row.name)));
        wrongs.extend(graph.wrongs(row));
        above.push(row.name);
    }
    for name in graph.workspace.iter().filter(|name| *name != "stampede-media") {
        if name != "stampede-benches" && graph.direct(name).contains("tokio-uring") {
            wrongs.push(format!("{name} uses tokio-uring: that is for the disk thread"));
        }
    }
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

#[test]
fn a_forbidden_use_is_found_itself_through_others_and_around_the_disk_thread() {
    let edges = [
        ("low", "helper"),
        ("low", "high"),
        ("low", "disk"),
        ("disk", "tokio-uring"),
        ("low", "libc"),
        ("tokio-uring", "tokio"),
        ("helper", "str0m"),
        ("str0m", "low"),
        ("high", "low"),
    ];
    let mut direct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in edges {
        direct.entry(from.to_owned()).or_default().insert(to.to_owned());
    }
    let workspace = ["low", "high"].map(str::to_owned).into();
    let graph = Graph { direct, workspace };
    assert_eq!(graph.path("low", "str0m", &[]).unwrap(), ["low", "helper", "str0m"]);
    assert_eq!(graph.path("low", "tokio", &[]).unwrap(), ["low", "disk", "tokio-uring", "tokio"]);
    assert!(graph.path("low", "absent", &[]).is_none());
    let row = Row { name: "low", uses: &["gone"], never: &["str0m", "tokio"], system: false };
    assert_eq!(
        graph.wrongs(&row),
        [
            "low uses high, which its row does not list",
            "low does not use gone, which its row lists",
            "low may not use str0m, but does: low -> helper -> str0m",
            "low may not depend on libc",
        ]
    );
    let row = Row { name: "low", uses: &["high"], never: &["tokio"], system: true };
    assert!(graph.wrongs(&row).is_empty());
}

/// What `deny.toml` guards: a crate, and who alone may use it.
fn guarded() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(workspace_root().join("deny.toml")).expect("deny.toml");
    let rules: toml::Table = text.parse().expect("deny.toml is TOML");
    let banned = rules["bans"]["deny"].as_array().expect("a list of banned crates");
    let text = |value: &toml::Value| value.as_str().expect("a string").to_owned();
    let wrappers = |rule: &toml::Value| {
        let list = rule.get("wrappers")?.as_array().expect("a list of crates");
        Some((text(&rule["crate"]), list.iter().map(text).collect()))
    };
    banned.iter().filter_map(wrappers).collect()
}

/// `.ci/run` asks cargo-deny, which few have installed; of the workspace's own crates this tells the
/// same.
#[test]
fn deny_toml_names_the_crates_that_use_what_it_guards() {
    let metadata = metadata();
    let guarded = guarded();
    assert!(!guarded.is_empty());
    for (name, wrappers) in guarded {
        let packages = metadata["packages"].as_array().expect("packages");
        let own = packages.iter().filter(|package| package["source"].is_null());
        let (users, others): (Vec<&Value>, Vec<&Value>) = own.partition(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            dependencies.iter().any(|dependency| dependency["name"] == name.as_str())
        });
        let listed =
            |package: &&Value| wrappers.contains(package["name"].as_str().expect("a name"));
        let missing: Vec<_> =
            users.iter().filter(|user| !listed(user)).map(|p| &p["name"]).collect();
        assert!(missing.is_empty(), "{name} is used by {missing:?}, which deny.toml doesn't list");
        let idle: Vec<_> =
            others.iter().filter(|other| listed(other)).map(|p| &p["name"]).collect();
        assert!(idle.is_empty(), "{name} is not used by {idle:?}, which deny.toml lists");
    }
}

/// Dependencies that no source of the crate names: of `tools/sfu/tests/common`, which `fan_out` has
/// as a module.
const NAMED_NOWHERE: &[(&str, &str)] = &[
    ("stampede-benches", "base64"),
    ("stampede-benches", "futures-util"),
    ("stampede-benches", "tokio-tungstenite"),
    ("stampede-benches", "tracing-subscriber"),
];

/// Dependencies of a package (as in cargo's metadata) that its sources, read as words, don't name:
/// those of the product in `product`, those of tests in either.
fn unused(package: &Value, product: &BTreeSet<String>, tests: &BTreeSet<String>) -> Vec<String> {
    let name = package["name"].as_str().expect("a name");
    let dependencies = package["dependencies"].as_array().cloned().unwrap_or_default();
    let mut unused = Vec::new();
    for dependency in &dependencies {
        let called = dependency["rename"].as_str().or(dependency["name"].as_str()).expect("a name");
        let listed = NAMED_NOWHERE.contains(&(name, called));
        let word = called.replace('-', "_");
        let of_tests = dependency["kind"] == "dev";
        let used = product.contains(&word) || of_tests && tests.contains(&word);
        if !used && !listed {
            unused.push(format!("{name} names {called} nowhere"));
        }
        if used && listed {
            unused.push(format!("{name} does name {called}"));
        }
    }
    unused
}

#[test]
fn each_dependency_is_used() {
    let metadata = metadata();
    let mut wrongs = Vec::new();
    let mut checked = 0;
    let packages = metadata["packages"].as_array().expect("packages");
    for package in packages.iter().filter(|package| package["source"].is_null()) {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let folder = manifest.parent().expect("a manifest lies in a folder");
        let (mut product, mut tests) = (BTreeSet::new(), BTreeSet::new());
        for path in rust_files(folder) {
            // A crate below another one's folder is not that one's.
            let nearest = path.ancestors().find(|folder| folder.join("Cargo.toml").exists());
            if nearest != Some(folder) {
                continue;
            }
            let stream = tokens(&path);
            tests.extend(words(stream.clone()));
            if path.starts_with(folder.join("src")) {
                product.extend(words(without_tests(stream, &mut Vec::new())));
            }
        }
        checked += package["dependencies"].as_array().map_or(0, Vec::len);
        wrongs.extend(unused(package, &product, &tests));
    }
    assert!(checked > 100, "only {checked} dependencies were found");
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

#[test]
fn an_unused_dependency_is_found() {
    let package = serde_json::json!({ "name": "own", "dependencies": [
        { "name": "used-here", "kind": null },
        { "name": "only-in-tests", "kind": null },
        { "name": "of-tests", "kind": "dev" },
        { "name": "gone", "kind": "dev" },
    ] });
    let words = |said: &[&str]| said.iter().map(|word| (*word).to_owned()).collect();
    let product = words(&["used_here"]);
    let tests = words(&["used_here", "only_in_tests", "of_tests"]);
    assert_eq!(
        unused(&package, &product, &tests),
        ["own names only-in-tests nowhere", "own names gone nowhere"]
    );
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

/// The files of a crate, and the words of each, without its tests.
fn sources_without_tests(folder: &str) -> Vec<(PathBuf, Vec<String>)> {
    let folder = workspace_root().join(folder);
    let mut of_tests: BTreeSet<PathBuf> = BTreeSet::new();
    let mut sources = Vec::new();
    for path in rust_files(&folder) {
        let mut modules = Vec::new();
        let stream = without_tests(tokens(&path), &mut modules);
        of_tests.extend(modules.iter().flat_map(|name| module_files(&path, name)));
        sources.push((path, words(stream)));
    }
    assert!(sources.len() > 3, "only {} files in {}", sources.len(), folder.display());
    // A test module's own modules lie below its folder.
    let is_test = |path: &Path| {
        of_tests.iter().any(|test| path == test || path.starts_with(test.with_extension("")))
    };
    sources.retain(|(path, _)| !is_test(path));
    sources
}

#[test]
fn core_reads_no_clock_opens_no_socket_starts_no_thread() {
    for (path, words) in sources_without_tests("engine/core/src") {
        let found = impurities(&words);
        assert!(found.is_empty(), "{} uses {}", path.display(), found.join(", "));
    }
}

#[test]
fn a_run_reads_the_clock_in_one_place() {
    for (path, words) in sources_without_tests("tools/run/src") {
        if path.ends_with("clock.rs") {
            continue;
        }
        for found in impurities(&words) {
            let reads = ["Instant::now", "SystemTime::now"].contains(&found.as_str());
            assert!(!reads, "{} uses {found}: see clock.rs", path.display());
        }
    }
}

#[test]
fn unsafe_stands_in_engine_udp_only() {
    let root = workspace_root();
    let mut scanned = 0;
    for folder in ["engine", "signaling", "tools", "benches"] {
        for path in rust_files(&root.join(folder)) {
            if path.starts_with(root.join(UNSAFE_CRATE)) {
                continue;
            }
            scanned += 1;
            let found = words(tokens(&path)).iter().any(|word| word == "unsafe");
            assert!(!found, "{} holds unsafe code", path.display());
        }
    }
    assert!(scanned > 20, "only {scanned} files were found");
}

/// Folders of the workspace's crates.
fn members(root: &Path) -> Vec<String> {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the root manifest");
    let (_, rest) = manifest.split_once("members = [").expect("the root manifest has members");
    let (list, _) = rest.split_once(']').expect("the list ends");
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_other_crate_forbids_unsafe() {
    let root = workspace_root();
    let mut roots = 0;
    for member in members(&root).into_iter().filter(|member| member != UNSAFE_CRATE) {
        for name in ["src/lib.rs", "src/main.rs"] {
            let path = root.join(&member).join(name);
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

// Modules.

/// A module by its path from the root of its crate; the root itself is empty.
type Module = Vec<String>;

/// The modules of a crate, and which uses which.
#[derive(Default)]
struct Modules {
    /// Of each module what it makes known under a name of its own, and where that lies.
    exports: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
    /// Paths as they are written, by the module that writes them.
    paths: Vec<(Module, Vec<String>)>,
}

impl Modules {
    fn of_crate(src: &Path) -> Modules {
        let mut modules = Modules::default();
        let mut of_tests: BTreeSet<PathBuf> = BTreeSet::new();
        let mut sources = Vec::new();
        for path in rust_files(src) {
            let mut tests = Vec::new();
            let stream = without_tests(tokens(&path), &mut tests);
            of_tests.extend(tests.iter().flat_map(|name| module_files(&path, name)));
            let mut words = Vec::new();
            words_with_braces(stream, &mut words);
            sources.push((path, words));
        }
        for (path, words) in sources {
            let file = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if of_tests.contains(&path) || file.ends_with("tests") || file == "testing" {
                continue;
            }
            let relative = path.strip_prefix(src).expect("below the folder").with_extension("");
            let mut module: Module =
                relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if module.last().is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str())) {
                module.pop();
            }
            modules.add(module, &words);
        }
        modules
    }

    fn add(&mut self, module: Module, words: &[String]) {
        let exports = self.exports.entry(module.clone()).or_default();
        // What names that came by `use` stand for here.
        let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut at = 0;
        while at < words.len() {
            if words[at] == "use" {
                let public = at > 0 && ["pub", "crate", "super"].contains(&words[at - 1].as_str());
                let mut paths = Vec::new();
                at = use_tree(words, at + 1, &[], &mut paths);
                for (path, name) in paths {
                    if public {
                        exports.insert(name.clone(), path.clone());
                    }
                    known.insert(name, path.clone());
                    self.paths.push((module.clone(), path));
                }
            } else if let Some(path) = known.get(&words[at])
                && words.get(at + 1..at + 3).is_some_and(|signs| signs == [":", ":"])
                && !(at > 0 && words[at - 1] == ":")
            {
                let mut path = path.clone();
                path.extend(words.get(at + 3).cloned());
                self.paths.push((module.clone(), path));
                at += 3;
            } else if ["crate", "super", "self"].contains(&words[at].as_str()) {
                let mut path = vec![words[at].clone()];
                while words.get(at + 1..at + 3).is_some_and(|signs| signs == [":", ":"])
                    && words.get(at + 3).is_some_and(|word| is_name(word))
                {
                    path.push(words[at + 3].clone());
                    at += 3;
                }
                self.paths.push((module.clone(), path));
                at += 1;
            } else {
                at += 1;
            }
        }
    }

    /// The module that a path leads to, through what modules make known of others.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut here = from.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => here.clear(),
            "self" => {}
            "super" => drop(here.pop()),
            // A child, or another crate.
            child
                if self.exports.contains_key(&[from.clone(), vec![child.to_owned()]].concat()) =>
            {
                here.push(child.to_owned());
            }
            _ => return None,
        }
        rest = &rest[1..];
        while let Some((name, more)) = rest.split_first() {
            if name == "super" {
                here.pop();
                rest = more;
                continue;
            }
            let child = [here.clone(), vec![name.clone()]].concat();
            if self.exports.contains_key(&child) {
                here = child;
            } else if let Some(to) = self.exports.get(&here).and_then(|of| of.get(name)) {
                return match depth {
                    0 => Some(here),
                    _ => self.resolve(&here, to, depth - 1).or(Some(here)),
                };
            } else {
                break;
            }
            rest = more;
        }
        Some(here)
    }

    /// Which module uses which, but for parents and children.
    fn uses(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut uses: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (from, path) in &self.paths {
            let Some(to) = self.resolve(from, path, 8) else { continue };
            if !from.starts_with(&to) && !to.starts_with(from) {
                uses.entry(from.clone()).or_default().insert(to);
            }
        }
        uses
    }

    /// Pairs of modules each of which can be reached from the other.
    fn circles(&self) -> Vec<String> {
        let uses = self.uses();
        let reach = |from: &Module| {
            let mut reached: BTreeSet<&Module> = BTreeSet::new();
            let mut open: Vec<&Module> = uses.get(from).into_iter().flatten().collect();
            while let Some(module) = open.pop() {
                if reached.insert(module) {
                    open.extend(uses.get(module).into_iter().flatten());
                }
            }
            reached
        };
        let all: BTreeMap<&Module, BTreeSet<&Module>> =
            uses.keys().map(|module| (module, reach(module))).collect();
        let mut circles = Vec::new();
        for (from, reached) in &all {
            for to in reached.iter().filter(|to| **to > *from) {
                if all.get(*to).is_some_and(|back| back.contains(*from)) {
                    circles.push(format!("{} <-> {}", from.join("::"), to.join("::")));
                }
            }
        }
        circles
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads what stands after `use`, or in its braces: each path with the name that it gets here.
/// Gives the place behind it.
fn use_tree(
    words: &[String],
    mut at: usize,
    before: &[String],
    paths: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(word) = words.get(at) {
        at += 1;
        match word.as_str() {
            ":" => {}
            "{" => {
                while words.get(at).is_some_and(|word| word != "}") {
                    at = use_tree(words, at, &path, paths);
                    at += usize::from(words.get(at).is_some_and(|word| word == ","));
                }
                return at + 1;
            }
            "as" => {
                paths.push((path, words.get(at).cloned().unwrap_or_default()));
                return at + 1;
            }
            "self" if !before.is_empty() && path == before => {}
            word if is_name(word) => path.push(word.to_owned()),
            // A star, or the end.
            _ => {
                at -= usize::from(word != "*");
                break;
            }
        }
    }
    let name = path.last().cloned().unwrap_or_default();
    paths.push((path, name));
    at
}

/// Words and signs as in [`flatten`], with the braces.
fn words_with_braces(stream: TokenStream, words: &mut Vec<String>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => {
                let braces = group.delimiter() == Delimiter::Brace;
                words.extend(braces.then(|| "{".to_owned()));
                words_with_braces(group.stream(), words);
                words.extend(braces.then(|| "}".to_owned()));
            }
            TokenTree::Ident(ident) => words.push(ident.to_string()),
            TokenTree::Punct(punct) => words.push(punct.as_char().to_string()),
            TokenTree::Literal(_) => {}
        }
    }
}

#[test]
fn no_two_files_of_a_crate_use_each_other() {
    let root = workspace_root();
    let mut wrongs = Vec::new();
    let mut uses = 0;
    for member in members(&root) {
        let modules = Modules::of_crate(&root.join(&member).join("src"));
        uses += modules.uses().values().map(BTreeSet::len).sum::<usize>();
        wrongs.extend(modules.circles().iter().map(|circle| format!("{member}: {circle}")));
    }
    assert!(uses > 200, "only {uses} uses were found");
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

#[test]
fn circles_are_found_through_names_made_known_elsewhere_and_not_with_parents() {
    let crate_of = |files: &[(&[&str], &str)]| {
        let mut modules = Modules::default();
        for (module, source) in files {
            let mut words = Vec::new();
            words_with_braces(TokenStream::from_str(source).unwrap(), &mut words);
            modules.add(module.iter().map(|part| (*part).to_owned()).collect(), &words);
        }
        modules
    };
    let root = "mod a; mod b; mod c; pub use a::{A, inner::Deep as Deeper}; pub(crate) use b::*;";
    let open = crate_of(&[
        (&[], root),
        (&["a"], "mod inner; use crate::b::{self, B}; pub struct A;"),
        (&["a", "inner"], "use super::A; pub struct Deep;"),
        (&["b"], "use crate::c::C; pub struct B;"),
        (&["c"], "fn f() -> crate::Deeper { crate::Deeper }"),
    ]);
    // To c leads a way from a, b and so on, and from c one to a's child, which uses its parent only.
    assert_eq!(open.circles(), Vec::<String>::new());
    let closed = crate_of(&[
        (&[], root),
        (&["a"], "use crate::b::{self, B}; pub struct A;"),
        (&["b"], "use crate::c::C; pub struct B;"),
        (&["c"], "fn f() -> super::A { crate::A }"),
    ]);
    assert_eq!(closed.circles(), ["a <-> b", "a <-> c", "b <-> c"]);
    let through_a_module = crate_of(&[
        (&[], "mod a; mod b;"),
        (&["a"], "mod inner; pub(crate) use inner::back as give;"),
        (&["a", "inner"], "use crate::b; fn f() { b::go() } pub(crate) fn back() {}"),
        (&["b"], "use crate::a; pub(crate) fn go() { a::give() }"),
    ]);
    assert_eq!(through_a_module.circles(), ["a::inner <-> b"]);
}
