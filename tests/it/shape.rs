//! The shape of source files: their size, their first line, their names, and no `unsafe` anywhere.

use crate::tree::{self, TextFile};

/// A longer file fails.
const LINES_MAX: usize = 800;
/// A longer file is listed: it needs a reason.
const LINES_EXPECTED_MAX: usize = 400;

/// Names that say that no concept was found.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "misc"];

#[test]
fn no_file_is_too_long() {
    let files = tree::rust_files();
    for file in files.iter().filter(|file| file.lines().count() > LINES_EXPECTED_MAX) {
        println!("{} has {} lines: it needs a reason", file.path, file.lines().count());
    }
    let too_long = |file: &&TextFile| file.lines().count() > LINES_MAX;
    let complaints: Vec<_> = files.iter().filter(too_long).map(|file| file.path.clone()).collect();
    tree::assert_none(&format!("files of more than {LINES_MAX} lines:"), &complaints);
}

#[test]
fn every_file_says_what_it_is() {
    // A `tests.rs` is what the file beside it says, tested.
    let silent = |file: &&TextFile| !file.text.starts_with("//! ") && !file.path.ends_with("/tests.rs");
    let complaints: Vec<_> = tree::rust_files().iter().filter(silent).map(|file| file.path.clone()).collect();
    tree::assert_none("files that do not begin with `//! ` and what they are:", &complaints);
}

#[test]
fn no_file_has_an_empty_name() {
    let empty = |file: &TextFile| {
        file.path.trim_end_matches(".rs").split('/').any(|part| EMPTY_NAMES.contains(&part))
    };
    let complaints: Vec<_> = tree::rust_files().into_iter().filter(empty).map(|file| file.path).collect();
    tree::assert_none("files and folders named after nothing:", &complaints);
}

#[test]
fn no_code_is_unsafe() {
    let complaints: Vec<_> = tree::rust_files()
        .iter()
        .flat_map(|file| {
            let offences = file.lines().filter(|(_, line)| has_unsafe(line));
            offences.map(|(number, _)| format!("{}:{number}", file.path)).collect::<Vec<_>>()
        })
        .collect();
    tree::assert_none("lines with the keyword:", &complaints);
    assert!(has_unsafe("    pub unsafe fn read() {}"));
    assert!(!has_unsafe("let x = 1; // not unsafe"));
    assert!(!has_unsafe("fn has_unsafe(line: &str)"));
}

/// Whether the keyword stands in the code of a line, outside of comments and strings.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let outside_of_strings = code.split('"').step_by(2);
    let mut words =
        outside_of_strings.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.any(|word| word == "unsafe")
}
