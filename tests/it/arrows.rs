//! Crates import each other only along the arrows of the picture in `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::tree;

/// For each crate's folder (the root package: `src`) the folders that it may import.
type Picture = BTreeMap<String, BTreeSet<String>>;

/// The arrows are for test code too: an arrow against the picture in a test is still a cycle of ideas.
const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn crates_import_along_the_arrows() {
    let workspace: Table = tree::read("Cargo.toml").parse().unwrap();
    let ours = folders_by_name(&workspace);
    let picture = picture(&tree::read("ARCHITECTURE.md"));
    let mut complaints = Vec::new();
    for folder in members(&workspace) {
        let path = if folder == "src" { "Cargo.toml".to_owned() } else { format!("{folder}/Cargo.toml") };
        complaints.extend(foreign_arrows(&folder, &tree::read(&path), &ours, &picture));
    }
    tree::assert_none("arrows that are not in the picture of ARCHITECTURE.md:", &complaints);
}

#[test]
fn every_crate_obeys_the_lints() {
    let workspace: Table = tree::read("Cargo.toml").parse().unwrap();
    let obeys = |path: &str| {
        let manifest: Table = tree::read(path).parse().unwrap();
        manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    let mut paths: Vec<_> = members(&workspace).iter().map(|folder| format!("{folder}/Cargo.toml")).collect();
    paths.retain(|path| path != "src/Cargo.toml");
    paths.push("Cargo.toml".to_owned());
    paths.retain(|path| !obeys(path));
    tree::assert_none("manifests without `[lints] workspace = true`:", &paths);
    assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn a_planted_arrow_is_found() {
    let ours =
        BTreeMap::from([("env", "env"), ("engine", "engine")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    let picture = picture("```\nenv/  the world  -> types\nengine/  the engine  -> env\n```");
    let planted = |folder: &str, manifest: &str| foreign_arrows(folder, manifest, &ours, &picture).len();
    assert_eq!(planted("engine", "[dependencies]\nenv.workspace = true\nserde = '1'"), 0);
    assert_eq!(planted("env", "[dependencies]\nenv = { path = '.', features = ['test-util'] }"), 0);
    assert_eq!(planted("env", "[dependencies]\nengine.workspace = true"), 1);
    assert_eq!(planted("env", "[dev-dependencies]\nrenamed = { path = '../engine' }"), 1);
    assert_eq!(planted("env", "[target.'cfg(unix)'.dev-dependencies]\nengine.workspace = true"), 1);
    assert_eq!(planted("stranger", ""), 1);
}

/// The members of the workspace by folder, the root package as `src`.
fn members(workspace: &Table) -> Vec<String> {
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let folders = members.iter().map(|member| member.as_str().unwrap().to_owned());
    folders.chain(["src".to_owned()]).collect()
}

/// Under which name the workspace's manifests may import which of our folders.
fn folders_by_name(workspace: &Table) -> BTreeMap<String, String> {
    let dependencies = workspace["workspace"]["dependencies"].as_table().unwrap();
    dependencies.iter().filter_map(|(name, value)| Some((name.clone(), target_of("src", value)?))).collect()
}

/// The folder that a dependency's `path` leads to, in the manifest of `folder`.
fn target_of(folder: &str, dependency: &Value) -> Option<String> {
    let path = dependency.get("path")?.as_str()?;
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    Some(match last {
        "." => folder.to_owned(),
        ".." => "src".to_owned(),
        target => target.to_owned(),
    })
}

/// The arrows of the fenced block: lines `folder/  what it is  -> one, two`; `all` stands for any crate.
fn picture(document: &str) -> Picture {
    let block =
        document.split("```").nth(1).expect("ARCHITECTURE.md begins with the picture in a fenced block");
    let mut picture = Picture::new();
    for line in block.lines() {
        let Some((folder, rest)) = line.split_once('/') else { continue };
        let targets = rest.rsplit_once("->").map_or("", |(_, targets)| targets);
        let targets =
            targets.split(',').map(|target| target.trim().to_owned()).filter(|target| !target.is_empty());
        picture.insert(folder.to_owned(), targets.collect());
    }
    picture
}

fn foreign_arrows(
    folder: &str,
    manifest: &str,
    ours: &BTreeMap<String, String>,
    picture: &Picture,
) -> Vec<String> {
    let Some(allowed) = picture.get(folder) else {
        return vec![format!("{folder} is not in the picture")];
    };
    let manifest: Table = manifest.parse().unwrap();
    let mut imported = BTreeSet::new();
    let targets =
        manifest.get("target").and_then(Value::as_table).into_iter().flat_map(|table| table.values());
    for table in targets.filter_map(Value::as_table).chain([&manifest]) {
        for section in SECTIONS {
            let dependencies = table.get(section).and_then(Value::as_table).into_iter().flatten();
            let target = |(name, value)| target_of(folder, value).or_else(|| ours.get(name).cloned());
            imported.extend(dependencies.filter_map(target));
        }
    }
    // A crate may import itself in order to test its own feature `test-util`.
    imported.remove(folder);
    imported.remove("src").then(|| imported.insert("tidegate".to_owned()));
    imported.retain(|target| !allowed.contains("all") && !allowed.contains(target));
    imported.into_iter().map(|target| format!("{folder} -> {target}")).collect()
}
