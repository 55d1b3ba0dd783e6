//! What stands behind the tables of a subtask: nothing, or a store of the author's that is watched.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use types::{CheckpointId, KeyGroupRange};

use super::{subject::declare, watched::Watched};
use crate::{KeyedState, store::KeyValueStore};

/// Opens an empty store in a directory.
type Open<'a> = dyn FnMut(&Path) -> Box<dyn KeyValueStore> + 'a;

/// What stands behind the tables.
pub(super) enum Behind<'a> {
    Nothing,
    /// Stores that are opened in directories of their own below this one.
    Stores {
        dir: PathBuf,
        open: RefCell<&'a mut Open<'a>>,
        opened: Cell<u64>,
        /// How many entries the stores have dropped, since they had expired.
        dropped: Arc<AtomicU64>,
    },
}

impl<'a> Behind<'a> {
    pub(super) fn store(dir: &Path, open: &'a mut Open<'a>) -> Self {
        let dropped = Arc::default();
        Self::Stores { dir: dir.to_owned(), open: RefCell::new(open), opened: Cell::new(0), dropped }
    }

    /// Empty state of these key groups, with so many cells in the tables if there is a store.
    pub(super) fn state(&self, groups: KeyGroupRange, cells: usize, first: CheckpointId) -> KeyedState {
        let declared = declare().0;
        match self {
            Self::Nothing => KeyedState::new(declared, groups, first),
            Self::Stores { dir, open, opened, dropped } => {
                opened.set(opened.get() + 1);
                let store = open.borrow_mut()(&dir.join(opened.get().to_string()));
                let store = Box::new(Watched::new(store, dropped.clone()));
                KeyedState::with_store(declared, groups, first, store, cells)
            }
        }
    }

    /// How many entries the stores have dropped up to now, since they had expired.
    pub(super) fn dropped(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Stores { dropped, .. } => dropped.load(Ordering::Relaxed),
        }
    }
}
