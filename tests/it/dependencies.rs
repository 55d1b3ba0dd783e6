//! What `deny.toml` says of licences, sources and banned crates, and `Cargo.toml` of the oldest Rust, held without a network:
//! by what cargo knows of the crates that are built here. Advisories need their database: `cargo deny check advisories`.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use serde_json::Value as Json;
use spdx::{Expression, Licensee, ParseMode};
use toml::{Table, Value};

use crate::tree;

/// A crate of which something is built, as `cargo metadata` tells of it.
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    /// The oldest version that compiles it, as far as it says so.
    rust: Option<String>,
    /// The crates that depend on it.
    users: Vec<String>,
}

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn dependencies_are_as_deny_toml_says() {
    let rules: Table = tree::read("deny.toml").parse().unwrap();
    let packages = packages();
    assert!(packages.len() > 50, "only {} packages found: the question is wrong", packages.len());
    tree::assert_none("crates against deny.toml:", &complaints(&rules, &packages));
}

#[test]
fn the_oldest_rust_compiles_all_dependencies() {
    let workspace: Table = tree::read("Cargo.toml").parse().unwrap();
    let ours = workspace["workspace"]["package"]["rust-version"].as_str().unwrap();
    let too_new = needing_newer(ours, &packages());
    tree::assert_none(
        &format!("crates that Rust {ours} (rust-version in Cargo.toml) does not compile:"),
        &too_new,
    );
    let found = |rust: Option<&str>| {
        let package = Package { rust: rust.map(str::to_owned), ..planted("good", None, None, &[]) };
        needing_newer("1.9", &[package]).len()
    };
    assert_eq!(["1.10", "2.0.1", "1.9.0", "1.8.7"].map(|rust| found(Some(rust))), [1, 1, 0, 0]);
    assert_eq!(found(None), 0);
}

#[test]
fn what_is_pinned_is_pinned_and_its_exception_states_the_reason() {
    let workspace: Table = tree::read("Cargo.toml").parse().unwrap();
    let bincode = &workspace["workspace"]["dependencies"]["bincode"]["version"];
    assert_eq!(bincode.as_str(), Some("=2.0.1"));
    let rules: Table = tree::read("deny.toml").parse().unwrap();
    for exception in rules["advisories"]["ignore"].as_array().unwrap() {
        let reason = exception.get("reason").and_then(Value::as_str).unwrap_or_default();
        assert!(!reason.is_empty(), "deny.toml ignores {exception} without a reason");
    }
}

#[test]
fn planted_offences_are_found() {
    let rules: Table = tree::read("deny.toml").parse().unwrap();
    let found_of = |name: &str, license: Option<&str>, source: Option<&str>, users: &[&str]| {
        complaints(&rules, &[planted(name, license, source, users)]).len()
    };
    let found =
        |name: &str, license: Option<&str>, source: Option<&str>| found_of(name, license, source, &["good"]);
    let registry = Some(REGISTRY);
    assert_eq!(found("good", Some("MIT OR Apache-2.0"), registry), 0);
    assert_eq!(found("good", Some("MIT/GPL-3.0"), registry), 0);
    assert_eq!(found("strict", Some("MIT AND GPL-3.0"), registry), 1);
    assert_eq!(found("strict", Some("LGPL-2.1-or-later"), registry), 1);
    assert_eq!(found("silent", None, registry), 1);
    assert_eq!(found("forked", Some("MIT"), Some("git+https://localhost/fork")), 1);
    assert_eq!(found("openssl-sys", Some("MIT"), registry), 1);
    // Banned but for one user.
    assert_eq!(found_of("chrono", Some("MIT"), registry, &["object_store"]), 0);
    assert_eq!(found_of("chrono", Some("MIT"), registry, &["object_store", "tidegate-env"]), 1);
}

fn planted(name: &str, license: Option<&str>, source: Option<&str>, users: &[&str]) -> Package {
    Package {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        license: license.map(str::to_owned),
        source: source.map(str::to_owned),
        rust: None,
        users: users.iter().map(|user| (*user).to_owned()).collect(),
    }
}

/// Those that no Rust as old as `ours` compiles.
fn needing_newer(ours: &str, packages: &[Package]) -> Vec<String> {
    let numbers = |version: &str| -> Vec<u32> {
        let mut numbers: Vec<_> = version.split('.').map(|number| number.parse().unwrap()).collect();
        numbers.resize(3, 0);
        numbers
    };
    let needs = |it: &Package| {
        let rust = it.rust.as_deref().filter(|rust| numbers(rust) > numbers(ours))?;
        Some(format!("{} {} needs {rust}", it.name, it.version))
    };
    packages.iter().filter_map(needs).collect()
}

fn complaints(rules: &Table, packages: &[Package]) -> Vec<String> {
    let allowed: Vec<_> = texts(&rules["licenses"]["allow"])
        .into_iter()
        .map(|license| Licensee::parse(license).unwrap_or_else(|error| panic!("deny.toml: {error}")))
        .collect();
    let bans = rules["bans"]["deny"].as_array().unwrap();
    let is_banned = |name: &str, users: &[String]| {
        let ban = bans.iter().find(|ban| ban["crate"].as_str() == Some(name));
        // Those who may use it all the same.
        let wrappers = ban.and_then(|ban| ban.get("wrappers")).map(texts).unwrap_or_default();
        ban.is_some() && (users.is_empty() || users.iter().any(|user| !wrappers.contains(&user.as_str())))
    };
    let mut complaints = Vec::new();
    for Package { name, version, license, source, users, .. } in packages {
        let text = license.as_deref().unwrap_or_default();
        let fits = Expression::parse_mode(text, ParseMode::LAX)
            .is_ok_and(|license| license.evaluate(|needed| allowed.iter().any(|one| one.satisfies(needed))));
        if !fits {
            complaints.push(format!("{name} {version} has the licence {text:?}"));
        }
        if source.as_ref().is_some_and(|source| source != REGISTRY) {
            complaints.push(format!("{name} {version} is not from the registry"));
        }
        if is_banned(name, users) {
            complaints.push(format!("{name} {version} is banned"));
        }
    }
    complaints
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Those for this machine's kind, with all features: they have been fetched, or this test would not run.
fn packages() -> Vec<Package> {
    let host = output("rustc", &["-vV"]);
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let question =
        ["metadata", "--locked", "--format-version", "1", "--all-features", "--filter-platform", &host];
    let answer: Json = serde_json::from_str(&output(env!("CARGO"), &question)).unwrap();
    let text = |package: &Json, field: &str| package[field].as_str().map(str::to_owned);
    let packages = answer["packages"].as_array().unwrap();
    let names: BTreeMap<_, _> = packages.iter().map(|it| (it["id"].as_str(), text(it, "name"))).collect();
    let mut users: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for node in answer["resolve"]["nodes"].as_array().unwrap() {
        for used in node["dependencies"].as_array().unwrap() {
            users.entry(used.as_str()).or_default().extend(names[&node["id"].as_str()].clone());
        }
    }
    let package = |it: &Json| Package {
        users: users.get(&it["id"].as_str()).cloned().unwrap_or_default(),
        name: text(it, "name").unwrap(),
        version: text(it, "version").unwrap(),
        license: text(it, "license"),
        source: text(it, "source"),
        rust: text(it, "rust_version"),
    };
    packages.iter().map(package).collect()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stderr(Stdio::inherit());
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
