//! The memory of drained cells, used again from interval to interval: a task drains into chunks that the background gives
//! back once their run is written.
//!
//! Fresh memory is costly on a task: the kernel clears each page at its first use, and an allocator that gives memory
//! back from time to time does so in the middle of a slice. Kept is as much as the last delta with entries took: what is too
//! much is freed where its run was written. A delta without entries needs no run and ends on the task, so it frees nothing.

use std::sync::{Arc, Mutex, PoisonError};

/// The capacity of a chunk in bytes.
pub(crate) const CHUNK: usize = 128 << 10;

/// Empty chunks of one state. The task and the background share them; the lock is taken once a chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks(Arc<Mutex<Vec<Vec<u8>>>>);

impl Chunks {
    /// An empty chunk.
    pub(super) fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    /// Takes the chunks of a delta whose run is written. Called in the background: what is too much is freed there.
    pub(super) fn give_back(&self, mut chunks: Vec<Vec<u8>>) {
        chunks.retain_mut(|chunk| {
            chunk.clear();
            chunk.capacity() == CHUNK
        });
        let enough = chunks.len();
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.append(&mut spare);
        let rest = chunks.split_off(enough);
        *spare = chunks;
        drop(spare);
        drop(rest);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(full);
    }

    /// How many chunks wait to be used.
    #[cfg(test)]
    pub(super) fn spare(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
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
        let keys = |drained: &Drained| -> Vec<Vec<u8>> {
            drained.lines().map(|line| line.expect("it was written so").entry.key.to_vec()).collect()
        };
        assert_eq!(keys(&again), keys(&fresh));
        assert_eq!(keys(&again).len() as u64, again.entries());
    }
}
