//! The scene of a killing: a text, an output directory, a checkpoint directory, and what is known of them. All lives of
//! one job happen in one scene, and the scene says in the end whether the output is right.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Life, Newest, Seeded, Stage, Watch,
    damage::{self, Image},
    stage::BACKENDS,
    words, workload,
};

/// How long a life may take to end by itself, many times what it needs.
const END_LIMIT: Duration = Duration::from_secs(180);

/// A word count's surroundings, in a temporary directory that goes with it.
pub struct Scene {
    stage: Stage,
    expected: BTreeMap<String, u64>,
    watch: Watch,
}

impl Scene {
    /// A scene with a text of about `bytes` in `files` files, for `program`, a word count.
    ///
    /// # Panics
    /// If the machine has no room for it.
    #[must_use]
    pub fn new(program: &Path, files: u64, bytes: u64, seeded: &mut Seeded) -> Self {
        let stage = Stage::new(program);
        let input = stage.path("input");
        workload::write_texts(&input, files, bytes, seeded).expect("the text is written");
        Self {
            expected: words::count(&input).expect("the text is counted"),
            watch: Watch::over(&stage.path("output")),
            stage,
        }
    }

    /// The same with the checkpoints at a URL, which programs reach with these environment variables. What its history says
    /// is then for a command to tell: [`history`](Self::history) reads directories.
    #[must_use]
    pub fn with_checkpoints_at(mut self, url: &str, variables: Vec<(String, String)>) -> Self {
        self.stage.put_checkpoints_at(url, variables);
        self
    }

    /// How many lives so far have read state from copies that an earlier one had left.
    #[must_use]
    pub fn lives_from_copies(&self) -> usize {
        self.stage.lives_from_copies()
    }

    /// What it has in common with those of other jobs.
    pub fn stage_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }

    /// A path inside the scene.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.stage.path(name)
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
        self.command_on(BACKENDS[self.stage.lives() as usize % BACKENDS.len()], parallelism, rest)
    }

    /// The same, with this backend.
    #[must_use]
    pub fn command_on(&self, backend: &str, parallelism: u64, rest: &str) -> Command {
        let mut command = self.stage.command(backend, parallelism, rest);
        command.arg("--input").arg(self.path("input"));
        command.arg("--output").arg(self.path("output"));
        command
    }

    /// As [`command`](Self::command), reading at most so many words a second: a life that is to be ended from outside must not
    /// come to its end before, however fast the machine is.
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
        self.stage.start(command)
    }

    /// What the history says now.
    ///
    /// # Panics
    /// If it is damaged: a kill must not do that.
    #[must_use]
    pub fn history(&mut self) -> Newest {
        self.stage.history()
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
        let mut command = self.command(parallelism);
        self.finish_by(&mut command);
    }

    /// The same by this command. What it said.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn finish_by(&mut self, command: &mut Command) -> String {
        match self.start(command).wait(END_LIMIT) {
            Ok(Some(ended)) if ended.status.success() => {
                self.check();
                ended.output
            }
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

    /// Fails the test with everything that helps to see why; the directory stays.
    ///
    /// # Panics
    /// Always.
    pub fn fail(&mut self, why: &str) -> ! {
        self.stage.fail(why)
    }
}
