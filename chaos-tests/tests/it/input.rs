//! Text that is not UTF-8, and lines that are too long: the real command says where and what to do, leaves nothing behind,
//! and reads them where a flag allows it.

use std::{fs, process::Command};

use tempfile::TempDir;

/// The exit code of the error `bad-input`.
const BAD_INPUT: i32 = 6;

/// What the word count says of this text, and the lines that it has published.
fn count(text: &[u8], flags: &[&str]) -> (Option<i32>, String, Vec<String>) {
    let scene = TempDir::new().unwrap();
    fs::write(scene.path().join("text"), text).unwrap();
    let mut command = Command::new(super::word_count());
    command.arg("--input").arg(scene.path().join("text")).arg("--output").arg(scene.path().join("counts"));
    command.arg("--checkpoints").arg(scene.path().join("checkpoints"));
    let ran = command
        .args(["--interval", "1s", "--restart", "none", "--rest", "off"])
        .args(flags)
        .output()
        .unwrap();
    let mut published = Vec::new();
    for entry in fs::read_dir(scene.path().join("counts")).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("part-") {
            published.extend(fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    published.sort();
    (ran.status.code(), String::from_utf8(ran.stderr).unwrap(), published)
}

#[test]
fn bytes_that_are_no_text_are_refused_or_read_lossily() {
    let text = b"one two\nthree \xff four\n";
    let (code, errors, published) = count(text, &[]);
    assert_eq!((code, published.len()), (Some(BAD_INPUT), 0), "{errors}");
    let last = errors.lines().last().unwrap();
    for part in ["/text: ", "byte 0xff at offset 14 is not UTF-8", "lossy"] {
        assert!(last.contains(part), "{part:?} is missing in: {errors}");
    }
    let (code, errors, published) = count(text, &["--lossy"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(published, ["four\t1", "one\t1", "three\t1", "two\t1"]);
}

#[test]
fn a_line_is_as_long_as_is_allowed() {
    let text = [&b"short\n"[..], &b"x".repeat(2 << 20), b"\n"].concat();
    let (code, errors, published) = count(&text, &[]);
    assert_eq!((code, published.len()), (Some(BAD_INPUT), 0), "{errors}");
    let last = errors.lines().last().unwrap();
    for part in ["/text: ", "the line at offset 6 is longer than 1048576 bytes", "max_line_bytes"] {
        assert!(last.contains(part), "{part:?} is missing in: {errors}");
    }
    let (code, errors, published) = count(&text, &["--max-line-bytes", "3000000"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!((published.len(), published[0].as_str()), (2, "short\t1"));
}
