//! Dropping what has expired. sled does not look at what it has by itself, so a hand goes round the keys of states that expire:
//! at each write it looks at some more of them than were written, and so keeps pace with what comes.

use std::ops::Bound;

use types::Result;

use super::{SledStore, error::error};
use crate::store::ExpiryRule;

/// How many entries the hand looks at for each that is written.
const LOOK: usize = 2;
/// How many at least.
const LOOK_LEAST: usize = 16;

/// A place among the keys of states that expire.
#[derive(Default)]
pub(super) struct Hand {
    /// What keys begin with, and how their values expire.
    states: Vec<(Vec<u8>, ExpiryRule)>,
    state: usize,
    /// The last key of that state that was looked at.
    last: Option<sled::IVec>,
}

impl Hand {
    pub(super) fn add(&mut self, prefix: &[u8], rule: &ExpiryRule) {
        self.states.push((prefix.to_vec(), rule.clone()));
    }
}

/// Goes on behind a write of so many changes; once round at the most.
pub(super) fn go_on(store: &mut SledStore, written: usize) -> Result<()> {
    let SledStore { db, directory, hand, .. } = store;
    let failed = |it: sled::Error| error(directory.path(), "drop what has expired", &it);
    let mut left = (written * LOOK).max(LOOK_LEAST);
    for _ in 0..=hand.states.len() {
        let Some((prefix, rule)) = hand.states.get(hand.state) else { return Ok(()) };
        let from = match &hand.last {
            Some(last) => Bound::Excluded(last.to_vec()),
            None => Bound::Included(prefix.clone()),
        };
        let mut entries = db.range((from, Bound::Unbounded));
        while left > 0 {
            let Some((key, value)) = entries.next().transpose().map_err(failed)? else { break };
            if !key.starts_with(prefix) {
                break;
            }
            if rule.has_expired(&value) {
                db.remove(&key).map_err(failed)?;
            }
            hand.last = Some(key);
            left -= 1;
        }
        if left == 0 {
            return Ok(());
        }
        (hand.state, hand.last) = ((hand.state + 1) % hand.states.len(), None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use tempfile::TempDir;
    use types::Timestamp;

    use crate::store::{
        Change, ExpiredUntil, ExpiryRule, KeyValueStore, WriteBatch,
        sled::{SledKind, SledStore},
    };

    /// Sessions that are never written again.
    #[test]
    fn what_has_expired_goes_while_other_keys_are_written() {
        let dir = TempDir::new().unwrap();
        let kind = SledKind::new(8 << 20, 1, &BTreeMap::new()).unwrap();
        let mut store = SledStore::open(&kind, env::real_files(), dir.path()).unwrap();
        let until = ExpiredUntil::default();
        store.expires(&[7], &ExpiryRule::of_values(until.clone()));
        store.expires(&[9], &ExpiryRule::of_values(until.clone()));
        let (mut most, mut number) = (0, 0_i64);
        for _ in 0..200 {
            let mut changes = WriteBatch::default();
            for _ in 0..10 {
                let value = number.to_le_bytes();
                for state in [7, 8, 9] {
                    changes.push(Change::Put(&[&[state][..], &number.to_be_bytes()].concat(), &value));
                }
                number += 1;
            }
            until.set(Timestamp(number - 100));
            store.write(&changes).unwrap();
            let of = |state: u8| store.db.scan_prefix([state]).count();
            assert_eq!(of(8) as i64, number, "those that do not expire stay");
            let live = |state: u8| {
                let later = [&[state][..], &(number - 99).max(0).to_be_bytes()].concat();
                store.db.range(later..=vec![state, u8::MAX]).count() as i64
            };
            assert_eq!((live(7), live(9)), (number.min(99), number.min(99)), "what lives stays");
            most = most.max(of(7)).max(of(9));
        }
        assert!(most < 400, "{most} of {number} were there at once, of which 99 live");
    }
}
