//! A disk that keeps apart what is durable and what a crash may lose. Called by `files` alone.
//!
//! Files: bytes written after the last sync may be lost, or kept up to any place. Names: each change (link, unlink,
//! rename) that no sync of its directory has settled survives a crash or not, for itself, as the seed says; a rename
//! never loses the file. A failed sync drops what it should have made durable for good, as a kernel may do, though
//! later syncs report success.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    path::{Component, Path, PathBuf},
};

use rand::RngExt;
use types::Timestamp;

use crate::{FileKind, FileMeta, Rng};

/// The number of a file or directory; never used twice.
pub(super) type Node = u64;

const ROOT: Node = 0;
/// Nodes without a name are swept when so many have lost theirs.
const SWEEP_EVERY: usize = 256;

struct FileNode {
    data: Vec<u8>,
    durable: Vec<u8>,
    /// `data` and `durable` are equal up to here.
    equal: usize,
    /// A sync failed: nothing becomes durable any more.
    lost: bool,
    modified: Timestamp,
    open: usize,
}

#[derive(Default)]
struct DirNode {
    names: BTreeMap<OsString, Node>,
    durable: BTreeMap<OsString, Node>,
}

enum Inode {
    File(FileNode),
    Dir(DirNode),
}

/// A name in a directory.
type Place = (Node, OsString);

#[derive(Clone)]
enum Change {
    Link(Place, Node),
    Unlink(Place, Node),
    Rename(Place, Place, Node),
}

struct Pending {
    change: Change,
    /// The sync that should have settled it failed.
    lost: bool,
}

pub(super) struct DiskState {
    nodes: BTreeMap<Node, Inode>,
    next: Node,
    pending: Vec<Pending>,
    unnamed: usize,
    /// The holders of locks: process and text.
    pub(super) locks: BTreeMap<Node, (u32, String)>,
    /// Bytes that can still be written.
    pub(super) space: Option<u64>,
    /// Syncs until one fails.
    pub(super) failing_sync: Option<u64>,
    pub(super) syncs: u64,
    /// Changes and syncs until the power fails.
    pub(super) crash_in: Option<u64>,
}

fn error(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

/// The names on the way from the root.
fn parts(path: &Path) -> Vec<&OsStr> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts
}

impl DiskState {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Inode::Dir(DirNode::default()))]),
            next: ROOT + 1,
            pending: Vec::new(),
            unnamed: 0,
            locks: BTreeMap::new(),
            space: None,
            failing_sync: None,
            syncs: 0,
            crash_in: None,
        }
    }

    /// Counts a change or sync that is about to be made; whether the power fails before it.
    pub(super) fn power_fails(&mut self) -> bool {
        self.crash_in = self.crash_in.map(|left| left.saturating_sub(1));
        self.crash_in.take_if(|left| *left == 0).is_some()
    }

    fn dir(&self, node: Node) -> io::Result<&DirNode> {
        match self.nodes.get(&node) {
            Some(Inode::Dir(dir)) => Ok(dir),
            Some(Inode::File(_)) => Err(error(io::ErrorKind::NotADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        }
    }

    fn file(&mut self, node: Node) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&node) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(error(io::ErrorKind::IsADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Node> {
        parts(path).into_iter().try_fold(ROOT, |node, name| {
            self.dir(node)?.names.get(name).copied().ok_or_else(|| error(io::ErrorKind::NotFound))
        })
    }

    /// The directory and name of a path, whether or not something has it.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let mut parts = parts(path);
        let name = parts.pop().ok_or_else(|| error(io::ErrorKind::InvalidInput))?;
        let dir = self.find(&parts.into_iter().collect::<PathBuf>())?;
        self.dir(dir)?;
        Ok((dir, name.to_owned()))
    }

    fn at(&self, place: &Place) -> Option<Node> {
        self.dir(place.0).ok()?.names.get(&place.1).copied()
    }

    fn add(&mut self, place: Place, inode: Inode) -> Node {
        let node = self.next;
        self.next += 1;
        self.nodes.insert(node, inode);
        self.change(Change::Link(place, node));
        node
    }

    /// Makes a change visible, not yet durable.
    fn change(&mut self, change: Change) {
        self.apply(&change, |dir| &mut dir.names);
        self.unnamed += usize::from(!matches!(change, Change::Link(..)));
        self.pending.push(Pending { change, lost: false });
    }

    fn apply(&mut self, change: &Change, names: impl Fn(&mut DirNode) -> &mut BTreeMap<OsString, Node>) {
        let mut set = |place: &Place, from: Option<Node>, to: Option<Node>| {
            let Some(Inode::Dir(dir)) = self.nodes.get_mut(&place.0) else { return };
            let names = names(dir);
            match to {
                Some(node) => drop(names.insert(place.1.clone(), node)),
                None if names.get(&place.1).copied() == from => drop(names.remove(&place.1)),
                None => {}
            }
        };
        match change {
            Change::Link(place, node) => set(place, None, Some(*node)),
            Change::Unlink(place, node) => set(place, Some(*node), None),
            Change::Rename(from, to, node) => {
                set(from, Some(*node), None);
                set(to, None, Some(*node));
            }
        }
    }

    pub(super) fn open(&mut self, path: &Path) -> io::Result<Node> {
        let node = self.find(path)?;
        self.file(node)?.open += 1;
        Ok(node)
    }

    pub(super) fn close(&mut self, node: Node) {
        if let Ok(file) = self.file(node) {
            // A crash has closed everything, also for the observer, whose handles go on.
            file.open = file.open.saturating_sub(1);
        }
    }

    pub(super) fn create_new(&mut self, path: &Path, now: Timestamp) -> io::Result<Node> {
        let place = self.place(path)?;
        if self.at(&place).is_some() {
            return Err(error(io::ErrorKind::AlreadyExists));
        }
        if self.space == Some(0) {
            return Err(error(io::ErrorKind::StorageFull));
        }
        let file =
            FileNode { data: Vec::new(), durable: Vec::new(), equal: 0, lost: false, modified: now, open: 1 };
        Ok(self.add(place, Inode::File(file)))
    }

    pub(super) fn truncate(&mut self, node: Node, len: u64) -> io::Result<()> {
        let file = self.file(node)?;
        let len = usize::try_from(len).map_err(|_| error(io::ErrorKind::UnexpectedEof))?;
        if file.data.len() < len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than expected"));
        }
        file.data.truncate(len);
        file.equal = file.equal.min(len);
        Ok(())
    }

    pub(super) fn write(&mut self, node: Node, bytes: &[u8], now: Timestamp) -> io::Result<()> {
        let room = self
            .space
            .map_or(bytes.len(), |space| bytes.len().min(usize::try_from(space).unwrap_or(usize::MAX)));
        if let Some(space) = &mut self.space {
            *space -= room as u64;
        }
        let file = self.file(node)?;
        file.data.extend_from_slice(&bytes[..room]);
        file.modified = now;
        if room < bytes.len() { Err(error(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }

    pub(super) fn read(&mut self, node: Node, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let data = &self.file(node)?.data;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let read = buf.len().min(data.len() - from);
        buf[..read].copy_from_slice(&data[from..from + read]);
        Ok(read)
    }

    pub(super) fn len(&mut self, node: Node) -> io::Result<u64> {
        Ok(self.file(node)?.data.len() as u64)
    }

    /// Whether this sync is one that fails.
    fn sync_fails(&mut self) -> bool {
        self.syncs += 1;
        match &mut self.failing_sync {
            Some(1) => {
                self.failing_sync = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub(super) fn sync_file(&mut self, node: Node) -> io::Result<()> {
        let fails = self.sync_fails();
        let file = self.file(node)?;
        file.lost |= fails;
        if fails {
            return Err(io::Error::other("simulated: the disk failed to sync a file"));
        }
        if !file.lost {
            file.durable.truncate(file.equal);
            file.durable.extend_from_slice(&file.data[file.equal..]);
            file.equal = file.data.len();
        }
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.find(path)?;
        self.dir(dir)?;
        let fails = self.sync_fails();
        for mut pending in std::mem::take(&mut self.pending) {
            let settles = match &pending.change {
                Change::Link(place, _) | Change::Unlink(place, _) | Change::Rename(_, place, _) => {
                    place.0 == dir
                }
            };
            pending.lost |= settles && fails;
            if !settles || pending.lost {
                self.pending.push(pending);
                continue;
            }
            match pending.change {
                // The old name lies in another directory, and its going waits for that one's sync.
                Change::Rename(from, to, node) if from.0 != dir => {
                    self.apply(&Change::Link(to, node), |dir| &mut dir.durable);
                    self.pending.push(Pending { change: Change::Unlink(from, node), lost: false });
                }
                change => self.apply(&change, |dir| &mut dir.durable),
            }
        }
        if fails {
            return Err(io::Error::other("simulated: the disk failed to sync a directory"));
        }
        if self.unnamed >= SWEEP_EVERY {
            self.sweep();
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let node = self.at(&from).ok_or_else(|| error(io::ErrorKind::NotFound))?;
        match self.at(&to) {
            Some(_) if !replace => return Err(error(io::ErrorKind::AlreadyExists)),
            Some(old) if old == node => return Ok(()),
            Some(old) => drop(self.file(old)?),
            None => {}
        }
        self.change(Change::Rename(from, to, node));
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        let node = self.at(&place).ok_or_else(|| error(io::ErrorKind::NotFound))?;
        self.file(node)?;
        self.change(Change::Unlink(place, node));
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let node = match self.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let names: Vec<OsString> = self.dir(node)?.names.keys().cloned().collect();
        for name in names {
            let below = path.join(name);
            match self.metadata(&below)?.map(|meta| meta.kind) {
                Some(FileKind::Dir) => self.remove_dir_all(&below)?,
                _ => self.remove_file(&below)?,
            }
        }
        let place = self.place(path)?;
        self.change(Change::Unlink(place, node));
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in parts(path) {
            dir = match self.dir(dir)?.names.get(name) {
                Some(&node) => node,
                None => self.add((dir, name.to_owned()), Inode::Dir(DirNode::default())),
            };
        }
        self.dir(dir).map(drop).map_err(|_| error(io::ErrorKind::AlreadyExists))
    }

    /// The absolute path without `.` and `..`; relative paths begin at the root.
    pub(super) fn canonical(&self, path: &Path) -> PathBuf {
        Path::new("/").join(parts(path).into_iter().collect::<PathBuf>())
    }

    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.dir(self.find(path)?)?.names.keys().cloned().collect())
    }

    pub(super) fn metadata(&self, path: &Path) -> io::Result<Option<FileMeta>> {
        let node = match self.find(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            other => other?,
        };
        Ok(self.nodes.get(&node).map(|inode| match inode {
            Inode::File(file) => {
                FileMeta { kind: FileKind::File, len: file.data.len() as u64, modified: file.modified }
            }
            Inode::Dir(_) => FileMeta { kind: FileKind::Dir, len: 0, modified: Timestamp(0) },
        }))
    }

    /// Changes a file's bytes at rest.
    pub(super) fn damage(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let node = self.find(path)?;
        let file = self.file(node)?;
        change(&mut file.data);
        file.durable.clone_from(&file.data);
        file.equal = file.data.len();
        Ok(())
    }

    /// The power fails: what was not durable survives as the seed says.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let survival = [0.0, 0.5, 1.0][rng.random_range(0..3)];
        for pending in std::mem::take(&mut self.pending) {
            if !pending.lost && rng.random_bool(survival) {
                self.apply(&pending.change, |dir| &mut dir.durable);
            }
        }
        for inode in self.nodes.values_mut() {
            match inode {
                Inode::Dir(dir) => dir.names.clone_from(&dir.durable),
                Inode::File(file) => {
                    if file.equal == file.durable.len() && !file.lost {
                        let torn = rng.random_range(0..=file.data.len() - file.equal);
                        if rng.random_bool(survival) {
                            file.durable.extend_from_slice(&file.data[file.equal..file.equal + torn]);
                        }
                    }
                    file.data.clone_from(&file.durable);
                    file.equal = file.data.len();
                    file.lost = false;
                    file.open = 0;
                }
            }
        }
        self.locks.clear();
        self.sweep();
    }

    /// Forgets the nodes that nothing leads to any more.
    fn sweep(&mut self) {
        let mut reached = BTreeSet::new();
        let mut open = vec![ROOT];
        for pending in &self.pending {
            match pending.change {
                Change::Link(_, node) | Change::Unlink(_, node) | Change::Rename(_, _, node) => {
                    open.push(node)
                }
            }
        }
        while let Some(node) = open.pop() {
            if reached.insert(node)
                && let Some(Inode::Dir(dir)) = self.nodes.get(&node)
            {
                open.extend(dir.names.values().chain(dir.durable.values()));
            }
        }
        self.nodes.retain(|node, inode| {
            reached.contains(node) || matches!(inode, Inode::File(file) if file.open > 0)
        });
        self.unnamed = 0;
    }
}
