//! Output files on their way to disk: the task encodes into one buffer while the one before it is being written.

use std::{mem, sync::Arc};

use env::{Env, Monotonic, WriteFile};
use types::{DigestBuilder, Error, Result};

use super::{
    naming::PartName,
    output_dir::{OutputDir, PreparedFile},
};
use crate::background::Background;

/// Bytes that are encoded before they are handed to the disk: large enough that a hand-over costs nothing beside the
/// copy, small enough that what a barrier leaves to be written is little.
const BUFFER: usize = 1 << 20;

/// The files of one transaction, sealed by the writer, not yet whole on disk.
pub struct SealedParts {
    pub(super) parts: Vec<Part>,
}

/// A file in `.pending` and what was written into it.
struct OpenFile {
    /// `None` once the file is whole and durable: a transaction may have many.
    file: Option<Box<dyn WriteFile>>,
    len: u64,
    digest: Box<DigestBuilder>,
}

enum State {
    /// No buffer has been full yet: there is no file.
    Unborn,
    Written(OpenFile),
    /// A buffer is being written; comes back empty for use again.
    Writing(Background<(OpenFile, Vec<u8>)>),
    /// A write failed. The file is not touched again; the next sweep removes it.
    Failed,
}

/// One output file, from its first byte to its preparation.
pub(super) struct Part {
    env: Env,
    dir: Arc<OutputDir>,
    /// Its name until it is prepared.
    name: String,
    state: State,
    /// What is encoded and not yet handed over.
    pub(super) buffer: Vec<u8>,
    handed_over: u64,
    /// When it was begun.
    pub(super) begun: Monotonic,
}

impl Part {
    pub(super) fn new(env: &Env, dir: &Arc<OutputDir>, name: String) -> Self {
        Self {
            env: env.clone(),
            dir: Arc::clone(dir),
            name,
            state: State::Unborn,
            buffer: Vec::new(),
            handed_over: 0,
            begun: env.now(),
        }
    }

    /// All bytes encoded so far.
    pub(super) fn len(&self) -> u64 {
        self.handed_over + self.buffer.len() as u64
    }

    /// How long the buffer may become before it is to be handed over, in a file that ends at `roll_bytes`.
    pub(super) fn buffer_limit(&self, roll_bytes: u64) -> usize {
        let left = roll_bytes.saturating_sub(self.handed_over);
        usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER)
    }

    /// Hands the buffer to the disk, once the one before it is written. With `last`, the file is made durable too and
    /// closed, ahead of its preparation.
    pub(super) async fn hand_over(&mut self, last: bool) -> Result<()> {
        let (file, spare) = self.settle().await?;
        let buffer = mem::replace(&mut self.buffer, spare);
        self.handed_over += buffer.len() as u64;
        let (dir, name) = (Arc::clone(&self.dir), self.name.clone());
        self.state = State::Writing(Background::start(&self.env, "file sink write", move || {
            write(&dir, &name, file, buffer, last)
        }));
        Ok(())
    }

    /// Waits for the write that is under way.
    pub(super) async fn written(&mut self) -> Result<()> {
        let (file, _) = self.settle().await?;
        self.state = file.map_or(State::Unborn, State::Written);
        Ok(())
    }

    /// Takes the file out, once nothing is being written. The part is failed until its next state is set.
    async fn settle(&mut self) -> Result<(Option<OpenFile>, Vec<u8>)> {
        match mem::replace(&mut self.state, State::Failed) {
            State::Unborn => Ok((None, Vec::new())),
            State::Written(file) => Ok((Some(file), Vec::new())),
            State::Writing(writing) => writing.await.map(|(file, spare)| (Some(file), spare)),
            State::Failed => {
                let place = self.dir.pending_place(&self.name);
                Err(Error::unavailable(format!("an earlier write of {place} failed")))
            }
        }
    }

    /// The part once nothing is being written, so that the rest can be done in one go.
    pub(super) async fn finish_writing(mut self) -> Result<UnfinishedPart> {
        let (file, _) = self.settle().await?;
        Ok(UnfinishedPart { name: self.name, file, rest: self.buffer })
    }
}

/// A part of which nothing is under way.
pub(super) struct UnfinishedPart {
    name: String,
    file: Option<OpenFile>,
    rest: Vec<u8>,
}

impl UnfinishedPart {
    /// Writes the rest, makes the bytes durable and gives the file the name under which it waits. Blocks.
    pub(super) fn prepare(self, dir: &OutputDir, name: &PartName) -> Result<PreparedFile> {
        let (whole, _) = write(dir, &self.name, self.file, self.rest, true)?;
        dir.promote(&self.name, name)?;
        Ok(PreparedFile { len: whole.len, digest: whole.digest.finish() })
    }
}

/// Appends `bytes` to the file, which is made if need be; with `last`, makes it durable and closes it.
fn write(
    dir: &OutputDir,
    name: &str,
    file: Option<OpenFile>,
    mut bytes: Vec<u8>,
    last: bool,
) -> Result<(OpenFile, Vec<u8>)> {
    let failed = |error| {
        let place = format!("cannot write {}: check space and disk", dir.pending_place(name));
        Error::io(place, error)
    };
    let mut open = match file {
        Some(file) => file,
        None => OpenFile { file: Some(dir.create_open(name)?), len: 0, digest: Box::default() },
    };
    if let Some(file) = &mut open.file {
        file.write_all(&bytes).map_err(failed)?;
        open.digest.update(&bytes);
        open.len += bytes.len() as u64;
        if last {
            file.sync_all().map_err(failed)?;
            open.file = None;
        }
    } else if !bytes.is_empty() {
        return Err(Error::internal(format!("{} was closed with bytes left", dir.pending_place(name))));
    }
    bytes.clear();
    Ok((open, bytes))
}
