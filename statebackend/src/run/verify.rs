//! Checking a run file without restoring it: every byte of it, and with `deep` every entry in it.

use std::ops::Range;

use env::{Env, Store};
use types::{DigestBuilder, Error, Result, Run, ShapedValue};

use super::{
    block::Home,
    entry::{Entry, EntryKind, decode},
    footer::{HEADER_LEN, Totals},
    list_chunk::{elements, epoch_of},
    reader::{PlainBlock, RunReader, Window, at},
    schema::Schema,
    sort::place,
};
use crate::declare::{StateKind, StateSpec};

/// What was checked of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Bytes of the file.
    pub bytes: u64,
    /// Blocks whose checksums match.
    pub blocks: u64,
    /// Entries that were decoded and are in order.
    pub entries: u64,
}

/// Checks length, identity, all checksums and the digest of a run; with `deep` also that blocks can be decompressed, and that
/// entries are sorted, counted rightly, and of the shapes that the schema says.
///
/// # Errors
/// `Corrupt` naming the file, the offset and what is wrong there. Errors of the store as they are.
pub async fn verify_run(env: &Env, store: &dyn Store, run: &Run, deep: bool) -> Result<VerifyReport> {
    verify_file(env, store, &[run], deep, &|_| {}).await
}

/// As [`verify_run`], for all uses of one file at once: after a change of parallelism several subtasks use the parts of one.
/// Its bytes are read once. `progress` is called with the number of bytes that were checked since its last call.
///
/// # Errors
/// As [`verify_run`].
pub async fn verify_file(
    env: &Env,
    store: &dyn Store,
    uses: &[&Run],
    deep: bool,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VerifyReport> {
    let Some((run, others)) = uses.split_first() else {
        return Err(Error::internal("a file without a use is to be verified"));
    };
    let path = &run.file.path;
    for other in others {
        if other.file != run.file {
            let (one, other) = (&run.file, &other.file);
            let message = format!(
                "manifests tell two files of it: {} bytes, digest {}, and {} bytes, digest {}",
                one.len, one.digest, other.len, other.digest
            );
            return Err(at(path, 0)(Error::corrupt(message)));
        }
        RunReader::open(store, other).await?;
    }
    let reader = RunReader::open(store, run).await?;
    let mut check = Check::new(&reader.schema, deep);
    check.digest.update(&reader.bytes(store, 0..HEADER_LEN).await?);
    let mut windows = reader.windows(reader.footer.groups).into_iter();
    let mut window = reader.read_next(store, &mut windows).await?;
    // One window is checked while the next one is read.
    while let Some(this) = window {
        let len = this.bytes().len() as u64;
        let checked = env.blocking("verify", move || check.window(this));
        let (checked, next) = futures::join!(checked, reader.read_next(store, &mut windows));
        (check, window) = (checked??, next?);
        progress(len);
    }
    let sections = reader.footer.schema.offset..reader.footer.file_len();
    check.digest.update(&reader.bytes(store, sections.clone()).await?);
    progress(HEADER_LEN + sections.end - sections.start);
    let found = check.digest.finish();
    if found != run.file.digest {
        let message = format!("the file's digest is {found}, the manifest says {}", run.file.digest);
        return Err(at(path, 0)(Error::corrupt(message)));
    }
    if deep {
        check.counts(&reader.schema).map_err(at(path, reader.footer.schema.offset))?;
    }
    Ok(VerifyReport { bytes: reader.footer.file_len(), ..check.report })
}

/// Reads, checks and decompresses the blocks that hold key groups of the run, and throws them away: what no restore can do
/// without, to be compared with. `bytes` of the report are those of these blocks.
///
/// # Errors
/// As [`verify_run`].
pub async fn decompress_run(env: &Env, store: &dyn Store, run: &Run) -> Result<VerifyReport> {
    let reader = RunReader::open(store, run).await?;
    let mut report = VerifyReport::default();
    let mut windows = reader.windows(run.groups).into_iter();
    let mut window = reader.read_next(store, &mut windows).await?;
    while let Some(this) = window {
        report.bytes += this.bytes().len() as u64;
        let blocks = move || this.into_blocks().map(|block| block.map(|_| 1)).sum::<Result<u64>>();
        let (blocks, next) =
            futures::join!(env.blocking("decompress", blocks), reader.read_next(store, &mut windows));
        report.blocks += blocks??;
        window = next?;
    }
    Ok(report)
}

struct Check {
    deep: bool,
    digest: DigestBuilder,
    report: VerifyReport,
    schema: Schema,
    found: Vec<Totals>,
    last: Option<Last>,
}

/// The entry before, in the block where it stands: it may be of any length, and is not copied.
struct Last {
    home: Home,
    plain: Vec<u8>,
    entry: Range<usize>,
}

impl Check {
    fn new(schema: &Schema, deep: bool) -> Self {
        Self {
            deep,
            digest: DigestBuilder::default(),
            report: VerifyReport::default(),
            schema: schema.clone(),
            found: vec![Totals::default(); schema.states.len()],
            last: None,
        }
    }

    fn window(mut self, window: Window) -> Result<Self> {
        self.digest.update(window.bytes());
        if !self.deep {
            self.report.blocks += window.check()?;
            return Ok(self);
        }
        for block in window.into_blocks() {
            self.report.blocks += 1;
            self.block(block?)?;
        }
        Ok(self)
    }

    fn block(&mut self, mut block: PlainBlock) -> Result<()> {
        let mut last: Option<(Home, Range<usize>)> = None;
        loop {
            let located = block.walk.next(&block.plain, block.bounds);
            let checked = located.and_then(|located| {
                let Some((home, entry, bytes)) = located else { return Ok(None) };
                let before = match (&last, &self.last) {
                    (Some((home, range)), _) => Some((*home, &block.plain[range.clone()])),
                    (None, Some(last)) => Some((last.home, &last.plain[last.entry.clone()])),
                    (None, None) => None,
                };
                check_order(before, home, &entry)?;
                self.count(home, &entry, bytes.len())?;
                Ok(Some((home, bytes.len())))
            });
            match checked {
                Ok(Some((home, len))) => {
                    let end = block.walk.position();
                    last = Some((home, end - len..end));
                }
                Ok(None) => break,
                Err(error) => return Err(block.blame(error)),
            }
        }
        if let Some((home, entry)) = last {
            self.last = Some(Last { home, plain: block.plain, entry });
        }
        Ok(())
    }

    fn count(&mut self, home: Home, entry: &Entry<'_>, len: usize) -> Result<()> {
        let totals = &mut self.found[usize::from(home.state)];
        totals.entries += 1;
        totals.tombstones += u64::from(entry.is_tombstone());
        totals.plain_bytes += len as u64;
        self.report.entries += 1;
        let spec = &self.schema.states[usize::from(home.state)].spec;
        check_entry(spec, entry).map_err(|error| error.context(format!("state {:?}", spec.name)))
    }

    fn counts(&self, schema: &Schema) -> Result<()> {
        for (state, found) in schema.states.iter().zip(&self.found) {
            if state.totals != *found {
                let name = &state.spec.name;
                let (expected, found) = (state.totals.entries, found.entries);
                return Err(Error::corrupt(format!(
                    "state {name:?} has {found} entries, its schema says {expected}"
                )));
            }
        }
        Ok(())
    }
}

/// Whether an entry comes after the one before, of which these are the state and key group and the encoded bytes.
fn check_order(before: Option<(Home, &[u8])>, home: Home, entry: &Entry<'_>) -> Result<()> {
    match before {
        Some((last, bytes)) if (last, place(&decode(bytes))) >= (home, place(entry)) => {
            Err(Error::corrupt("entries are out of order"))
        }
        _ => Ok(()),
    }
}

/// Whether an entry is one that its kind of state can have.
fn check_entry(spec: &StateSpec, entry: &Entry<'_>) -> Result<()> {
    let is_put = entry.kind == EntryKind::Put;
    let fits = match (spec.kind, entry.kind) {
        (StateKind::Timers, EntryKind::Clear) => false,
        (kind, EntryKind::Clear) if kind.is_one_value() => false,
        (StateKind::List, EntryKind::Delete) => false,
        (kind, _) if kind.is_one_value() => entry.sub.is_empty(),
        (StateKind::Timers, _) => entry.sub.len() == 8 && entry.value.is_empty(),
        _ => true,
    };
    if !fits {
        return Err(Error::corrupt(format!("an entry that a {} state cannot have", spec.kind.name())));
    }
    match spec.kind {
        StateKind::List if is_put => {
            epoch_of(entry.sub)?;
            elements(entry.value).try_for_each(|element| check_value(spec, element?))
        }
        StateKind::Timers | StateKind::List => Ok(()),
        _ if is_put => check_value(spec, entry.value),
        _ => Ok(()),
    }
}

fn check_value(spec: &StateSpec, value: &[u8]) -> Result<()> {
    ShapedValue::check(&spec.shape, &spec.codec, spec.without_deadline(value)?)
}
