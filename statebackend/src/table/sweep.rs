//! Draining a state of which much has changed: its cells are gone over as they lie in memory.
//!
//! A list names changed cells in the order of their changes, so going by it waits for memory at each of them. Where half of
//! all cells have changed, going over all is cheaper, and what a list would hold need not be written down. Where older runs
//! would soon have to be merged with what is drained, a sweep takes what did not change, too: then it is all that lives,
//! and no older run is needed beside it (`docs/0009-sweeps.md`).
//!
//! A cell moves when its key group's map grows. Then the group is begun anew: cells remember what they were drained for.

use types::{KeyGroup, Result};

use super::{
    cells::{Cells, Group},
    intervals::{Interval, Intervals},
    slot::{Place, Progress, Slot},
};

/// How an interval is swept, and how far that has come within a key group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    /// Whether all that lived is drained, and not only what changed.
    pub(super) is_full: bool,
    /// The next bucket.
    bucket: usize,
}

impl Sweep {
    pub(super) fn new(is_full: bool) -> Self {
        Self { is_full, bucket: 0 }
    }
}

/// A sweep begins with more changed cells than that, however few there are.
const LEAST: usize = 64;
/// A bucket that has nothing to be drained costs one of these parts of a cell that has.
const PARTS: usize = 8;

/// How many changed cells are worth a list, of so many in so many buckets, where `changed` were in the interval that ends.
/// After one that is swept none is kept: the next is likely to be, too, and where it is not, one sweep finds that out.
pub(super) fn list_limit(cells: usize, buckets: usize, changed: usize) -> usize {
    let limit = (cells / 2).max(buckets / PARTS).max(LEAST);
    if changed > limit { 0 } else { limit }
}

impl<S: Slot> Cells<S> {
    /// Drains about `budget` cells of `interval`, going on where it ended.
    pub(super) fn sweep(&mut self, mut sweep: Sweep, interval: Interval, budget: usize) -> Result<Progress> {
        debug_assert!(S::IS_ONE_ENTRY && !self.intervals.has_store(), "more lives than has a cell");
        let budget = budget.saturating_mul(PARTS);
        let mut spent = 0;
        while spent < budget {
            let work = self.intervals.work(interval);
            let next = work.next_group;
            let Some(group) = self.groups.get_mut(next) else {
                // Cells that went for an older interval were counted.
                work.pending = 0;
                return Ok(Progress { spent: spent.div_ceil(PARTS), finished: true });
            };
            if std::mem::take(&mut group.moved) {
                sweep.bucket = 0;
            }
            if sweep.bucket == 0 {
                group.dirty.forget(interval, &mut self.intervals.spare);
            }
            let key_group = KeyGroup(self.first_group + next as u16);
            let begin = sweep.bucket;
            spent += 1 + group.sweep(key_group, &mut sweep, interval, budget - spent, &mut self.intervals)?;
            self.touched += (sweep.bucket - begin) as u64;
            if sweep.bucket == group.cells.num_buckets() {
                sweep.bucket = 0;
                self.intervals.work(interval).next_group += 1;
            }
        }
        self.intervals.work(interval).sweep = Some(sweep);
        Ok(Progress { spent: spent.div_ceil(PARTS), finished: false })
    }
}

impl<S: Slot> Group<S> {
    /// Drains cells until `budget` parts are spent or all buckets were seen; returns what was spent.
    fn sweep(
        &mut self,
        group: KeyGroup,
        sweep: &mut Sweep,
        interval: Interval,
        budget: usize,
        intervals: &mut Intervals,
    ) -> Result<usize> {
        let mut spent = 0;
        while spent < budget && sweep.bucket < self.cells.num_buckets() {
            let bucket = sweep.bucket;
            sweep.bucket += 1;
            spent += 1;
            let Some(cell) = self.cells.get_bucket_mut(bucket) else { continue };
            if !cell.slot.owes(interval, sweep.is_full) {
                continue;
            }
            spent += PARTS - 1;
            let at = Place { group, key: &cell.key };
            cell.slot.drain(at, interval, usize::MAX, intervals)?;
            if cell.slot.is_vacant()
                && let Ok(found) = self.cells.get_bucket_entry(bucket)
            {
                found.remove();
            }
        }
        Ok(spent)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use types::MaxParallelism;

    use super::*;
    use crate::{
        key::{KeyRef, index_hash},
        table::{StateTable, ValueTable, resident::CellTable},
    };

    /// All keys are of one group.
    const ONE: MaxParallelism = MaxParallelism(1);

    fn set(table: &mut ValueTable<u64>, keys: impl IntoIterator<Item = u64>) {
        keys.into_iter().for_each(|key| table.set(KeyRef::new(&key.to_be_bytes(), ONE), key));
    }

    fn buckets(table: &ValueTable<u64>) -> usize {
        table.inner().groups[0].cells.num_buckets()
    }

    /// Drains the rest of the oldest interval and checks that it is all that lived then.
    fn finish(table: &mut ValueTable<u64>, interval: Interval, lived: u64) {
        while !table.drain(interval, 50).unwrap().finished {}
        assert_eq!(table.undrained(), 0);
        let drained = table.take_oldest();
        assert!(drained.is_whole());
        assert_eq!(drained.values(), lived);
    }

    /// A map whose free places all had cells is put in order when another one comes, without growing. So of 128 places 112
    /// are filled, one beside the other, and most are given up again.
    #[test]
    fn cells_that_move_while_they_are_swept_are_drained_once_each() {
        swept_while_put_in_order(|table| set(table, [1 << 40]));
        // For cells that are made after a restore.
        swept_while_put_in_order(|table| table.inner_mut().make_room(KeyGroup(0), 1));
    }

    fn swept_while_put_in_order(put_in_order: impl FnOnce(&mut ValueTable<u64>)) {
        let home = |key: &u64| index_hash(KeyRef::new(&key.to_be_bytes(), ONE).hash) % 128;
        let keys: Vec<u64> = (0..112).map(|place| (0..).find(|key| home(key) == place).unwrap()).collect();
        let stay = || keys[..16].iter().chain(&keys[96..]).copied();
        let mut table = ValueTable::new(ONE.all());
        set(&mut table, keys.iter().copied());
        assert_eq!(buckets(&table), 128);
        table.flip(2, true);
        finish(&mut table, 1, 112);
        for key in &keys[16..96] {
            assert_eq!(table.take(KeyRef::new(&key.to_be_bytes(), ONE)), Some(*key));
        }
        table.flip(3, true);
        finish(&mut table, 2, 32);
        assert_eq!(table.inner().cells(), 32, "those that are gone still have cells");
        set(&mut table, stay().take(20));
        table.flip(4, true);
        assert!(!table.drain(3, 8).unwrap().finished);
        table.inner_mut().groups[0].moved = false;
        put_in_order(&mut table);
        assert!(table.inner().groups[0].moved && buckets(&table) == 128, "it was not put in order in place");
        finish(&mut table, 3, 32);
    }

    /// A delta that was taken for all that lives would cost what it does not have.
    #[test]
    fn a_value_that_was_put_by_a_function_that_panicked_lives() {
        let mut table = ValueTable::new(ONE.all());
        set(&mut table, 0..3);
        let key = 3_u64.to_be_bytes();
        let put = |value: &mut Option<u64>| {
            *value = Some(3);
            panic!("the user's function fails")
        };
        let update = AssertUnwindSafe(|| table.update(KeyRef::new(&key, ONE), put));
        assert!(catch_unwind(update).is_err());
        table.flip(2, false);
        finish(&mut table, 1, 4);
        set(&mut table, 0..3);
        table.flip(3, false);
        while !table.drain(2, 50).unwrap().finished {}
        assert!(!table.take_oldest().is_whole(), "one more lives");
    }

    /// Slices are as short as they are said to be, go on where they ended, and come to an end though the map grows.
    #[test]
    fn a_large_group_is_swept_in_slices() {
        const CELLS: u64 = 20_000;
        let mut table = ValueTable::new(ONE.all());
        set(&mut table, 0..CELLS);
        table.flip(2, true);
        finish(&mut table, 1, CELLS);
        set(&mut table, 0..CELLS / 2);
        table.flip(3, true);
        let (mut slices, mut grown) = (0, false);
        loop {
            let before = table.touched();
            let finished = table.drain(2, 256).unwrap().finished;
            assert!(table.touched() - before <= (PARTS * 256) as u64);
            slices += 1;
            if finished {
                break;
            }
            assert!(slices < 400, "the sweep does not come to an end");
            if slices == 40 {
                let before = buckets(&table);
                set(&mut table, CELLS..2 * CELLS);
                grown = buckets(&table) > before;
            }
        }
        assert!(grown);
        finish(&mut table, 2, CELLS);
    }
}
