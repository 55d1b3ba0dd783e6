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

use crate::{expiry::deadline_of, store::ExpiredUntil};

const NAME: &CStr = c"tidegate.ttl";

/// What keys begin with, and until when those have expired.
type Prefixes = Vec<(Vec<u8>, ExpiredUntil)>;

/// Which keys of a database expire. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(super) struct Expiring(Arc<Mutex<Prefixes>>);

impl Expiring {
    /// Those that begin with `prefix` do.
    pub(super) fn add(&self, prefix: &[u8], until: &ExpiredUntil) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((prefix.to_vec(), until.clone()));
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
        // A value without a deadline is damaged: whoever reads it says so.
        let has_expired =
            |until: &ExpiredUntil| deadline_of(value).is_ok_and(|deadline| deadline <= until.get());
        match found {
            Some((_, until)) if has_expired(until) => CompactionDecision::Remove,
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
    use std::collections::BTreeMap;

    use tempfile::TempDir;
    use types::Timestamp;

    use super::*;
    use crate::store::{
        Change, KeyBatch, KeyValueStore, WriteBatch,
        rocksdb::{RocksDbKind, RocksDbStore},
    };

    #[test]
    fn a_compaction_drops_what_has_expired_and_nothing_else() {
        let dir = TempDir::new().unwrap();
        let kind = RocksDbKind::new(8 << 20, 1, &BTreeMap::new()).unwrap();
        let mut store = RocksDbStore::open(&kind, env::real_files(), dir.path()).unwrap();
        let until = ExpiredUntil::default();
        store.expires(&[7], &until);
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
