//! `ARCHITECTURE.md` is the map: it names every folder of code, and no folder that is not there. `FORMAT.md` draws
//! every format: it names each magic number.

use std::{collections::BTreeSet, path::Path};

use crate::tree;

#[test]
fn the_map_names_every_folder() {
    let map = tree::read("ARCHITECTURE.md");
    let mut folders = BTreeSet::new();
    // A folder that holds nothing but tests is part of the file beside it.
    for file in tree::rust_files().iter().filter(|file| !file.path.ends_with("/tests.rs")) {
        let (folder, _) = file.path.rsplit_once('/').unwrap_or_default();
        folders.insert(format!("{folder}/"));
    }
    // The crates themselves stand in the picture.
    folders.retain(|folder| !["src/", "/src/bin/", "/tests/it/"].iter().any(|end| folder.ends_with(end)));
    folders.retain(|folder| !map.contains(&format!("`{folder}`")));
    let missing: Vec<_> = folders.into_iter().collect();
    tree::assert_none("folders that ARCHITECTURE.md does not name:", &missing);
}

#[test]
fn the_map_names_nothing_else() {
    let map = tree::read("ARCHITECTURE.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spans = map.split('`').skip(1).step_by(2).filter(|span| !span.contains([' ', '\n', '*', '<', ':']));
    let paths = spans.filter(|span| span.contains('/') && !span.starts_with('/'));
    let gone: Vec<_> = paths.filter(|path| !root.join(path).exists()).map(str::to_owned).collect();
    tree::assert_none("paths in ARCHITECTURE.md that do not exist:", &gone);
}

#[test]
fn formats_are_drawn() {
    let formats = tree::read("FORMAT.md");
    let mut missing = Vec::new();
    for file in tree::rust_files().iter().filter(|file| file.path.contains("/src/")) {
        let magics =
            file.lines().filter(|(_, line)| line.to_lowercase().contains("magic") && line.contains("b\""));
        for (number, line) in magics {
            let magic = line.split("b\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let plain: String = magic.split('\\').next().unwrap_or_default().to_owned();
            if plain.is_empty() || !formats.contains(&plain) {
                missing.push(format!("{}:{number}: {magic}", file.path));
            }
        }
    }
    tree::assert_none("magic numbers that FORMAT.md does not draw:", &missing);
}
