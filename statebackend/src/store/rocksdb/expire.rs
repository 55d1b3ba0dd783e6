//! Dropping what has expired while RocksDB compacts, which reads it anyway. So a database does not keep what nobody can see.

use std::{
    ffi::CStr,
    sync::{Arc, Mutex, PoisonError},
};

use rocksdb::{
    CompactionDecision,
    compaction_filter::CompactionFilter,
    compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory},
};

use crate::store::ExpiryRule;

const NAME: &CStr = c"tidegate.ttl";

/// What keys begin with, and how their values expire.
type Prefixes = Vec<(Vec<u8>, ExpiryRule)>;

/// Which keys of a database expire. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(super) struct Expiring(Arc<Mutex<Prefixes>>);

impl Expiring {
    /// Those that begin with `prefix` do.
    pub(super) fn add(&self, prefix: &[u8], rule: &ExpiryRule) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((prefix.to_vec(), rule.clone()));
    }
}

impl CompactionFilterFactory for Expiring {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        Filter(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// What one compaction asks about each entry.
pub(super) struct Filter(Prefixes);

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        let found = self.0.iter().find(|(prefix, _)| key.starts_with(prefix));
        match found {
            Some((_, rule)) if rule.has_expired(value) => CompactionDecision::Remove,
            _ => CompactionDecision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeMap, ops::ControlFlow};

    use tempfile::TempDir;
    use types::Timestamp;

    use super::*;
    use crate::{
        run::list_chunk::push_element,
        store::{
            Change, ExpiredUntil, KeyBatch, KeyValueStore, Order, WriteBatch,
            rocksdb::{RocksDbKind, RocksDbStore},
        },
    };

    /// The chunks of a list go when their last element has expired.
    #[test]
    fn a_compaction_drops_chunks_of_lists() {
        let dir = TempDir::new().unwrap();
        let kind = RocksDbKind::new(8 << 20, 1, &BTreeMap::new()).unwrap();
        let mut store = RocksDbStore::open(&kind, env::real_files(), dir.path()).unwrap();
        let until = ExpiredUntil::default();
        store.expires(&[7], &ExpiryRule::of_lists(until.clone()));
        let mut changes = WriteBatch::default();
        for number in 0..10_u8 {
            let mut chunk = Vec::new();
            for deadline in [0, i64::from(number)] {
                push_element(&mut chunk, |out| {
                    out.extend(deadline.to_le_bytes());
                    Ok(())
                })
                .unwrap();
            }
            changes.push(Change::Put(&[7, number], &chunk));
        }
        store.write(&changes).unwrap();
        until.set(Timestamp(6));
        store.db.flush().unwrap();
        store.db.compact_range::<&[u8], &[u8]>(None, None);
        let mut found = Vec::new();
        let visit = &mut |key: &[u8], _: &[u8]| {
            found.push(key[1]);
            Ok(ControlFlow::Continue(()))
        };
        store.scan(&[7], Order::Ascending, visit).unwrap();
        assert_eq!(found, [7, 8, 9]);
    }

    #[test]
    fn a_compaction_drops_what_has_expired_and_nothing_else() {
        let dir = TempDir::new().unwrap();
        let kind = RocksDbKind::new(8 << 20, 1, &BTreeMap::new()).unwrap();
        let mut store = RocksDbStore::open(&kind, env::real_files(), dir.path()).unwrap();
        let until = ExpiredUntil::default();
        store.expires(&[7], &ExpiryRule::of_values(until.clone()));
        let mut changes = WriteBatch::default();
        for number in 0..100_u8 {
            let value = [&i64::from(number).to_le_bytes()[..], b"value"].concat();
            for state in [6, 7, 8] {
                changes.push(Change::Put(&[state, number], &value));
            }
        }
        store.write(&changes).unwrap();
        until.set(Timestamp(49));
        store.db.flush().unwrap();
        store.db.compact_range::<&[u8], &[u8]>(None, None);
        for state in [6, 7, 8] {
            let mut keys = KeyBatch::default();
            (0..100).for_each(|number| keys.push(&[state, number]));
            let mut found = Vec::new();
            let answer = &mut |number: usize, value: Option<&[u8]>| {
                found.push((number, value.is_some()));
                Ok(())
            };
            store.read(&keys, answer).unwrap();
            found.sort_unstable();
            let expected: Vec<_> = (0..100).map(|number| (number, state != 7 || number > 49)).collect();
            assert_eq!(found, expected, "state {state}");
        }
    }
}
