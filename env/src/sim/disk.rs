//! A disk that keeps apart what is durable and what a crash may lose. Called by `files` alone.
//!
//! Files: bytes written after the last sync may be lost, or kept up to any place. Names: each change (link, unlink,
//! rename) that no sync of its directory has settled survives a crash or not, for itself, as the seed says; a rename
//! never loses the file. A failed sync drops what it should have made durable for good, as a kernel may do, though
//! later syncs report success.

mod durable;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    path::{Component, Path, PathBuf},
};

use types::Timestamp;

use crate::{FileKind, FileMeta};

/// The number of a file or directory; never used twice.
pub(super) type Node = u64;

const ROOT: Node = 0;

struct FileNode {
    data: Vec<u8>,
    durable: Vec<u8>,
    /// `data` and `durable` are equal up to here.
    equal: usize,
    /// A sync failed: nothing becomes durable any more.
    lost: bool,
    modified: Timestamp,
    open: usize,
    /// Bytes read so far.
    read: u64,
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
        let (data, durable) = (Vec::new(), Vec::new());
        let file = FileNode { data, durable, equal: 0, lost: false, modified: now, open: 1, read: 0 };
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
        let file = self.file(node)?;
        let data = &file.data;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let read = buf.len().min(data.len() - from);
        buf[..read].copy_from_slice(&data[from..from + read]);
        file.read += read as u64;
        Ok(read)
    }

    pub(super) fn len(&mut self, node: Node) -> io::Result<u64> {
        Ok(self.file(node)?.data.len() as u64)
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

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<bool> {
        let node = match self.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other?,
        };
        if !self.dir(node)?.names.is_empty() {
            return Ok(false);
        }
        let place = self.place(path)?;
        self.change(Change::Unlink(place, node));
        Ok(true)
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

    pub(super) fn bytes_read(&mut self, path: &Path) -> io::Result<u64> {
        let node = self.find(path)?;
        Ok(self.file(node)?.read)
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
}
