//! [`FileSource`]: what is to be read and how; [`super::discover`] finds it, [`FileReader`] reads it.

use std::{marker::PhantomData, path::Path};

use engine::api::source::{Boundedness, Source, SourceContext};
use env::Env;
use types::{Error, Result};

use super::{
    discover,
    reader::{FileReader, LineOptions, LineOutput},
    split::FileSplit,
};

/// The longest split by default, in bytes.
const LONGEST_SPLIT: u64 = 64 << 20;
/// The shortest split that is made only to keep all subtasks busy, in bytes.
const SHORTEST_SPLIT: u64 = 1 << 20;
/// How many splits each subtask gets if the input allows it, so that none is busy long after the others.
const SPLITS_PER_SUBTASK: u64 = 4;

/// Reads the lines of text files: of one file, of all files under a directory, or of those that a pattern matches.
///
/// A directory is read with all below it, names that begin with `.` or `_` left out. A pattern may hold `*`, `?`,
/// `[a-z]`, and `**` for any number of directories; a path that exists is taken as it is. Files are divided into ranges of
/// bytes that are read in parallel; a line belongs to the range in which it begins. Lines end with `\n` or `\r\n`, which
/// are not part of the record; the last one may lack it.
///
/// **Guarantee:** exactly once. The source is bounded: it reads what the files held when the job first started, up to
/// their length at that time, also after failures and restarts. A file that is missing or shorter than that, or whose
/// last 64 KiB before the position have changed, is an error that names it. So is another path than the one that the
/// job first read, unless the user says that the files have moved there; how it is written does not matter.
pub struct FileSource<T, F = fn(&str, &mut LineOutput<'_, '_, T>) -> Result<()>> {
    path: String,
    parse: F,
    split_bytes: Option<u64>,
    options: LineOptions,
    records: PhantomData<fn() -> T>,
}

impl FileSource<String> {
    /// Each line as a record.
    #[must_use]
    pub fn lines(path: impl Into<String>) -> Self {
        Self::lines_with(path, |line, out| {
            out.add_bytes(line.len());
            out.emit(line.to_owned());
            Ok(())
        })
    }
}

impl<T, F> FileSource<T, F>
where
    F: Fn(&str, &mut LineOutput<'_, '_, T>) -> Result<()>,
{
    /// The records that `parse` makes of each line, none or many, without a copy of the line.
    ///
    /// `parse` must make the same records of the same line every time: after a failure in the middle of a line, the
    /// ones already emitted are skipped by number.
    #[must_use]
    pub fn lines_with(path: impl Into<String>, parse: F) -> Self {
        Self {
            path: path.into(),
            parse,
            split_bytes: None,
            options: LineOptions::default(),
            records: PhantomData,
        }
    }

    /// The greatest length of a split in bytes. By default 64 MiB, and less for little input, so that each subtask has
    /// four splits of at least 1 MiB.
    #[must_use]
    pub fn split_bytes(self, bytes: u64) -> Self {
        Self { split_bytes: Some(bytes), ..self }
    }

    /// The greatest length of a line in bytes, 1 MiB by default; a longer one is an error.
    #[must_use]
    pub fn max_line_bytes(self, bytes: usize) -> Self {
        Self { options: LineOptions { max_line: bytes, ..self.options }, ..self }
    }

    /// Replaces bytes that are not UTF-8 by U+FFFD, instead of failing.
    #[must_use]
    pub fn lossy(self) -> Self {
        Self { options: LineOptions { lossy: true, ..self.options }, ..self }
    }

    fn split_size(&self, total: u64, parallelism: u32) -> u64 {
        self.split_bytes.unwrap_or_else(|| {
            let fair = total.div_ceil(SPLITS_PER_SUBTASK * u64::from(parallelism.max(1)));
            fair.clamp(SHORTEST_SPLIT, LONGEST_SPLIT)
        })
    }
}

impl<T, F: Clone> Clone for FileSource<T, F> {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), parse: self.parse.clone(), records: PhantomData, ..*self }
    }
}

impl<T, F> Source for FileSource<T, F>
where
    T: Send + 'static,
    F: Fn(&str, &mut LineOutput<'_, '_, T>) -> Result<()> + Clone + Send + Sync + 'static,
{
    type Out = T;
    type Split = FileSplit;
    type Reader = FileReader<T, F>;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn validate(&self) -> Result<()> {
        discover::check(&self.path)?;
        if self.split_bytes == Some(0) {
            return Err(Error::invalid_job("a split of 0 bytes holds nothing: give split_bytes 1 or more"));
        }
        if self.options.max_line == 0 {
            return Err(Error::invalid_job(
                "no line fits into 0 bytes: max_line_bytes (--max-line-bytes if the program has that flag) \
                 must be 1 or more",
            ));
        }
        Ok(())
    }

    async fn place(&self, env: &Env) -> Result<Option<String>> {
        let (files, path) = (env.files(), self.path.clone());
        env.blocking("file source place", move || discover::place(&*files, &path)).await?.map(Some)
    }

    fn reads(&self, place: &str, path: &Path) -> bool {
        discover::reads(place, path)
    }

    fn moved(&self, split: FileSplit, from: &str, to: &str) -> Result<FileSplit> {
        Ok(FileSplit { path: discover::moved(&split.path, from, to)?, ..split })
    }

    async fn discover(&self, context: &SourceContext) -> Result<Vec<FileSplit>> {
        let (files, path) = (context.env.files(), self.path.clone());
        let found = context.env.blocking("file discovery", move || discover::find(&*files, &path)).await??;
        let total = found.iter().map(|file| file.len).fold(0, u64::saturating_add);
        let size = self.split_size(total, context.parallelism);
        Ok(found.iter().flat_map(|file| FileSplit::divide(&file.path, file.len, size)).collect())
    }

    async fn open(&self, split: FileSplit, context: &SourceContext) -> Result<Self::Reader> {
        FileReader::open(&context.env, split, self.parse.clone(), self.options).await
    }
}
