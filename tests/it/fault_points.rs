//! Every named fault point stands somewhere in production code, and some test fires it.

use std::collections::BTreeSet;

use crate::tree::{self, TextFile};

const TABLE: &str = "env/src/fault.rs";

#[test]
fn every_point_is_in_the_code() {
    let files = tree::rust_files();
    let production = |file: &&TextFile| {
        file.path != TABLE && file.path.contains("src/") && !file.path.starts_with("chaos-tests/")
    };
    let code: String = files.iter().filter(production).map(|file| file.text.as_str()).collect();
    tree::assert_none("fault points that no code passes:", &unnamed(&code));
}

#[test]
fn every_point_is_fired_by_the_kill_tests() {
    tree::assert_none(
        "fault points that no kill test fires:",
        &unnamed(&tree::read("chaos-tests/tests/it/points.rs")),
    );
}

/// The variants of `FaultPoint` that do not occur in `code`.
fn unnamed(code: &str) -> Vec<String> {
    let table = tree::read(TABLE);
    let (_, points) =
        table.split_once("\npoints! {").expect("the table of fault points begins with `points! {`");
    let variants =
        points.lines().filter_map(|line| line.trim().split_once(" = \"")).map(|(variant, _)| variant);
    let variants: Vec<_> = variants.collect();
    assert!(
        variants.len() >= 25,
        "only {} fault points found: the reading of {TABLE} is broken",
        variants.len()
    );
    let words: BTreeSet<_> = code.split(|c: char| !c.is_alphanumeric()).collect();
    variants.into_iter().filter(|variant| !words.contains(variant)).map(str::to_owned).collect()
}
