//! What `deploy/` and the `Containerfile` are for: the image runs, and systemd takes the units.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests may panic"
)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{KEY, Running, SECRET, Sfu};
use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use stampede_testing::skip;
use tempfile::TempDir;

const TAG: &str = "stampede:test";

/// The user of the image.
const USER_ID: u32 = 65_532;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(sources().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a program is installed; a skip if not.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    if let Err(error) = &found {
        skip(format!("{program} can't be run: {error}"));
    }
    found.is_ok()
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}\n{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Images and containers of a test, in a folder of its own.
struct Containers {
    dir: TempDir,
}

impl Containers {
    /// With the image of the binary under test in it; `None`, and a skip, where there is no root, buildah
    /// or podman.
    fn with_image() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("containers with a store of their own need root");
            return None;
        }
        if !has("buildah") || !has("podman") {
            return None;
        }
        let containers = Self { dir: tempfile::tempdir().unwrap() };
        let builder = ["buildah".to_owned()].into_iter().chain(containers.store());
        let mut build = Command::new(sources().join("deploy/image"));
        build.args([env!("CARGO_BIN_EXE_stampede"), TAG]);
        build.env("BUILDER", builder.collect::<Vec<_>>().join(" "));
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", text(&built));
        Some(containers)
    }

    fn store(&self) -> [String; 6] {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        ["--root", &at("images"), "--runroot", &at("state"), "--storage-driver", "vfs"]
            .map(str::to_owned)
    }

    fn podman(&self, args: &[&str]) -> Output {
        // crun takes no machine with both versions of cgroups; without a view of the second one it
        // has the first.
        let first = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
        let mut podman = Command::new("unshare");
        podman.args(["--mount", "sh", "-c", first, "sh", "podman"]).args(self.store());
        podman.arg("--tmpdir").arg(self.dir.path().join("libpod"));
        podman.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        podman.args(args).output().unwrap()
    }

    /// A container of the image that has loopback alone, and nothing of root's rights but these.
    fn run(&self, rights: &[&str], args: &[&str]) -> Output {
        // podman asks for more than this machine may have.
        let files = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20);
        let files = format!("nofile={files}:{files}");
        let limits = ["--ulimit", &files, "--ulimit", "nproc=4096:4096"];
        let alone = ["run", "--rm", "--network", "none", "--cgroups", "disabled", "--read-only"];
        let volume = format!("{}:/out", self.out().display());
        let options = [&alone[..], &limits, &["--cap-drop", "all", "--volume", &volume], rights];
        self.podman(&[&options.concat()[..], &[TAG], args].concat())
    }

    /// The container's /out.
    fn out(&self) -> PathBuf {
        let out = self.dir.path().join("out");
        if !out.exists() {
            fs::create_dir(&out).unwrap();
            fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
        }
        out
    }
}

#[test]
fn the_image_runs_without_root_and_needs_one_capability_for_the_packet_ring() {
    let Some(containers) = Containers::with_image() else { return };
    let _lanes = common::alone();

    let inspected = containers.podman(&["inspect", TAG]);
    let image: Value = serde_json::from_slice(&inspected.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&inspected)));
    let user = image.pointer("/0/Config/User").and_then(Value::as_str);
    assert_eq!(user, Some(&*format!("{USER_ID}:{USER_ID}")));

    let doctor = containers.run(&[], &["doctor", "--participants", "100"]);
    assert_eq!(doctor.status.code(), Some(0), "{}", text(&doctor));
    assert!(text(&doctor).contains("Yes."), "{}", text(&doctor));

    // What the engine refuses ends the container with the code that a pod's policy goes by.
    let refused = containers.run(&[], &["run", "--duration", "90"]);
    assert_eq!(refused.status.code(), Some(104), "{}", text(&refused));

    let run = ["run", "--subscribers", "5", "--duration", "3s", "--out", "json=report.json"];
    let ran = containers.run(&[], &run);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran));
    let file = containers.out().join("report.json");
    assert_eq!(fs::metadata(&file).unwrap().uid(), USER_ID);
    let report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(report.pointer("/join/joined"), Some(&6.into()), "{report:#}");

    let ring = ["doctor", "--participants", "100", "--backend", "packet_ring"];
    let may = ["--cap-add", "bpf", "--security-opt", "seccomp=unconfined"];
    let without = containers.run(&may[2..], &ring);
    assert_eq!(without.status.code(), Some(104), "{}", text(&without));
    assert!(text(&without).contains("CAP_BPF"), "{}", text(&without));
    let with = containers.run(&may, &ring);
    assert_eq!(with.status.code(), Some(0), "{}", text(&with));
}

/// The stage that builds can't be tried where no image can be pulled; what it is given can.
#[test]
fn what_the_image_is_built_of_is_a_workspace_that_cargo_takes() {
    if !has("buildah") || !rustix::process::geteuid().is_root() {
        return skip("reading a build's context needs buildah and root");
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Containers { dir: tempfile::tempdir().unwrap() };
    let recipe = dir.path().join("Containerfile");
    fs::write(&recipe, "FROM scratch\nCOPY . .\n").unwrap();
    let context = dir.path().join("context");
    let mut build = Command::new("buildah");
    build.args(store.store()).args(["build", "--file"]).arg(&recipe);
    build.arg("--output").arg(&context).arg(sources());
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--locked", "--offline", "--no-deps"]);
    let known = metadata.current_dir(&context).output().unwrap();
    assert!(known.status.success(), "{}", text(&known));
    assert!(!context.join(".git").exists() && !context.join("target").exists());
}

#[test]
fn the_image_is_built_by_the_toolchain_of_the_sources() {
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
    let (version, _) = channel.trim_matches('"').rsplit_once('.').unwrap();
    let image = format!("ARG RUST=docker.io/library/rust:{version}-bookworm");
    let recipe = read("Containerfile");
    assert!(recipe.lines().any(|line| line == image), "no line {image:?} in the Containerfile");
    assert_eq!(recipe.matches(&format!("{USER_ID}:{USER_ID}")).count(), 1);
}

#[test]
fn systemd_takes_the_units() {
    if !has("systemd-analyze") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in fs::read_dir(sources().join("deploy/systemd")).unwrap() {
        let path = entry.unwrap().path();
        let unit = fs::read_to_string(&path).unwrap();
        // It looks whether there is such a binary.
        let unit = unit.replace("/usr/local/bin/stampede", env!("CARGO_BIN_EXE_stampede"));
        units.push(dir.path().join(path.file_name().unwrap()));
        fs::write(units.last().unwrap(), unit).unwrap();
    }
    assert!(units.len() >= 2, "{units:?}");
    // What it does not know it ignores, with a word and exit code 0.
    let verified = Command::new("systemd-analyze").arg("verify").args(&units).output().unwrap();
    assert_eq!(text(&verified).trim(), "");
    assert!(verified.status.success());
}

#[test]
fn the_kernel_knows_what_the_sysctls_set() {
    let file = read("deploy/sysctl.d/60-stampede.conf");
    let settings = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let names: Vec<&str> = settings.map(|line| line.split_once(" = ").expect(line).0).collect();
    assert!(!names.is_empty());
    for name in names {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        // net.core belongs to the host, and can't be seen in a network namespace.
        if name.starts_with("net.ipv4") {
            assert!(path.exists(), "{name}");
        }
        assert!(read("docs/load-box.md").contains(name), "the page doesn't name {name}");
    }
}

/// What the Job gives all pods alike, but for the index; the Secret's values are environment.
#[test]
fn pods_with_the_same_arguments_make_a_run_by_their_indexes() {
    let _lanes = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let sfu = Sfu::start(&[]);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let scenario = dir.path().join("load.toml");
    fs::write(&scenario, "video_publishers = 1\nsubscribers = 4\nduration = \"3s\"\n").unwrap();
    let file = dir.path().join("merged.json");
    let pod = |index: &str| {
        let args = [
            "pod".to_owned(),
            format!("--join={address}"),
            "--node=n1".to_owned(),
            "--wait=30s".to_owned(),
            "--".to_owned(),
            "--hosts=2".to_owned(),
            "--hosts-wait=30s".to_owned(),
            format!("--listen={address}"),
            format!("--scenario={}", scenario.display()),
            format!("--out=json={}", file.display()),
        ];
        Running::start_with(&args.each_ref().map(String::as_str), |command| {
            command.env("JOB_COMPLETION_INDEX", index).current_dir(dir.path());
            command.env("STAMPEDE_TOKEN", "0123456789abcdef0123456789abcdef");
            command.env("LIVEKIT_URL", &sfu.url);
            command.env("LIVEKIT_API_KEY", KEY).env("LIVEKIT_API_SECRET", SECRET);
        })
    };
    // The coordinator may be the last to be placed.
    let pods = ["2", "1", "0"].map(pod);
    for pod in pods {
        pod.end().assert_code(0);
    }
    let report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(report.pointer("/join/joined"), Some(&5.into()), "{report:#}");
    let hosts = report["run"]["hosts"].as_array().unwrap();
    let mut names: Vec<&str> = hosts.iter().map(|host| host["host"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["n1-1", "n1-2"]);
}

#[test]
fn a_pod_that_can_not_begin_says_why() {
    let pod = |index: Option<&str>, run: &[&str]| {
        let mut command = common::stampede();
        command.args(["pod", "--join=127.0.0.1:1", "--node=n1", "--wait=100ms", "--"]).args(run);
        command.env("STAMPEDE_TOKEN", "0123456789abcdef0123456789abcdef");
        command.env_remove("JOB_COMPLETION_INDEX");
        command.envs(index.map(|index| ("JOB_COMPLETION_INDEX", index)));
        let output = command.output().unwrap();
        (output.status.code(), text(&output))
    };
    let (code, said) = pod(None, &["--hosts=2"]);
    assert!(code == Some(104) && said.contains("--index"), "{code:?} {said}");
    let (code, said) = pod(Some("0"), &["--hosts=2", "--duration=90"]);
    assert!(code == Some(104) && said.contains("--duration"), "{code:?} {said}");
    let (code, said) = pod(Some("1"), &["--hosts=2", "--duration=90"]);
    assert!(code == Some(1) && said.contains("127.0.0.1:1"), "{code:?} {said}");
}
