//! All settings of a job, and the table that gives each its name and its parser.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use checkpoint::{barrier::CheckpointMode, coordinator, restart::RestartStrategy};
use statebackend::{MergePolicy, RunCompression};
use types::{Error, Result, Uid};

use super::{
    names,
    values::{boolean, bytes, count, duration, optional, restart, some_time, store_options},
};

/// The presets of working state and checkpoint storage, under the names that users know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// State in memory, checkpoints in the JobManager's memory: gone with the process.
    Memory,
    /// State in memory, checkpoints at a URL.
    #[default]
    Filesystem,
    /// State in RocksDB on local disk, with decoded cells in front of it; checkpoints at a URL.
    RocksDb,
    /// The same with sled.
    Sled,
    /// The same with a sorted map in memory: what the path through a store is tested with.
    #[cfg(feature = "test-util")]
    SortedMap,
}

impl Backend {
    /// All of them by name, also those that a program was built without: then the error says what to add.
    pub(super) const NAMES: &[(&str, Self)] = &[
        ("memory", Self::Memory),
        ("filesystem", Self::Filesystem),
        ("rocksdb", Self::RocksDb),
        ("sled", Self::Sled),
        #[cfg(feature = "test-util")]
        ("sorted-map", Self::SortedMap),
    ];

    /// The store behind the tables, if there is one: it has the name of the backend.
    #[must_use]
    pub fn store(self) -> Option<&'static str> {
        let (name, _) = Self::NAMES.iter().find(|(_, backend)| *backend == self)?;
        (!matches!(self, Self::Memory | Self::Filesystem)).then_some(name)
    }
}

/// Where REST listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestAddress {
    /// Nowhere.
    Off,
    /// At `HOST:PORT`.
    At(String),
}

/// Everything that can be set, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How many subtasks every operator has that says nothing else. `None`: what the code says.
    pub parallelism: Option<u32>,
    /// The number of key groups. `None`: what the code says.
    pub max_parallelism: Option<u32>,
    /// Working state and checkpoint storage.
    pub backend: Backend,
    /// Where the working state of backends on disk is, in a directory of each process. `None`: where temporary files go.
    pub state_directory: Option<String>,
    /// Bytes of memory that backends on disk may take in this process: cells, blocks and write buffers.
    pub state_memory: usize,
    /// Bytes that copies for local recovery may take on this machine's disk, in `state_directory`. `None`: there are none.
    pub local_recovery: Option<usize>,
    /// Options of the store, by its own names.
    pub state_options: BTreeMap<String, String>,
    /// Where checkpoints go. `None`: no checkpoints.
    pub checkpoint_url: Option<String>,
    /// Bytes that checkpoints in memory may take, all together.
    pub memory_max_size: usize,
    /// When checkpoints are taken, and what happens when they fail.
    pub checkpoints: coordinator::Settings,
    /// Whether `checkpoints.interval` was set: without it a checkpoint URL means every 10 s.
    pub interval_set: bool,
    /// Whether completed checkpoints stay when the job is cancelled.
    pub keep_on_cancel: bool,
    /// Whether completed checkpoints stay when the job fails.
    pub keep_on_failure: bool,
    /// How the blocks of runs are stored.
    pub compression: RunCompression,
    /// What happens after a failure. `None`: exponential delay with checkpoints, none without.
    pub restart: Option<RestartStrategy>,
    /// What to start from: `auto`, `latest`, `none`, or a path.
    pub from: String,
    /// Begin another line of history from the snapshot in `from`, even where one that began from it could go on.
    pub begin_again: bool,
    /// Start although another process holds the job: it is fenced.
    pub take_over: bool,
    /// Allow exactly-once sinks with checkpoints that die with the process.
    pub allow_volatile: bool,
    /// Give up what a completed checkpoint left pending at the sinks, instead of committing it.
    pub abandon_pending: bool,
    /// Accept output of other lines of history beside the new one.
    pub accept_foreign_output: bool,
    /// Operators whose state in the snapshot may be dropped.
    pub allow_dropped_state: BTreeSet<Uid>,
    /// Sources and sinks whose input or output is at another place than the snapshot remembers.
    pub allow_moved: BTreeSet<Uid>,
    /// Where REST listens.
    pub rest: RestAddress,
    /// How many records each source emits per second, all its subtasks together; up to a second's worth is caught up.
    pub source_rate: Option<u32>,
    /// The greatest number of records in a batch.
    pub batch_records: usize,
    /// How long a partial batch waits for more records.
    pub batch_flush: Duration,
    /// Records in one channel at the most.
    pub channel_records: usize,
    /// Bytes in one channel at the most.
    pub channel_bytes: usize,
    /// How often watermarks are made.
    pub watermark_interval: Duration,
    /// Cells drained in one slice of snapshot work.
    pub slice_cells: usize,
    /// How many neighbouring runs of about the same size are merged into one.
    pub merge_fan_in: usize,
    /// How many runs a checkpoint lists of an operator's subtask before it waits for a merge.
    pub max_runs: usize,
    /// From how many bytes on a run that holds all that lived replaces the older ones unmerged.
    pub replace_from: usize,
    /// How long a task that is told to end may stay in a function before its process ends; `None` for ever.
    pub cancellation_timeout: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parallelism: None,
            max_parallelism: None,
            backend: Backend::Filesystem,
            state_directory: None,
            state_memory: 512 << 20,
            local_recovery: None,
            state_options: BTreeMap::new(),
            checkpoint_url: None,
            memory_max_size: 64 << 20,
            checkpoints: coordinator::Settings::default(),
            interval_set: false,
            keep_on_cancel: true,
            keep_on_failure: true,
            compression: RunCompression::Zstd,
            restart: None,
            from: "auto".to_owned(),
            begin_again: false,
            take_over: false,
            allow_volatile: false,
            abandon_pending: false,
            accept_foreign_output: false,
            allow_dropped_state: BTreeSet::new(),
            allow_moved: BTreeSet::new(),
            rest: RestAddress::At("127.0.0.1:8081".to_owned()),
            source_rate: None,
            batch_records: 1024,
            batch_flush: Duration::from_millis(5),
            // With one full batch on its way in, one and a part on its way out: 6,144 records between two ends.
            channel_records: 3 * 1024,
            channel_bytes: 1 << 20,
            watermark_interval: Duration::from_millis(200),
            slice_cells: 256,
            merge_fan_in: 10,
            max_runs: 12,
            replace_from: 1 << 20,
            cancellation_timeout: Some(Duration::from_secs(180)),
        }
    }
}

/// One setting.
pub struct Setting {
    /// Its name in `tidegate.toml` (`section.name`); in the environment `TIDEGATE_SECTION_NAME`.
    pub name: &'static str,
    /// What it is, with unit and default.
    pub help: &'static str,
    /// Takes the text.
    pub set: fn(&mut Settings, &str) -> Result<()>,
}

impl Setting {
    /// What it is and its default, without the rest of its help.
    fn brief(&self) -> String {
        let default = self.help.rfind(" (").map_or("", |at| &self.help[at..]);
        match self.help.split_once(';') {
            Some((first, _)) => format!("{first}{default}"),
            None => self.help.to_owned(),
        }
    }
}

macro_rules! settings {
    ($($name:literal, $help:literal, |$settings:ident, $text:ident| $set:expr;)*) => {
        /// All settings.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            help: $help,
            set: |$settings, $text| { $set; Ok(()) },
        },)*];
    };
}

settings! {
    "parallelism", "subtasks of each operator (1)",
        |settings, text| settings.parallelism = Some(count(text)?);
    "max-parallelism", "key groups; fixed by the first checkpoint (128)",
        |settings, text| settings.max_parallelism = Some(count(text)?);
    "state.backend", "memory, filesystem, rocksdb or sled (filesystem)",
        |settings, text| settings.backend = backend(text)?;
    "state.directory", "where rocksdb and sled keep the working state, each process in a directory of its own, and local recovery its copies; on a disk, and not in memory (TMPDIR, or /var/tmp)",
        |settings, text| settings.state_directory = Some(text.to_owned());
    "state.memory", "bytes that rocksdb and sled may take in memory, the cells in front of them included, but not what changed since the last checkpoint, encoded (512MiB)",
        |settings, text| settings.state_memory = bytes(text)?;
    "state.options", "NAME=VALUE;NAME=VALUE: options of rocksdb or sled by their own names, over good ones (none)",
        |settings, text| settings.state_options = store_options(text)?;
    "state.local-recovery", "bytes of disk for copies of the state that checkpoints hold, so that a restart on this machine reads them instead of the checkpoint store; better twice the size of the state; off for none (off)",
        |settings, text| settings.local_recovery = optional(text, bytes)?;
    "checkpoints.url", "where checkpoints go: a directory or file:///DIR (none: no checkpoints)",
        |settings, text| settings.checkpoint_url = Some(text.to_owned());
    "checkpoints.interval", "from one trigger to the next, e.g. 500ms, 10s; off for none (10s with a URL)",
        |settings, text| { settings.checkpoints.interval = optional(text, some_time)?; settings.interval_set = true };
    "checkpoints.mode", "exactly-once or at-least-once (exactly-once)",
        |settings, text| settings.checkpoints.mode = mode(text)?;
    "checkpoints.timeout", "how long one may take (10m)",
        |settings, text| settings.checkpoints.timeout = some_time(text)?;
    "checkpoints.min-pause", "least time between the end of one and the start of the next (0s)",
        |settings, text| settings.checkpoints.min_pause = duration(text)?;
    "checkpoints.max-concurrent", "how many may be under way (1)",
        |settings, text| settings.checkpoints.max_concurrent = count(text)?;
    "checkpoints.tolerable-failures", "how many may fail in a row (3)",
        |settings, text| settings.checkpoints.tolerable_consecutive_failures = natural(text)?;
    "checkpoints.fail-job", "whether more failures in a row fail the attempt (true)",
        |settings, text| settings.checkpoints.fail_job_on_failed_checkpoint = boolean(text)?;
    "checkpoints.retained", "how many completed ones are kept (3)",
        |settings, text| settings.checkpoints.retained = count(text)?;
    "checkpoints.keep-on-cancel", "whether they stay when the job is cancelled (true)",
        |settings, text| settings.keep_on_cancel = boolean(text)?;
    "checkpoints.keep-on-failure", "whether they stay when the job fails (true)",
        |settings, text| settings.keep_on_failure = boolean(text)?;
    "checkpoints.compression", "zstd or none, for what is written from now on (zstd)",
        |settings, text| settings.compression = compression(text)?;
    "checkpoints.memory-max-size", "bytes that all checkpoints in memory may take (64MiB)",
        |settings, text| settings.memory_max_size = bytes(text)?;
    "restart", "none, fixed-delay[:ATTEMPTS:DELAY], failure-rate[:FAILURES:INTERVAL:DELAY], exponential-delay[:INITIAL:FACTOR:MAX:RESET:JITTER:ATTEMPTS], ATTEMPTS off for no end (exponential-delay:1s:1.5:1m:1h:0.1:off with checkpoints, none without)",
        |settings, text| settings.restart = Some(restart(text)?);
    "from", "auto, latest, none, or the path of a checkpoint or savepoint; a job that began from there goes on (auto)",
        |settings, text| settings.from = text.to_owned();
    "begin-again", "begin from that checkpoint or savepoint once more, instead of going on (false)",
        |settings, text| settings.begin_again = boolean(text)?;
    "take-over", "start although another process holds the job (false)",
        |settings, text| settings.take_over = boolean(text)?;
    "allow-volatile", "allow exactly-once sinks with the memory backend (false)",
        |settings, text| settings.allow_volatile = boolean(text)?;
    "abandon-pending", "give up transactions that a completed checkpoint left pending (false)",
        |settings, text| settings.abandon_pending = boolean(text)?;
    "accept-foreign-output", "start beside output of other lines of history (false)",
        |settings, text| settings.accept_foreign_output = boolean(text)?;
    "allow-dropped-state", "uids, separated by commas, whose state may be dropped",
        |settings, text| settings.allow_dropped_state = uids(text)?;
    "allow-moved", "uids, separated by commas, of sources and sinks whose files are at another place than before",
        |settings, text| settings.allow_moved = uids(text)?;
    "rest", "HOST:PORT, or off (127.0.0.1:8081)",
        |settings, text| settings.rest = rest(text)?;
    "source.records-per-second", "at most so many records of each source per second, all its subtasks together; a subtask with nothing to read leaves its share unused; up to a second's worth is caught up; off for no limit (off)",
        |settings, text| settings.source_rate = optional(text, count)?;
    "batch.records", "records in a batch at the most; fewer where a function takes long for one, since a batch is never divided (1024)",
        |settings, text| settings.batch_records = limited(text, 1024)?;
    "batch.flush", "how long a partial batch waits (5ms)",
        |settings, text| settings.batch_flush = duration(text)?;
    "channel.records", "records in a channel at the most (3072)",
        |settings, text| settings.channel_records = count(text)? as usize;
    "channel.bytes", "bytes in a channel at the most (1MiB)",
        |settings, text| settings.channel_bytes = bytes(text)?;
    "watermark.interval", "how often watermarks are made (200ms)",
        |settings, text| settings.watermark_interval = duration(text)?;
    "snapshot.slice-cells", "changed cells handled at a time between two batches (256)",
        |settings, text| settings.slice_cells = count(text)? as usize;
    "snapshot.merge-fan-in", "runs of about the same size that are merged into one (10)",
        |settings, text| settings.merge_fan_in = limited(text, 1024)?.max(2);
    "snapshot.max-runs", "runs of an operator's subtask that a checkpoint lists at the most: where more would be, it waits for a merge that is under way (12)",
        |settings, text| settings.max_runs = limited(text, 1024)?.max(MergePolicy::LEAST_RUNS);
    "snapshot.replace-from", "bytes from which on a run that holds all that lives replaces the older ones unmerged, and a delta of half of it takes the rest (1MiB)",
        |settings, text| settings.replace_from = bytes(text)?;
    "task.cancellation-timeout", "how long a task that is told to end may stay in one call of a function before its process ends; off for as long as it takes (3m)",
        |settings, text| settings.cancellation_timeout = optional(text, some_time)?;
}

impl Settings {
    /// Sets `name` to `text`, which came from `origin`.
    ///
    /// # Errors
    /// `InvalidJob` naming origin, setting and text, and what may stand there.
    pub fn set(&mut self, name: &str, text: &str, origin: &str) -> Result<()> {
        self.set_shown(name, text, &format!("{text:?}"), origin)
    }

    /// The same for a text that stands in its origin as it is `shown`.
    pub(super) fn set_shown(&mut self, name: &str, text: &str, shown: &str, origin: &str) -> Result<()> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            let advice = names::advice(name);
            return Err(Error::invalid_job(format!("{origin}: unknown setting {name:?}, {advice}")));
        };
        (setting.set)(self, text).map_err(|error| {
            let (said, meaning) = (error.message(), setting.brief());
            Error::invalid_job(format!("{origin}: {name} = {shown}: {said}; {name} is: {meaning}"))
        })
    }

    /// Fills in what follows from other settings, and checks all of them together.
    ///
    /// # Errors
    /// `InvalidJob` naming the first setting that makes no sense.
    pub fn checked(mut self) -> Result<Self> {
        if self.backend == Backend::Memory
            && let Some(url) = &self.checkpoint_url
        {
            return Err(Error::invalid_job(format!(
                "the memory backend keeps checkpoints in memory and does not write to {url}: leave out the URL, or \
                 use --state filesystem"
            )));
        }
        if !self.interval_set && self.takes_checkpoints() {
            self.checkpoints.interval = Some(Duration::from_secs(10));
        }
        if !self.takes_checkpoints() && self.checkpoints.interval.is_some() {
            return Err(Error::invalid_job(
                "checkpoints.interval is set but there is no place for checkpoints: add --checkpoints DIR",
            ));
        }
        if let Some(name) = self.backend.store()
            && self.checkpoints.interval.is_none()
        {
            return Err(Error::invalid_job(format!(
                "--state {name} keeps what changes in memory until a checkpoint takes it, and the job takes none: add \
                 --checkpoints DIR, and an --interval"
            )));
        }
        if self.backend.store().is_none() && !self.state_options.is_empty() {
            return Err(Error::invalid_job(
                "state.options are those of rocksdb or sled, and the state of this job is in neither: leave them out, or \
                 take them back with --set state.options=",
            ));
        }
        self.checkpoints.check()?;
        if let Some(restart) = &self.restart {
            restart.check()?;
        }
        Ok(self)
    }

    /// Whether there is a place for checkpoints.
    #[must_use]
    pub fn takes_checkpoints(&self) -> bool {
        self.checkpoint_url.is_some() || self.backend == Backend::Memory
    }

    /// Whether checkpoints die with the process.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.checkpoint_url.as_deref().is_some_and(env::is_volatile) || self.backend == Backend::Memory
    }

    /// What happens after a failure.
    #[must_use]
    pub fn restart_strategy(&self) -> RestartStrategy {
        self.restart.unwrap_or_else(|| RestartStrategy::default_with(self.takes_checkpoints()))
    }
}

fn backend(text: &str) -> Result<Backend> {
    let found = Backend::NAMES.iter().find(|(name, _)| *name == text);
    found.map(|(_, backend)| *backend).ok_or_else(|| Error::invalid_job("there is no such backend"))
}

fn compression(text: &str) -> Result<RunCompression> {
    match text {
        "zstd" => Ok(RunCompression::Zstd),
        "none" => Ok(RunCompression::None),
        _ => Err(Error::invalid_job("there is no such compression")),
    }
}

fn mode(text: &str) -> Result<CheckpointMode> {
    match text {
        "exactly-once" => Ok(CheckpointMode::ExactlyOnce),
        "at-least-once" => Ok(CheckpointMode::AtLeastOnce),
        _ => Err(Error::invalid_job("there is no such mode")),
    }
}

fn rest(text: &str) -> Result<RestAddress> {
    match text.rsplit_once(':') {
        _ if text == "off" => Ok(RestAddress::Off),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(RestAddress::At(text.to_owned()))
        }
        _ => Err(Error::invalid_job("expected HOST:PORT with a port up to 65535, or off")),
    }
}

fn natural(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::invalid_job("expected a number"))
}

fn limited(text: &str, limit: u32) -> Result<usize> {
    match count(text)? {
        number if number <= limit => Ok(number as usize),
        _ => Err(Error::invalid_job(format!("expected a number up to {limit}"))),
    }
}

fn uids(text: &str) -> Result<BTreeSet<Uid>> {
    text.split(',').map(str::trim).filter(|uid| !uid.is_empty()).map(Uid::new).collect()
}
