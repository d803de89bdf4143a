#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::path::{Path, PathBuf};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::flags::Parsed;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes");

/// Maps whose keys are whoever's who writes them.
const FREE: [&str; 6] = ["data", "labels", "limits", "matchLabels", "requests", "selector"];

/// More flags than those of the base, for what an overlay changes.
const OVERLAYS: [(&str, &[&str]); 3] = [
    ("small", &["--hosts=1"]),
    ("host-network", &["--host-network"]),
    ("2000-a-node", &["--hosts=10", "--cpu=4", "--memory=4Gi", "--exclusive", "--packet-ring"]),
];

fn flags(words: &[&str]) -> KubernetesFlags {
    let given = words.iter().map(|word| word.split('=').next().unwrap());
    let hosts = if given.clone().any(|name| name == "--hosts") { None } else { Some("--hosts=2") };
    let all = ["stampede", "kubernetes", "--scenario=load.toml"].into_iter().chain(hosts);
    match flags::parse(all.chain(words.iter().copied()).map(OsString::from)) {
        Ok(Parsed::Command(flags::Command::Kubernetes(flags))) => flags,
        Err(failure) => panic!("{failure}"),
        _ => panic!("another command"),
    }
}

fn refused(words: &[&str]) -> String {
    let all = ["stampede", "kubernetes", "--scenario=load.toml", "--hosts=2"];
    let all = all.iter().chain(words).map(OsString::from);
    flags::parse(all).err().map(|failure| failure.to_string()).unwrap_or_default()
}

fn yaml(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn printed(words: &[&str], scenario: &str) -> Vec<Value> {
    yaml(&manifests(&flags(words), scenario).unwrap())
}

fn scenario(overlay: &str) -> String {
    let own = Path::new(HERE).join("overlays").join(overlay).join("load.toml");
    let base = Path::new(HERE).join("base/load.toml");
    fs::read_to_string(if own.exists() { own } else { base }).unwrap()
}

/// A manifest as the API has it: what it does not know is not there.
fn as_the_api_has_it(manifest: &Value) -> Result<Value, serde_json::Error> {
    fn through<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, serde_json::Error> {
        serde_json::to_value(serde_json::from_value::<T>(value.clone())?)
    }
    match manifest["kind"].as_str() {
        Some("ConfigMap") => through::<ConfigMap>(manifest),
        Some("Service") => through::<Service>(manifest),
        Some("Job") => through::<Job>(manifest),
        _ => Ok(Value::Null),
    }
}

/// Where the manifest has a field, as a JSON pointer to its object and its name.
fn fields(value: &Value, at: &str, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                into.push((at.to_owned(), key.clone()));
                if !FREE.contains(&key.as_str()) {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    fields(inner, &format!("{at}/{key}"), into);
                }
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                fields(inner, &format!("{at}/{index}"), into);
            }
        }
        _ => {}
    }
}

#[test]
fn the_api_knows_every_field_and_would_not_know_a_misspelt_one() {
    let everything: &[&str] = &["--namespace=load", "--reports=claim", "--host-network"];
    let more = OVERLAYS.iter().map(|(_, words)| *words);
    let mut tried = 0;
    for words in [&[][..], everything].into_iter().chain(more) {
        for manifest in printed(words, "subscribers = 5\n") {
            assert_eq!(as_the_api_has_it(&manifest).unwrap(), manifest, "{words:?}");
            let mut places = Vec::new();
            fields(&manifest, "", &mut places);
            for (at, name) in places {
                let mut misspelt = manifest.clone();
                let object = misspelt.pointer_mut(&at).unwrap().as_object_mut().unwrap();
                let value = object.remove(&name).unwrap();
                object.insert(format!("{name}s"), value);
                let known = as_the_api_has_it(&misspelt);
                assert!(known.is_err() || known.unwrap() != misspelt, "{at}/{name}s is taken");
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "{tried}");
}

#[test]
fn the_base_is_what_the_command_prints() {
    let kept = Path::new(HERE).join("base/stampede.yaml");
    let text = manifests(&flags(&[]), &scenario("")).unwrap();
    if std::env::var_os("STAMPEDE_BLESS").is_some() {
        fs::write(&kept, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&kept).unwrap_or_default() == text,
        "deploy/kubernetes/base/stampede.yaml is stale; write it anew with STAMPEDE_BLESS=1"
    );
}

/// RFC 6902, as far as the overlays use it.
fn patch(manifest: &mut Value, operations: &Value) {
    for operation in operations.as_array().unwrap() {
        let path = operation["path"].as_str().unwrap();
        let value = operation["value"].clone();
        match operation["op"].as_str().unwrap() {
            "replace" => *manifest.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value,
            "add" => {
                let (parent, name) = path.rsplit_once('/').unwrap();
                let parent = manifest.pointer_mut(parent).unwrap().as_object_mut().unwrap();
                assert_eq!(parent.insert(name.to_owned(), value), None, "{path} is there");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn the_overlays_are_flags_of_the_command() {
    let read = |path: PathBuf| yaml(&fs::read_to_string(path).unwrap()).remove(0);
    let mut there: Vec<String> = fs::read_dir(Path::new(HERE).join("overlays"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    let mut known = OVERLAYS.map(|(name, _)| name);
    known.sort_unstable();
    assert_eq!(there, known);
    for (name, words) in OVERLAYS {
        let folder = Path::new(HERE).join("overlays").join(name);
        let kustomization = read(folder.join("kustomization.yaml"));
        assert_eq!(kustomization["resources"], json!(["../../base"]));
        let mut made =
            yaml(&fs::read_to_string(Path::new(HERE).join("base/stampede.yaml")).unwrap());
        for change in kustomization["patches"].as_array().unwrap() {
            let operations = read(folder.join(change["path"].as_str().unwrap()));
            let kind = &change["target"]["kind"];
            patch(made.iter_mut().find(|manifest| manifest["kind"] == *kind).unwrap(), &operations);
        }
        if let Some(generated) = kustomization.get("configMapGenerator") {
            let merged = json!([{"name": "stampede", "behavior": "merge", "files": ["load.toml"]}]);
            assert_eq!(*generated, merged);
            made[0]["data"]["load.toml"] = scenario(name).into();
        }
        assert_eq!(made, printed(words, &scenario(name)), "{name}");
    }
}

#[test]
fn the_scenarios_stand_in_the_manifest_as_they_are() {
    for text in [
        "subscribers = 5\n",
        "    # begins four deep\n\n\tduration = \"1m\"   # ends in spaces  \n",
        "# \"quotes\" ' : - {{ braces }} {% if %} ü 漢 🐎\n[[stage]]\n---\n...\n",
        include_str!("../flags/scenario.toml"),
    ] {
        let manifests = printed(&[], text);
        assert_eq!(manifests.len(), 3);
        assert_eq!(manifests[0]["data"]["load.toml"], *text);
    }
    for (text, needs) in [
        ("a = \"\u{2028}\"\n".to_owned(), "u{2028}"),
        ("a = 1 # \u{7}\n".to_owned(), "u{7}"),
        ("#".repeat(SCENARIO_BYTES_MAX + 1), "1048577 bytes"),
    ] {
        let failure = manifests(&flags(&[]), &text).unwrap_err();
        assert_eq!(failure.exit, Exit::BadConfiguration);
        assert!(failure.to_string().contains(needs), "{failure}");
    }
}

#[test]
fn names_images_and_sizes_that_yaml_or_kubernetes_would_not_take_are_refused() {
    let long = format!("--name={}", "a".repeat(58));
    for (word, needs) in [
        ("--name=Load", "a letter first"),
        ("--name=1load", "a letter first"),
        ("--name=load-", "a letter first"),
        ("--name=on", "no word"),
        ("--namespace=a b", "a letter first"),
        (long.as_str(), "57 characters"),
        ("--image=a b", "registry.example.com"),
        ("--image=a\"", "registry.example.com"),
        ("--memory=4GB", "4Gi"),
        ("--memory=Gi", "4Gi"),
        ("--hosts=0", "--hosts"),
    ] {
        let line = refused(&[word]);
        assert!(line.contains(needs), "{word}: {line:?}");
    }
    assert_eq!(refused(&["--image=localhost:5000/a/stampede@sha256:0af", "--memory=512Mi"]), "");
}

#[test]
fn a_pods_index_says_what_it_becomes() {
    let job = printed(&["--hosts=3", "--name=night"], "subscribers = 5\n").remove(2);
    let args = job.pointer("/spec/template/spec/containers/0/args").unwrap();
    let args = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let args: Vec<&str> =
        args.map(|arg| if arg.contains("$(") { "--node=n1" } else { arg }).collect();
    let words = |index: &str| {
        let (own, run) = args.split_at(args.iter().position(|arg| *arg == "--").unwrap());
        let own = ["stampede"].iter().chain(own).copied().chain([index]);
        match flags::parse(own.chain(run.iter().copied()).map(OsString::from)) {
            Ok(Parsed::Command(flags::Command::Pod(flags))) => words_of(&flags),
            Err(failure) => panic!("{failure}"),
            _ => panic!("another command"),
        }
    };
    let run = ["run", "--hosts=3", "--hosts-wait=5m", "--scenario=/scenario/load.toml"];
    assert_eq!(words("--index=0"), run);
    let work = ["work", "--join", "night-0.night:7890", "--name", "n1-2", "--wait", "300000ms"];
    assert_eq!(words("--index=2"), work);
}
