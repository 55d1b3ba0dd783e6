//! What a job's history says, read from outside while the job lives or after it was killed.

use std::{io, path::Path};

use checkpoint::history::Records;
use env::Env;
use tokio::runtime::Runtime;

/// The newest record of a history; the default stands for a history that has not begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// The last attempt's number, none before the first.
    pub attempt: Option<u64>,
    /// The newest checkpoint that was completed; 0 before the first.
    pub checkpoint: u64,
    /// The newest checkpoint that the last attempt itself completed, if it has completed one.
    pub of_last_attempt: Option<u64>,
    /// Whether the hint names this record, so that its loss would be noticed.
    pub is_hinted: bool,
    /// How the last attempt ended, if it did by itself.
    pub end: Option<String>,
}

/// Reads the history in one checkpoint directory.
pub struct HistoryReader {
    runtime: Runtime,
    url: String,
}

impl HistoryReader {
    /// A reader of the checkpoint directory `folder`.
    ///
    /// # Errors
    /// What the operating system says about a new runtime.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, url: folder.display().to_string() })
    }

    /// The newest record.
    ///
    /// # Errors
    /// `Corrupt` if a record is damaged: a kill must never do that.
    pub fn newest(&self) -> types::Result<Newest> {
        if !Path::new(&self.url).exists() {
            return Ok(Newest::default());
        }
        let found = self.runtime.block_on(async {
            let env = Env::real();
            let records = Records::new(&env, env.open_store(&self.url)?);
            // The hint first: it may only be older than the record.
            let hint = records.hint().await?.ok();
            Ok::<_, types::Error>(records.newest().await?.map(|record| (record, hint)))
        })?;
        Ok(found.map_or_else(Newest::default, |(record, hint)| {
            let standing = &record.standing;
            let own = standing.completed.iter().rfind(|completed| completed.attempt == standing.attempt.id);
            Newest {
                attempt: Some(standing.attempt.id.0),
                checkpoint: standing.completed.last().map_or(0, |completed| completed.checkpoint.0),
                of_last_attempt: own.map(|completed| completed.checkpoint.0),
                is_hinted: hint == Some(record.number),
                end: standing.end.as_ref().map(|end| end.kind.name().to_owned()),
            }
        }))
    }
}
