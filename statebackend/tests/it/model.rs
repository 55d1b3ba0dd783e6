//! State against a model of sorted maps, in memory alone and with each store behind: `statebackend::conformance`, which
//! authors of stores run, too. And what it finds where a store is wrong.

use std::{ops::ControlFlow, path::Path};

use statebackend::{
    conformance::{self, Settings},
    store::{
        Answer, Change, ExpiryRule, KeyBatch, KeyValueStore, Order, SortedEntries, Visit, WriteBatch,
        sorted_map::SortedMapStore,
    },
};
use types::Result;

use crate::fixture::{DROPPING, STORES, open};

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
        let coverage = conformance::store(dir.path(), |dir| open(name, dir));
        assert!(!DROPPING.contains(&name) || coverage.dropped_by_store > 100, "{coverage:?}");
    }
}

/// A store that keeps its contract for a while.
struct Forgetful {
    store: SortedMapStore,
    /// What keys of states that expire begin with.
    rules: Vec<(Vec<u8>, ExpiryRule)>,
    writes: u32,
    fault: Option<Fault>,
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
    /// What expires is dropped some time before.
    Early,
    /// A list's chunk is dropped with its first element, whatever others live.
    Chunk,
}

/// After so many writes the contract of the store alone has been checked.
const GOOD_WRITES: u32 = 70;

impl Forgetful {
    fn fails(&self, fault: fn(Fault) -> bool) -> bool {
        self.fault.is_some_and(fault) && self.writes > GOOD_WRITES
    }

    /// Drops all that has expired, and what the fault takes for it.
    fn drop_expired(&mut self) -> Result<()> {
        let mut expired = WriteBatch::default();
        let early = self.fails(|fault| matches!(fault, Fault::Early));
        // The contract's check has no lists that expire.
        let chunk = matches!(self.fault, Some(Fault::Chunk));
        for (prefix, rule) in &self.rules {
            self.store.scan(prefix, Order::Ascending, &mut |key, value| {
                // Of nothing all elements have expired, and a value of no bytes has no deadline.
                let is_list = rule.has_expired(&[]);
                let is_gone = match is_list {
                    false if early => rule.has_expired(&earlier(value)),
                    true if chunk => rule.has_expired(&value[..=usize::from(value[0])]),
                    _ => rule.has_expired(value),
                };
                if is_gone {
                    expired.push(Change::Delete(key));
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        self.store.write(&expired)
    }
}

/// A value whose deadline, which is its first eight bytes, is some milliseconds earlier.
fn earlier(value: &[u8]) -> Vec<u8> {
    let (deadline, rest) = value.split_first_chunk().unwrap();
    [&(i64::from_le_bytes(*deadline) - 3).to_le_bytes()[..], rest].concat()
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
        self.store.write(&made)?;
        self.drop_expired()
    }

    fn expires(&mut self, prefix: &[u8], rule: &ExpiryRule) {
        self.rules.push((prefix.to_vec(), rule.clone()));
    }

    fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()> {
        // The contract's check loads hundreds of entries at once, a small job does not.
        if !matches!(self.fault, Some(Fault::Load))
            || entries.iter().count() > 40
            || entries.iter().count() < 2
        {
            return self.store.bulk_load(entries);
        }
        let mut loaded = SortedEntries::default();
        entries.iter().skip(1).for_each(|(key, value)| loaded.push(key, value));
        self.store.bulk_load(&loaded)
    }
}

/// A store that does nothing wrong but in one thing.
fn forgetful(fault: Option<Fault>) -> impl FnMut(&Path) -> Box<dyn KeyValueStore> {
    move |_| Box::new(Forgetful { store: SortedMapStore::open(), rules: Vec::new(), writes: 0, fault })
}

/// The suite would prove nothing if it passed such a store.
#[test]
fn stores_that_forget_are_found_out() {
    let faults = [Fault::Deletion, Fault::Scan, Fault::Load, Fault::Read, Fault::Early, Fault::Chunk];
    for fault in faults {
        // The first that finds it is the last one.
        let settings = Settings { cases: 1000, ..Settings::default() };
        let found = conformance::store_with(settings, Path::new("unused"), forgetful(Some(fault)));
        let failure = found.expect_err(&format!("{fault:?} went unnoticed"));
        assert!(failure.contains("replay: TIDEGATE_SEED="), "{failure}");
    }
}

/// Dropping at each write all that has expired is allowed, and nobody sees it.
#[test]
fn a_store_that_drops_at_once_is_as_good() {
    let coverage = conformance::store(Path::new("unused"), forgetful(None));
    assert!(coverage.dropped_by_store > 200, "{coverage:?}");
}
