//! A state store is a folder and a name, and the name stands wherever stores are: a list that forgets one tests it less, or
//! hides it from users, and nothing else would say so.

use std::fs;

use toml::Table;

use crate::tree;

/// Where the folders of stores are. `sorted_map` among them is for tests alone.
const FOLDER: &str = "statebackend/src/store";
const FOR_TESTS: &str = "sorted_map";
/// What names every store: a file, where in it that begins and ends, and what is before and after the name.
const PLACES: [(&str, [&str; 2], [&str; 2]); 9] = [
    ("statebackend/src/store/stores.rs", ["match name {", "_ =>"], ["\"", "\" =>"]),
    ("statebackend/tests/it/fixture.rs", ["const STORES: ", "];"], ["\"", "\","]),
    ("engine/src/config/settings.rs", ["const NAMES: ", "];"], ["(\"", "\","]),
    ("engine/src/config/args.rs", ["/// State backend: ", "\n"], [" ", ""]),
    ("engine/tests/it/migrations_again.rs", ["const BACKENDS: ", "];"], ["\"", "\","]),
    ("chaos-tests/src/stage.rs", ["const BACKENDS: ", "];"], ["\"", "\","]),
    ("benches/src/bin/state_access.rs", ["let backends: ", "];"], ["\"", "\","]),
    ("README.md", ["# Where state lives", "All of them"], ["| `", "` |"]),
    ("CHANGELOG.md", ["\n## ", "\0"], ["`", "`"]),
];
/// Where the feature is handed on to the crate that has the store.
const MANIFESTS: [&str; 4] =
    ["engine/Cargo.toml", "Cargo.toml", "chaos-tests/Cargo.toml", "benches/Cargo.toml"];

#[test]
fn a_store_is_named_wherever_stores_are() {
    let mut stores = Vec::new();
    for entry in fs::read_dir(FOLDER).unwrap().map(Result::unwrap) {
        let folder = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() && folder != FOR_TESTS {
            stores.push(folder.replace('_', "-"));
        }
    }
    assert!(stores.len() > 1, "only {stores:?} found in {FOLDER}");
    let missing: Vec<_> = stores.iter().flat_map(|name| places_without(name, tree::read)).collect();
    tree::assert_none("state stores that are missing:", &missing);
}

#[test]
fn a_store_that_is_missing_is_found() {
    assert_eq!(places_without("no-such", tree::read).len(), PLACES.len());
    // One that is a feature of its crate is one of all.
    let with_feature = |path: &str| match path {
        "statebackend/Cargo.toml" => "[features]\nno-such = []".to_owned(),
        path => tree::read(path),
    };
    assert_eq!(places_without("no-such", with_feature).len(), PLACES.len() + MANIFESTS.len());
    // Each list by itself, whatever else its file says of the store.
    for (emptied, [begin, end], _) in PLACES {
        let without_list = |path: &str| {
            let text = tree::read(path);
            if path == emptied { text.replace(list(&text, begin, end).unwrap(), "") } else { text }
        };
        let missing = places_without("sled", without_list);
        assert_eq!(missing.len(), 1, "{emptied}: {missing:?}");
    }
}

fn places_without(name: &str, read: impl Fn(&str) -> String) -> Vec<String> {
    let has_feature = |manifest: &str| {
        let manifest: Table = read(manifest).parse().unwrap();
        manifest.get("features").is_some_and(|features| features.get(name).is_some())
    };
    let mut missing = Vec::new();
    for (path, [begin, end], [before, after]) in PLACES {
        let text = read(path).to_lowercase();
        let named = format!("{before}{name}{after}");
        let place = list(&text, &begin.to_lowercase(), &end.to_lowercase()).unwrap_or_default();
        if !place.contains(&named) {
            missing.push(format!("{path} does not name {named} after {begin:?}"));
        }
    }
    if has_feature("statebackend/Cargo.toml") {
        let manifests = MANIFESTS.iter().filter(|manifest| !has_feature(manifest));
        missing.extend(manifests.map(|manifest| format!("{manifest} has no feature {name}")));
    }
    missing
}

/// What is between; up to the end of the text where the end is not there.
fn list<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(begin)?;
    after.split(end).next()
}
