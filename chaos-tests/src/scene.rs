//! The scene of a killing: a text, an output directory, a checkpoint directory, and what is known of them. All lives of
//! one job happen in one scene, and the scene says in the end whether the output is right.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    HistoryReader, Life, Newest, Seeded, Watch,
    damage::{self, Image},
    words, workload,
};

/// How long a life may take to end by itself, many times what it needs.
const END_LIMIT: Duration = Duration::from_secs(60);
/// The backends that a job's lives take in turn: each restores what another one wrote.
const BACKENDS: &[&str] = &[
    "filesystem",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    #[cfg(feature = "sled")]
    "sled",
];

/// How many copies for local recovery its lives may keep, in turn: enough, enough again, too few, none. What one life has left is
/// there for those after it.
const LOCAL_RECOVERY: [&str; 4] = ["16MiB", "16MiB", "64KiB", "off"];

/// A job's surroundings, in a temporary directory that goes with it.
pub struct Scene {
    folder: TempDir,
    program: PathBuf,
    expected: BTreeMap<String, u64>,
    watch: Watch,
    history: HistoryReader,
    lives: u32,
    /// Where the checkpoints are, and the variables with which a program finds that place.
    checkpoints: String,
    variables: Vec<(String, String)>,
}

impl Scene {
    /// A scene with a text of about `bytes` in `files` files, for `program`, a word count.
    ///
    /// # Panics
    /// If the machine has no room for it.
    #[must_use]
    pub fn new(program: &Path, files: u64, bytes: u64, seeded: &mut Seeded) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let input = folder.path().join("input");
        workload::write_texts(&input, files, bytes, seeded).expect("the text is written");
        let checkpoints = folder.path().join("checkpoints");
        let history = HistoryReader::new(&checkpoints).expect("a runtime");
        Self {
            checkpoints: checkpoints.display().to_string(),
            variables: Vec::new(),
            program: program.to_owned(),
            expected: words::count(&input).expect("the text is counted"),
            watch: Watch::over(&folder.path().join("output")),
            history,
            folder,
            lives: 0,
        }
    }

    /// The same with the checkpoints at a URL, which programs reach with these environment variables. What its history says
    /// is then for a command to tell: [`history`](Self::history) reads directories.
    #[must_use]
    pub fn with_checkpoints_at(mut self, url: &str, variables: Vec<(String, String)>) -> Self {
        url.clone_into(&mut self.checkpoints);
        self.variables = variables;
        self
    }

    /// A path inside the scene.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that starts the job; the same flags each time but for the parallelism, and the backend, which is another
    /// one in each life.
    #[must_use]
    pub fn command(&self, parallelism: u64) -> Command {
        self.command_at(parallelism, "off")
    }

    /// The same, with REST at an address.
    #[must_use]
    pub fn command_at(&self, parallelism: u64, rest: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--input").arg(self.path("input"));
        command.arg("--output").arg(self.path("output"));
        command.arg("--checkpoints").arg(&self.checkpoints).envs(self.variables.iter().cloned());
        command.args(["--interval", "50ms", "--rest", rest, "--parallelism", &parallelism.to_string()]);
        // Little memory, so that cells leave for the stores all the time.
        let backend = BACKENDS[self.lives as usize % BACKENDS.len()];
        command.args(["--state", backend, "--set", "state.memory=64KiB"]);
        command.arg("--set").arg(format!("state.directory={}", self.path("state").display()));
        let copies = LOCAL_RECOVERY[self.lives as usize % LOCAL_RECOVERY.len()];
        command.args(["--set", &format!("state.local-recovery={copies}")]);
        // Runs are merged and files are collected as often as can be.
        command.args(["--set", "snapshot.merge-fan-in=2", "--set", "checkpoints.retained=2"]);
        command
    }

    /// The same, reading at most so many words a second: a life that is to be ended from outside must not come to its end
    /// before, however fast the machine is.
    #[must_use]
    pub fn paced_command(&self, parallelism: u64, words_per_second: u64) -> Command {
        let mut command = self.command(parallelism);
        command.args(["--set", &format!("source.records-per-second={words_per_second}")]);
        command
    }

    /// All words of the text.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.expected.keys().cloned().collect()
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

    /// Holds the published files to what is promised at every moment.
    ///
    /// # Panics
    /// With the broken promise.
    pub fn look(&mut self) {
        if let Err(broken) = self.watch.look() {
            self.fail(&broken);
        }
    }

    /// The files of one of its directories.
    ///
    /// # Panics
    /// If they cannot be read.
    #[must_use]
    pub fn image(&self, name: &str) -> Image {
        damage::read_image(&self.path(name)).expect("the directory is read")
    }

    /// Puts `image` in the place of one of its directories, and forgets what was seen of the output.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put_image(&mut self, name: &str, image: &Image) {
        damage::write_image(&self.path(name), image).expect("the directory is written");
        self.watch = Watch::over(&self.path("output"));
    }

    /// Lets the job come to its end, if it has not, and compares the output with the right counts.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn finish(&mut self, parallelism: u64) {
        let life = self.start(&mut self.command(parallelism));
        match life.wait(END_LIMIT) {
            Ok(Some(ended)) if ended.status.success() => self.check(),
            Ok(Some(ended)) => self.fail(&format!("the last life ended with {}", ended.status)),
            Ok(None) => self.fail(&format!("the last life did not end within {END_LIMIT:?}")),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Compares the whole output with the right counts.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn check(&mut self) {
        if let Err(broken) = self.watch.look_again().and_then(|()| self.watch.matches(&self.expected)) {
            self.fail(&broken);
        }
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
        panic!("{why}\nlives: {}; the scene is kept at {}\n{last}", self.lives, self.folder.path().display());
    }
}
