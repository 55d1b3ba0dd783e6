//! `ARCHITECTURE.md` is the map: it names every folder of code, and no folder that is not there. `FORMAT.md` draws
//! every format: it names each magic number. The README's exit codes are those of the code.

use std::{collections::BTreeSet, path::Path};

use crate::tree;

#[test]
fn the_map_names_every_folder() {
    let map = tree::read("ARCHITECTURE.md");
    let mut folders = BTreeSet::new();
    for file in tree::rust_files() {
        // A folder of a crate's `src`; what is below it is its own affair, and so are tests.
        let folders_of_file: Vec<_> = file.path.split('/').collect();
        if let [krate, "src", folder, _, ..] = folders_of_file[..]
            && !file.path.ends_with("/tests.rs")
        {
            folders.insert(format!("{krate}/src/{folder}/"));
        }
    }
    folders.retain(|folder| !folder.ends_with("/src/bin/"));
    folders.retain(|folder| !map.contains(&format!("`{folder}`")));
    let missing: Vec<_> = folders.into_iter().collect();
    tree::assert_none("folders that ARCHITECTURE.md does not name:", &missing);
}

#[test]
fn the_map_names_nothing_else() {
    let map = tree::read("ARCHITECTURE.md");
    let spans = map.split('`').skip(1).step_by(2).filter(|span| !span.contains([' ', '\n', '*', '<', ':']));
    let paths = spans.filter(|span| span.contains('/') && !span.starts_with('/'));
    let gone: Vec<_> = paths.filter(|path| !Path::new(path).exists()).map(str::to_owned).collect();
    tree::assert_none("paths in ARCHITECTURE.md that do not exist:", &gone);
}

#[test]
fn the_map_names_functions_that_are_there() {
    let source = |path: &str| tree::read(path);
    tree::assert_none(
        "functions in ARCHITECTURE.md that are not in the file named with them:",
        &missing_functions(&tree::read("ARCHITECTURE.md"), source),
    );
    let source = |_: &str| "    pub(super) async fn cut(&mut self) {}\n fn on_barrier<T>() {}".to_owned();
    let text =
        "cuts: `a/b.rs` (`cut`, `on_barrier`), `a/b.rs`\n(`slice`, not a `folder/`) and (`none`) `on_b`";
    assert_eq!(missing_functions(text, source), ["a/b.rs: slice"]);
}

/// Of functions that the map names in parentheses after a file, those that the file does not define.
fn missing_functions(map: &str, source: impl Fn(&str) -> String) -> Vec<String> {
    let mut missing = Vec::new();
    for (at, _) in map.match_indices(".rs`") {
        let path = map[..at + ".rs".len()].rsplit('`').next().unwrap_or_default();
        let after = map[at + ".rs`".len()..].trim_start();
        let Some((named, _)) = after.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
            continue;
        };
        let code = source(path);
        let is_name = |span: &&str| span.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        for name in named.split('`').skip(1).step_by(2).filter(is_name) {
            if ![format!("fn {name}("), format!("fn {name}<")].iter().any(|head| code.contains(head)) {
                missing.push(format!("{path}: {name}"));
            }
        }
    }
    missing
}

#[test]
fn the_readme_shows_the_example() {
    let (readme, example) = (tree::read("README.md"), tree::read("examples/word_count.rs"));
    let code = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    let code = code.expect("the README begins with a block of Rust");
    let foreign = |line: &&str| !line.trim().is_empty() && !example.contains(line.trim());
    let foreign: Vec<_> = code.lines().filter(foreign).map(str::to_owned).collect();
    tree::assert_none("lines of the README's program that examples/word_count.rs does not have:", &foreign);
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
            let plain = letters(magic);
            if plain.is_empty() || !formats.contains(plain) {
                missing.push(format!("{}:{number}: {magic}", file.path));
            }
        }
    }
    tree::assert_none("magic numbers that FORMAT.md does not draw:", &missing);
}

/// The letters of a magic number, without its escapes (`\\x89`, `\\r`, `\\0`).
fn letters(magic: &str) -> &str {
    let pieces = magic.split('\\').enumerate().map(|(index, piece)| match piece.strip_prefix('x') {
        _ if index == 0 => piece,
        Some(hex) => hex.get(2..).unwrap_or_default(),
        None => piece.get(1..).unwrap_or_default(),
    });
    pieces.max_by_key(|piece| piece.len()).unwrap_or_default()
}

#[test]
fn letters_of_a_magic_number() {
    assert_eq!(letters("TGHINT\\0\\0"), "TGHINT");
    assert_eq!(letters("\\x89TGRUN\\r\\n"), "TGRUN");
}

#[test]
fn the_readme_lists_the_exit_codes_that_there_are() {
    let readme = tree::read("README.md");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let table = readme.split("## Exit codes").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<(u8, String)> = table
        .lines()
        .map(cells)
        .filter_map(|row| Some((row.get(1)?.parse().ok()?, row.get(2)?.trim_matches('`').to_owned())))
        .collect();
    let mut expected: Vec<_> =
        types::ErrorKind::ALL.iter().map(|kind| (kind.exit_code(), kind.name().to_owned())).collect();
    // The first and the last are of no error: no output, and a difference that was asked for.
    expected.extend([(0, "success".to_owned()), (1, String::new()), (14, String::new())]);
    expected.sort();
    assert_eq!(rows, expected);
}
