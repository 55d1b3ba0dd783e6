//! The standard flags of every job, to be flattened into a program's own clap struct. Each flag is a setting of
//! [`SETTINGS`](super::settings::SETTINGS) under another name; values are checked there, so that every layer says the
//! same about the same mistake.

use clap::Args;

use super::settings::SETTINGS;

/// What `--version` says after the program's name, of a program that says nothing else.
pub const VERSION: &str = concat!("(a job of tidegate ", env!("CARGO_PKG_VERSION"), ")");

/// What stands below the flags: every setting, with its default in parentheses.
fn settings_help() -> String {
    let width = SETTINGS.iter().map(|setting| setting.name.len()).max().unwrap_or_default();
    let line = |name: &str, help: &str| format!("\n  {name:width$}  {help}");
    let lines: String = SETTINGS.iter().map(|setting| line(setting.name, setting.help)).collect();
    format!(
        "Settings, for --set NAME=VALUE, tidegate.toml, and the environment (TIDEGATE_CHECKPOINTS_INTERVAL). The command \
         line wins over the environment, that over the file, that over the program, and a flag over --set:{lines}"
    )
}

/// The standard flags of a job.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Job flags", version = VERSION, after_help = settings_help())]
pub struct JobArgs {
    /// Subtasks of each operator
    #[arg(long, value_name = "N")]
    parallelism: Option<String>,
    /// Key groups; fixed by the first checkpoint
    #[arg(long, value_name = "N")]
    max_parallelism: Option<String>,
    /// State backend: memory, filesystem, rocksdb or sled
    #[arg(long, value_name = "BACKEND")]
    state: Option<String>,
    /// Where checkpoints go; without it none are taken
    #[arg(long, value_name = "URL")]
    checkpoints: Option<String>,
    /// Time from one checkpoint to the next, such as 500ms or 10s; off for none
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    interval: Option<String>,
    /// exactly-once or at-least-once
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Restart strategy: none, fixed-delay:3:10s, failure-rate:3:5m:10s, exponential-delay:1s:1.5:1m, or with all values
    /// exponential-delay:1s:1.5:1m:1h:0.1:20
    #[arg(long, value_name = "STRATEGY")]
    restart: Option<String>,
    /// What to start from: auto, latest, none, or the path of a checkpoint or savepoint. Started again with the same
    /// path, the job goes on from its newest checkpoint
    #[arg(long, value_name = "FROM")]
    from: Option<String>,
    /// Begin from the checkpoint or savepoint in --from once more, instead of going on
    #[arg(long)]
    begin_again: bool,
    /// Where REST listens: HOST:PORT, or off
    #[arg(long, value_name = "ADDR|off")]
    rest: Option<String>,
    /// Configuration file; tidegate.toml of the working directory if it is there
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<String>,
    /// Any other setting, as in the configuration file; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(super) set: Vec<String>,
    /// Start although another process holds the job; that one is fenced
    #[arg(long)]
    take_over: bool,
    /// Allow exactly-once sinks although checkpoints die with the process
    #[arg(long)]
    allow_volatile: bool,
    /// Give up transactions that a completed checkpoint left pending
    #[arg(long)]
    abandon_pending: bool,
    /// Start beside output of other lines of history
    #[arg(long)]
    accept_foreign_output: bool,
    /// Drop this operator's state; may be repeated
    #[arg(long, value_name = "UID")]
    allow_dropped_state: Vec<String>,
    /// This source or sink is at another place than before, with all its files; may be repeated
    #[arg(long, value_name = "UID")]
    allow_moved: Vec<String>,
    /// Print the plan and end
    #[arg(long)]
    pub explain: bool,
    /// Print what a start from this checkpoint or savepoint would do with each state, and end
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["explain", "from"])]
    pub check_restore: Option<String>,
}

impl JobArgs {
    /// The settings that were given, by name, with the flag they came from.
    pub(super) fn given(&self) -> Vec<(&'static str, String, &'static str)> {
        let valued = [
            ("parallelism", &self.parallelism, "--parallelism"),
            ("max-parallelism", &self.max_parallelism, "--max-parallelism"),
            ("state.backend", &self.state, "--state"),
            ("checkpoints.url", &self.checkpoints, "--checkpoints"),
            ("checkpoints.interval", &self.interval, "--interval"),
            ("checkpoints.mode", &self.mode, "--mode"),
            ("restart", &self.restart, "--restart"),
            ("from", &self.from, "--from"),
            ("rest", &self.rest, "--rest"),
        ];
        let flags = [
            ("begin-again", self.begin_again, "--begin-again"),
            ("take-over", self.take_over, "--take-over"),
            ("allow-volatile", self.allow_volatile, "--allow-volatile"),
            ("abandon-pending", self.abandon_pending, "--abandon-pending"),
            ("accept-foreign-output", self.accept_foreign_output, "--accept-foreign-output"),
        ];
        let valued = valued.into_iter().filter_map(|(name, value, flag)| Some((name, value.clone()?, flag)));
        let flags = flags
            .into_iter()
            .filter(|(_, set, _)| *set)
            .map(|(name, _, flag)| (name, "true".to_owned(), flag));
        let uids = [
            ("allow-dropped-state", &self.allow_dropped_state, "--allow-dropped-state"),
            ("allow-moved", &self.allow_moved, "--allow-moved"),
        ];
        let uids = uids.into_iter().filter(|(_, uids, _)| !uids.is_empty());
        let uids = uids.map(|(name, uids, flag)| (name, uids.join(","), flag));
        valued.chain(flags).chain(uids).collect()
    }
}
