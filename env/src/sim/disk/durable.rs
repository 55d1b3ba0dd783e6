//! What of a disk survives: syncs, and the crash that shows what they were worth.

use std::{collections::BTreeSet, io, path::Path};

use rand::RngExt;

use super::{Change, DiskState, Inode, Node, Pending, ROOT};
use crate::Rng;

/// Nodes without a name are swept when so many have lost theirs.
const SWEEP_EVERY: usize = 256;

impl DiskState {
    /// Counts a change or sync that is about to be made; whether the power fails before it.
    pub(in crate::sim) fn power_fails(&mut self) -> bool {
        self.crash_in = self.crash_in.map(|left| left.saturating_sub(1));
        self.crash_in.take_if(|left| *left == 0).is_some()
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

    pub(in crate::sim) fn sync_file(&mut self, node: Node) -> io::Result<()> {
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

    pub(in crate::sim) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
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
            self.forget_passing_names();
            self.sweep();
        }
        Ok(())
    }

    /// The power fails: what was not durable survives as the seed says.
    pub(in crate::sim) fn crash(&mut self, rng: &mut Rng) {
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

    /// Forgets names that came and went with no sync between, such as those of staged files: otherwise a long run would
    /// drag all of them along.
    fn forget_passing_names(&mut self) {
        let mut linked = BTreeSet::new();
        let mut passing = BTreeSet::new();
        for pending in &self.pending {
            match &pending.change {
                Change::Link(place, node) => {
                    linked.insert((place, *node));
                }
                Change::Unlink(place, node) if linked.contains(&(place, *node)) => {
                    passing.insert((place.clone(), *node));
                }
                _ => {}
            }
        }
        self.pending.retain(|pending| match &pending.change {
            Change::Link(place, node) | Change::Unlink(place, node) => {
                !passing.contains(&(place.clone(), *node))
            }
            Change::Rename(..) => true,
        });
    }

    /// Forgets the nodes that nothing leads to any more.
    pub(super) fn sweep(&mut self) {
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

    #[cfg(test)]
    pub(in crate::sim) fn remembered(&self) -> usize {
        self.nodes.len() + self.pending.len()
    }
}
