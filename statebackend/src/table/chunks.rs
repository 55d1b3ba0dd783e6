//! The memory of drained cells, used again from interval to interval: a task drains into chunks that the background makes
//! ready ahead of it, and gives back once their run is written.
//!
//! Fresh memory is costly on a task: the kernel clears each page at its first use, two megabytes at once where the
//! allocator asks for large pages, and an allocator that gives memory back from time to time does so in the middle of a
//! slice. Kept is as much as the last delta with entries took, or two of the next one will take, one being drained and one
//! being written: what is too much is freed where a run was written. A delta without entries needs no run and ends on the
//! task, so it frees nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The capacity of a chunk in bytes.
pub(crate) const CHUNK: usize = 128 << 10;
/// How many chunks are made ready ahead at the most: 512 MiB. That is a whole delta, where it can be: draining is faster than
/// the kernel provides memory, and takes all of it in one go.
const MAX_CHUNKS: usize = 4096;
/// How many are made ready ahead where two deltas are in use, which will be given back: 8 MiB.
const READY: usize = 64;

/// Room for pieces that tasks give up, so that giving some up seldom makes a list grow.
const GIVEN_UP: usize = 64;

/// Empty chunks of one state. The task and the background share them; the lock is taken once a chunk, and once a slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks(Arc<Mutex<Pool>>);

#[derive(Debug, Default)]
struct Pool {
    spare: Vec<Vec<u8>>,
    /// How many are in use.
    lent: usize,
    /// How many the next delta needs, as was said last, and the most since chunks came back.
    needed: usize,
    most_needed: usize,
    /// An empty list with room for the chunks of a delta.
    list: Vec<Vec<u8>>,
    /// What a task has given up.
    given_up: Vec<Vec<u64>>,
    /// Whether some are being made.
    refilling: bool,
}

impl Chunks {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty chunk.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut pool = self.pool();
        pool.lent += 1;
        let spare = pool.spare.pop();
        drop(pool);
        spare.unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    /// An empty list, with room for the chunks that were made ready: growing one would have to ask for memory, too.
    pub(super) fn take_list(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.pool().list)
    }

    /// What is to be made ready in the background, where `bytes` are still to be drained: as much, within bounds, when
    /// half of that is gone. Where there are enough for two deltas, those in use will come back, and new ones are made only as
    /// far ahead as the task may get to before.
    pub(super) fn refill(&self, bytes: usize) -> Option<Refill> {
        let needed = (bytes / CHUNK).min(MAX_CHUNKS);
        let mut pool = self.pool();
        pool.needed = needed;
        pool.most_needed = pool.most_needed.max(needed);
        if needed == 0 {
            // Where nothing is drained any more, no run comes that frees what was given up.
            if pool.refilling || pool.given_up.is_empty() {
                return None;
            }
            pool.refilling = true;
            let given_up = std::mem::take(&mut pool.given_up);
            return Some(Refill { chunks: self.clone(), missing: 0, list: 0, _given_up: given_up });
        }
        // One delta is being drained while the one before it is being written.
        let wanted = (2 * needed).saturating_sub(pool.lent).clamp(needed.min(READY), needed);
        let missing = wanted.saturating_sub(pool.spare.len());
        if pool.refilling || 2 * missing <= wanted {
            return None;
        }
        pool.refilling = true;
        let list = if pool.list.capacity() < needed { needed + needed / 4 } else { 0 };
        Some(Refill { chunks: self.clone(), missing, list, _given_up: Vec::new() })
    }

    /// Takes memory of dirty lists that is too much: it is freed where the next run was written.
    pub(super) fn drop_later(&self, pieces: impl Iterator<Item = Vec<u64>>) {
        self.pool().given_up.extend(pieces);
    }

    /// Takes the chunks of a delta whose run is written. Called in the background: what is too much is freed there.
    pub(super) fn give_back(&self, mut chunks: Vec<Vec<u8>>) {
        chunks.retain_mut(|chunk| {
            chunk.clear();
            chunk.capacity() == CHUNK
        });
        let room = Vec::with_capacity(GIVEN_UP);
        let mut pool = self.pool();
        let given_up = std::mem::replace(&mut pool.given_up, room);
        pool.lent = pool.lent.saturating_sub(chunks.len());
        // One delta is being drained while the one before it is being written.
        let enough = chunks.len().max((2 * pool.most_needed).saturating_sub(pool.lent));
        pool.most_needed = pool.needed;
        chunks.append(&mut pool.spare);
        let rest = chunks.split_off(enough.min(chunks.len()));
        let list = std::mem::replace(&mut pool.spare, chunks);
        if pool.list.capacity() < list.capacity() {
            pool.list = list;
        }
        drop(pool);
        drop((rest, given_up));
    }

    /// Takes the chunks of a delta without entries, which may have some for its notes. Called on a task: all are kept,
    /// since they were taken from here or the next delta with entries frees them.
    pub(super) fn keep(&self, chunks: Vec<Vec<u8>>) {
        if chunks.is_empty() {
            return;
        }
        let full = chunks.into_iter().filter(|chunk| chunk.capacity() == CHUNK).map(|mut chunk| {
            chunk.clear();
            chunk
        });
        let mut pool = self.pool();
        let before = pool.spare.len();
        pool.spare.extend(full);
        pool.lent = pool.lent.saturating_sub(pool.spare.len() - before);
    }

    /// How many chunks wait to be used.
    #[cfg(test)]
    pub(super) fn spare(&self) -> usize {
        self.pool().spare.len()
    }
}

/// Chunks that a state will soon need: [`run`](Self::run) makes them, away from the task.
#[derive(Debug)]
pub struct Refill {
    chunks: Chunks,
    missing: usize,
    /// Room in a list that is to be made, too.
    list: usize,
    /// What is to be freed there, when this is dropped.
    _given_up: Vec<Vec<u64>>,
}

impl Refill {
    /// Makes the chunks, one after the other, each ready to be used as soon as it is made.
    pub fn run(self) {
        // Writing to memory has the kernel provide its pages here; zeros would need no writing.
        let mut list: Vec<Vec<u8>> = (0..self.list).map(|_| Vec::new()).collect();
        list.clear();
        if self.list > 0 {
            self.chunks.pool().list = list;
        }
        for _ in 0..self.missing {
            let mut chunk = vec![u8::MAX; CHUNK];
            chunk.clear();
            self.chunks.pool().spare.push(chunk);
        }
    }
}

/// Also where it never ran: the state may ask again.
impl Drop for Refill {
    fn drop(&mut self) {
        self.chunks.pool().refilling = false;
    }
}

#[cfg(test)]
mod tests {
    use types::KeyGroup;

    use super::*;
    use crate::table::Drained;

    /// A delta of about `chunks` full chunks.
    fn delta(source: &Chunks, chunks: usize) -> Drained {
        let mut drained = Drained::new(source.clone());
        let value = vec![7_u8; 1000];
        for key in 0..chunks * CHUNK / 1024 {
            let key = (key as u64).to_be_bytes();
            drained
                .put_encoded(KeyGroup(0), &key, &[], |out| {
                    out.extend_from_slice(&value);
                    Ok(())
                })
                .expect("it is small");
        }
        drained
    }

    #[test]
    fn chunks_serve_again_and_no_more_are_kept_than_the_last_delta_took() {
        let source = Chunks::default();
        drop(delta(&source, 8));
        let kept = source.spare();
        assert!((7..=9).contains(&kept), "{kept} chunks");
        let next = delta(&source, 8);
        assert_eq!(source.spare(), 0, "they are in use again");
        assert!(next.chunks().iter().all(|chunk| chunk.capacity() <= CHUNK));
        drop(next);
        assert_eq!(source.spare(), kept);
        drop(delta(&source, 2));
        assert!((1..=3).contains(&source.spare()), "{} chunks", source.spare());
    }

    #[test]
    fn a_delta_without_entries_frees_nothing_and_the_next_one_frees_the_rest() {
        let source = Chunks::default();
        drop(delta(&source, 8));
        let kept = source.spare();
        drop(delta(&source, 0));
        assert_eq!(source.spare(), kept);
        let mut notes = Drained::new(source.clone());
        (0..4 * CHUNK / 1024).for_each(|_| notes.note_empty(KeyGroup(0), &[7; 1000], &[]));
        assert!(source.spare() < kept, "the notes took some");
        drop(notes);
        assert_eq!(source.spare(), kept);
        drop(delta(&source, 1));
        assert!(source.spare() <= 2, "{} chunks", source.spare());
    }

    #[test]
    fn what_stood_in_a_chunk_before_is_not_seen_again() {
        let source = Chunks::default();
        drop(delta(&source, 4));
        let again = delta(&source, 1);
        let fresh = delta(&Chunks::default(), 1);
        assert!(again.entries() > 0 && again.chunks() == fresh.chunks());
    }

    #[test]
    fn what_was_given_up_goes_with_a_run_or_where_none_comes() {
        let source = Chunks::default();
        let given_up = || source.pool().given_up.len();
        source.drop_later((0..20).map(|_| Vec::with_capacity(1024)));
        drop(delta(&source, 3));
        assert_eq!(given_up(), 0, "the background frees it");
        source.drop_later((0..20).map(|_| Vec::with_capacity(1024)));
        drop(delta(&source, 0));
        assert_eq!(given_up(), 20, "a delta without entries ends on the task");
        source.refill(0).expect("there is something to be freed").run();
        assert!(given_up() == 0 && source.refill(0).is_none());
    }

    #[test]
    fn chunks_are_made_ready_ahead_of_what_is_still_to_be_drained() {
        let source = Chunks::default();
        assert!(source.refill(CHUNK - 1).is_none(), "so little needs none");
        let refill = source.refill(8 * CHUNK).expect("there is none");
        assert!(source.refill(8 * CHUNK).is_none(), "it is asked for already");
        refill.run();
        assert_eq!(source.spare(), 8);
        assert!(source.refill(8 * CHUNK).is_none());
        drop((0..4).map(|_| source.take()).collect::<Vec<_>>());
        assert!(source.refill(8 * CHUNK).is_none(), "half is left");
        drop(source.take());
        source.refill(8 * CHUNK).expect("less than half is left").run();
        assert_eq!(source.spare(), 8);
        source.refill(10_000 * CHUNK).expect("more is needed").run();
        assert_eq!(source.spare(), MAX_CHUNKS);
    }

    #[test]
    fn what_will_come_back_is_not_made_a_second_time() {
        let source = Chunks::default();
        source.refill(200 * CHUNK).expect("there is none").run();
        let first = delta(&source, 199);
        let (left, lent) = (source.spare(), source.pool().lent);
        assert!(left < 5 && (195..200).contains(&lent), "{left} are left, {lent} in use");
        source.refill(200 * CHUNK).expect("few are left").run();
        assert_eq!(source.spare(), 200, "another delta is drained while this one is written");
        assert!(source.pool().list.capacity() >= 200, "the next delta's list");
        let second = delta(&source, 199);
        source.refill(200 * CHUNK).expect("few are left").run();
        assert_eq!(source.spare(), READY, "as far ahead as it may get meanwhile");
        drop((first, second));
        let all = source.spare();
        assert!((398..=400).contains(&all), "{all} for two deltas");
        for _ in 0..3 {
            let (first, second) = (delta(&source, 199), delta(&source, 199));
            assert!(source.refill(200 * CHUNK).is_none_or(|refill| refill.missing <= READY));
            drop((first, second));
        }
        drop(delta(&source, 1));
        let kept = (source.spare(), source.pool().lent);
        assert!(kept.0 >= 398 && kept.1 == 0, "{kept:?}, also after one that needed few");
    }

    #[test]
    fn a_list_with_room_serves_again() {
        let source = Chunks::default();
        source.refill(200 * CHUNK).expect("there is none").run();
        for _ in 0..3 {
            drop(delta(&source, 199));
            assert!(source.pool().list.capacity() >= 199);
        }
    }

    #[test]
    fn a_refill_that_never_ran_is_asked_for_again() {
        let source = Chunks::default();
        drop(source.refill(8 * CHUNK).expect("there is none"));
        source.refill(8 * CHUNK).expect("there is still none").run();
        assert_eq!(source.spare(), 8);
    }
}
