//! What `deny.toml` says of licences, sources and banned crates, held without a network: by what cargo knows of the crates
//! that are built here. Advisories need their database: `cargo deny check advisories`.

use std::process::{Command, Stdio};

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
    let found = |name: &str, license: Option<&str>, source: Option<&str>| {
        let (license, source) = (license.map(str::to_owned), source.map(str::to_owned));
        complaints(&rules, &[Package { name: name.to_owned(), version: "1.0.0".to_owned(), license, source }])
            .len()
    };
    let registry = Some(REGISTRY);
    assert_eq!(found("good", Some("MIT OR Apache-2.0"), registry), 0);
    assert_eq!(found("good", Some("MIT/GPL-3.0"), registry), 0);
    assert_eq!(found("strict", Some("MIT AND GPL-3.0"), registry), 1);
    assert_eq!(found("strict", Some("LGPL-2.1-or-later"), registry), 1);
    assert_eq!(found("silent", None, registry), 1);
    assert_eq!(found("forked", Some("MIT"), Some("git+https://localhost/fork")), 1);
    assert_eq!(found("openssl-sys", Some("MIT"), registry), 1);
}

fn complaints(rules: &Table, packages: &[Package]) -> Vec<String> {
    let names = |section: &str, list: &str, name: fn(&Value) -> Option<&str>| -> Vec<String> {
        let entries = rules[section][list].as_array().unwrap();
        entries.iter().map(|entry| name(entry).unwrap().to_owned()).collect()
    };
    let allowed: Vec<_> = names("licenses", "allow", Value::as_str)
        .iter()
        .map(|license| Licensee::parse(license).unwrap_or_else(|error| panic!("deny.toml: {error}")))
        .collect();
    let banned = names("bans", "deny", |entry| entry.get("crate")?.as_str());
    let mut complaints = Vec::new();
    for Package { name, version, license, source } in packages {
        let text = license.as_deref().unwrap_or_default();
        let fits = Expression::parse_mode(text, ParseMode::LAX)
            .is_ok_and(|license| license.evaluate(|needed| allowed.iter().any(|one| one.satisfies(needed))));
        if !fits {
            complaints.push(format!("{name} {version} has the licence {text:?}"));
        }
        if source.as_ref().is_some_and(|source| source != REGISTRY) {
            complaints.push(format!("{name} {version} is not from the registry"));
        }
        if banned.contains(name) {
            complaints.push(format!("{name} {version} is banned"));
        }
    }
    complaints
}

/// Those for this machine's kind, with all features: they have been fetched, or this test would not run.
fn packages() -> Vec<Package> {
    let host = output("rustc", &["-vV"]);
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let question =
        ["metadata", "--locked", "--format-version", "1", "--all-features", "--filter-platform", &host];
    let answer: Json = serde_json::from_str(&output(env!("CARGO"), &question)).unwrap();
    let text = |package: &Json, field: &str| package[field].as_str().map(str::to_owned);
    let packages = answer["packages"].as_array().unwrap().iter();
    let package = |it: &Json| Package {
        name: text(it, "name").unwrap(),
        version: text(it, "version").unwrap(),
        license: text(it, "license"),
        source: text(it, "source"),
    };
    packages.map(package).collect()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
