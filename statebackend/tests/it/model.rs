//! State against a model of sorted maps, in memory alone and with each store behind: `statebackend::conformance`, which
//! authors of stores run, too. And what it finds where a store is wrong.

use std::{ops::ControlFlow, path::Path};

use statebackend::{
    conformance::{self, Settings},
    store::{
        Answer, Change, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch,
        sorted_map::SortedMapStore,
    },
};
use types::Result;

use crate::fixture::{STORES, open};

#[test]
fn state_in_memory_is_what_the_model_says() {
    let coverage = conformance::memory();
    assert_eq!(coverage.evicted, 0, "there is nowhere to go");
}

#[test]
#[expect(clippy::disallowed_macros, reason = "a test that fails must say with which store")]
fn state_behind_a_small_table_is_what_the_model_says() {
    for &name in STORES {
        println!("behind the table: {name}");
        let dir = tempfile::tempdir().unwrap();
        conformance::store(dir.path(), |dir| open(name, dir));
    }
}

/// A store that keeps its contract for a while.
struct Forgetful {
    store: SortedMapStore,
    writes: u32,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// One deletion in many is not made.
    Deletion,
    /// The greatest entry below a prefix is left out by scans.
    Scan,
    /// A loaded store lacks one entry.
    Load,
    /// One look-up in many finds nothing.
    Read,
}

/// After so many writes the contract of the store alone has been checked.
const GOOD_WRITES: u32 = 70;

impl Forgetful {
    fn fails(&self, fault: fn(Fault) -> bool) -> bool {
        fault(self.fault) && self.writes > GOOD_WRITES
    }
}

impl KeyValueStore for Forgetful {
    fn read(&self, keys: &KeyBatch, found: &mut Answer<'_>) -> Result<()> {
        let forgets = self.fails(|fault| matches!(fault, Fault::Read));
        self.store.read(keys, &mut |number, value| found(number, value.filter(|_| !forgets || number > 0)))
    }

    fn scan(&self, prefix: &[u8], order: Order, visit: &mut Visit<'_>) -> Result<()> {
        if !self.fails(|fault| matches!(fault, Fault::Scan)) || order == Order::Descending {
            return self.store.scan(prefix, order, visit);
        }
        let mut entries = Vec::new();
        self.store.scan(prefix, order, &mut |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        entries.pop();
        for (key, value) in entries {
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, changes: &WriteBatch) -> Result<()> {
        self.writes += 1;
        let forgets = self.fails(|fault| matches!(fault, Fault::Deletion));
        let mut made = WriteBatch::default();
        for change in changes.iter().filter(|change| !forgets || matches!(change, Change::Put(..))) {
            made.push(change);
        }
        self.store.write(&made)
    }

    fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()> {
        // The contract's check loads hundreds of entries at once, a small job does not.
        if !matches!(self.fault, Fault::Load) || entries.iter().count() > 40 || entries.iter().count() < 2 {
            return self.store.bulk_load(entries);
        }
        let mut loaded = SortedEntries::default();
        entries.iter().skip(1).for_each(|(key, value)| loaded.push(key, value));
        self.store.bulk_load(&loaded)
    }
}

/// The suite would prove nothing if it passed such a store.
#[test]
fn stores_that_forget_are_found_out() {
    for fault in [Fault::Deletion, Fault::Scan, Fault::Load, Fault::Read] {
        let settings = Settings { cases: 200, ..Settings::default() };
        let forgetful = |_: &Path| -> Box<dyn KeyValueStore> {
            Box::new(Forgetful { store: SortedMapStore::open(), writes: 0, fault })
        };
        let found = conformance::store_with(settings, Path::new("unused"), forgetful);
        let failure = found.expect_err(&format!("{fault:?} went unnoticed"));
        assert!(failure.contains("replay: TIDEGATE_SEED="), "{failure}");
    }
}
