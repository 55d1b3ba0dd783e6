//! Runs the program and reads what it says.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a real process and its files")]

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// How a run of the program ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `tidegate` with these arguments in `folder`.
pub(crate) fn tidegate(folder: &Path, args: &[&str]) -> Ran {
    let output = command(folder, args).output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command
}

impl Ran {
    /// It did what it was asked, and said nothing on standard error.
    #[track_caller]
    pub(crate) fn good(&self) -> &str {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        &self.out
    }

    /// It failed with this code and one line that holds all of `texts`.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert_eq!(self.err.lines().count(), 1, "not one line: {}", self.err);
        assert!(self.err.starts_with("error: "), "{}", self.err);
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is missing in: {}", self.err);
        }
    }

    /// It failed with this code and one line of JSON.
    #[track_caller]
    pub(crate) fn refused_as_json(&self, code: i32) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        let said: serde_json::Value = serde_json::from_str(&self.err).unwrap();
        assert!(said["error"]["message"].is_string(), "{}", self.err);
    }
}

/// The text with what differs from run to run replaced: ids, times, process numbers. Spaces that fill columns are one.
pub(crate) fn normal(text: &str) -> String {
    let word = |word: &str| -> String {
        let core = word.trim_end_matches([',', ':']);
        let end = &word[core.len()..];
        let is_hex = core.len() >= 8 && core.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_time = core.len() == 24 && core.ends_with('Z') && core.contains('T');
        let core = if is_time {
            "TIME"
        } else if is_hex {
            "ID"
        } else {
            core
        };
        format!("{core}{end}")
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}
