//! What the lives of one job share, whatever the job does: a temporary directory with its checkpoints and working state,
//! the flags that make it work hard, and the log of each life.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{HistoryReader, Life, Newest};

/// The backends that a job's lives take in turn: each restores what another one wrote.
pub const BACKENDS: &[&str] = &[
    "filesystem",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    #[cfg(feature = "sled")]
    "sled",
];

/// With these options a backend that gathers what it is told writes small amounts to disk, too; the others do anyway.
pub const SMALL_BUFFERS: &[(&str, &str)] = &[("rocksdb", "write_buffer_size=65536;arena_block_size=8192")];

/// How many copies for local recovery its lives may keep, in turn: enough, enough again, too few, none. What one life has left is
/// there for those after it.
const LOCAL_RECOVERY: [&str; 4] = ["16MiB", "16MiB", "64KiB", "off"];

/// A job's directory, which goes with it.
pub struct Stage {
    folder: TempDir,
    program: PathBuf,
    history: HistoryReader,
    lives: u32,
    /// Where the checkpoints are, and the variables with which a program finds that place.
    checkpoints: String,
    variables: Vec<(String, String)>,
}

impl Stage {
    /// A stage for `program`.
    ///
    /// # Panics
    /// If there is no room for a directory.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let checkpoints = folder.path().join("checkpoints");
        let history = HistoryReader::new(&checkpoints).expect("a runtime");
        let checkpoints = checkpoints.display().to_string();
        Self { folder, program: program.to_owned(), history, lives: 0, checkpoints, variables: Vec::new() }
    }

    /// A path inside.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How many lives have begun.
    #[must_use]
    pub fn lives(&self) -> u32 {
        self.lives
    }

    /// The command that starts the job; what the program itself needs is to be added.
    #[must_use]
    pub fn command(&self, backend: &str, parallelism: u64, rest: &str) -> Command {
        let mut command = Command::new(&self.program);
        if backend == "memory" {
            command.arg("--allow-volatile");
        } else {
            command.arg("--checkpoints").arg(&self.checkpoints).envs(self.variables.iter().cloned());
        }
        command.args(["--interval", "50ms", "--rest", rest, "--parallelism", &parallelism.to_string()]);
        // Little memory, so that cells leave for the stores all the time.
        command.args(["--state", backend, "--set", "state.memory=64KiB"]);
        command.arg("--set").arg(format!("state.directory={}", self.path("state").display()));
        let copies = LOCAL_RECOVERY[self.lives as usize % LOCAL_RECOVERY.len()];
        command.args(["--set", &format!("state.local-recovery={copies}")]);
        // Runs are merged and files are collected as often as can be.
        command.args(["--set", "snapshot.merge-fan-in=2", "--set", "checkpoints.retained=2"]);
        command
    }

    /// Puts the checkpoints at a URL, which programs reach with these environment variables.
    pub fn put_checkpoints_at(&mut self, url: &str, variables: Vec<(String, String)>) {
        url.clone_into(&mut self.checkpoints);
        self.variables = variables;
    }

    /// How many lives so far have read state from copies that an earlier one had left.
    #[must_use]
    pub fn lives_from_copies(&self) -> usize {
        let said =
            |life| std::fs::read_to_string(self.path(&format!("life-{life:03}.err"))).unwrap_or_default();
        let has_read = |said: &String| {
            let mut read = said.lines().filter_map(|line| line.split_once("its state is restored: "));
            read.any(|(_, bytes)| !bytes.starts_with("0 "))
        };
        (1..=self.lives).map(said).filter(has_read).count()
    }

    /// Begins a life.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start(&mut self, command: &mut Command) -> Life {
        self.lives += 1;
        let log = self.path(&format!("life-{:03}", self.lives));
        Life::start(command, &log)
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()))
    }

    /// What the history says now.
    ///
    /// # Panics
    /// If it is damaged: a kill must not do that.
    #[must_use]
    pub fn history(&mut self) -> Newest {
        let newest = self.history.newest();
        newest.unwrap_or_else(|error| self.fail(&format!("the history cannot be read: {error}")))
    }

    /// Fails the test with everything that helps to see why; the directory stays.
    ///
    /// # Panics
    /// Always.
    pub fn fail(&mut self, why: &str) -> ! {
        self.folder.disable_cleanup(true);
        let errors =
            |life| std::fs::read_to_string(self.path(&format!("life-{life:03}.err"))).unwrap_or_default();
        let last: String = (self.lives.saturating_sub(1)..=self.lives)
            .map(|life| format!("-- standard error of life {life}\n{}", errors(life)))
            .collect();
        panic!("{why}\nlives: {}; the stage is kept at {}\n{last}", self.lives, self.folder.path().display());
    }
}
