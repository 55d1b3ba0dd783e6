//! The kits' stand-in for the job history: numbered files, each whole and durable, or not there.

use std::{
    io,
    path::{Path, PathBuf},
};

use engine::api::sink::TransactionId;
use env::{Env, Files};
use serde::{Deserialize, Serialize};
use types::{Bincode, Codec, Error, ErrorKind, Result};

/// A transaction as a checkpoint stores it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored<P> {
    pub(super) id: TransactionId,
    pub(super) prepared: P,
}

/// One record of the history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Entry<P> {
    Started,
    Completed { checkpoint: u64, positions: Vec<u64>, transactions: Vec<Stored<P>> },
    Confirmed { checkpoint: u64 },
    Revoked { checkpoint: u64 },
}

/// A completed checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Completed<P> {
    pub(super) checkpoint: u64,
    /// For each writer, how many of its records come before the barrier.
    pub(super) positions: Vec<u64>,
    pub(super) transactions: Vec<Stored<P>>,
    pub(super) confirmed: bool,
}

/// What the history says.
pub(super) struct Standing<P> {
    pub(super) entries: u64,
    pub(super) attempts: u64,
    /// The greatest number a checkpoint ever had.
    pub(super) last_number: u64,
    /// Completed checkpoints that still hold, oldest first.
    pub(super) completed: Vec<Completed<P>>,
    /// A revoked checkpoint, if it is the last record but for starts: its revocation may be unfinished.
    pub(super) revoked: Option<Completed<P>>,
}

pub(super) struct Log<'a> {
    env: &'a Env,
    dir: &'a Path,
}

impl<'a> Log<'a> {
    /// The log in `dir`; it may not be there yet.
    pub(super) fn at(env: &'a Env, dir: &'a Path) -> Self {
        Self { env, dir }
    }

    /// Makes the directory, durably.
    pub(super) fn make(&self) -> Result<()> {
        let (files, dir) = (self.env.files(), self.dir);
        let make = || {
            files.create_dir_all(dir)?;
            for above in files.canonical(dir)?.ancestors() {
                match files.sync_dir(above) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    other => other?,
                }
            }
            Ok(())
        };
        // Nothing that was tried again after a failed sync could be believed.
        make().map_err(|error| Error::io("the log", error).with_kind(ErrorKind::Lost))
    }

    fn entry(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    pub(super) fn append<P: Serialize>(&self, number: u64, entry: &Entry<P>) -> Result<()> {
        let mut bytes = Vec::new();
        Bincode::encode(entry, &mut bytes)?;
        let created = self.create(&*self.env.files(), number, &bytes);
        created.map_err(|error| Error::io("the log", error).with_kind(ErrorKind::Lost))
    }

    fn create(&self, files: &dyn Files, number: u64, bytes: &[u8]) -> io::Result<()> {
        let staged = self.dir.join("staged");
        if files.metadata(&staged)?.is_some() {
            files.remove_file(&staged)?;
        }
        let mut file = files.create_new(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        files.rename_new(&staged, &self.entry(number))?;
        files.sync_dir(self.dir)
    }

    pub(super) fn read<P: serde::de::DeserializeOwned>(&self) -> Result<Standing<P>> {
        let mut standing =
            Standing { entries: 0, attempts: 0, last_number: 0, completed: Vec::new(), revoked: None };
        while let Some(bytes) = self.bytes(standing.entries).map_err(|error| Error::io("the log", error))? {
            standing.add(Bincode::decode(&bytes)?);
        }
        Ok(standing)
    }

    fn bytes(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.env.files().open(&self.entry(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
        file.read_full(0, &mut bytes)?;
        Ok(Some(bytes))
    }
}

impl<P> Standing<P> {
    pub(super) fn add(&mut self, entry: Entry<P>) {
        self.entries += 1;
        match entry {
            Entry::Started => self.attempts += 1,
            Entry::Completed { checkpoint, positions, transactions } => {
                self.revoked = None;
                self.last_number = checkpoint;
                self.completed.push(Completed { checkpoint, positions, transactions, confirmed: false });
            }
            Entry::Confirmed { checkpoint } => {
                for completed in self.completed.iter_mut().filter(|it| it.checkpoint <= checkpoint) {
                    completed.confirmed = true;
                }
            }
            Entry::Revoked { checkpoint } => {
                self.revoked = self.completed.pop_if(|last| last.checkpoint == checkpoint);
            }
        }
    }

    pub(super) fn last(&self) -> Option<&Completed<P>> {
        self.completed.last()
    }
}
