//! Hashes of the states that a search has seen, quick and the same in every run, and values that are known by their hash.
//!
//! Two states with one hash are taken for one, and one of them is not searched. Among a million states of 64 random bits that
//! happens once in forty million searches; and the searches are the same in every run, those that must find something among
//! them.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// The hash of a state.
pub(crate) fn hash(state: &impl Hash) -> u64 {
    let mut mixer = Mixer::default();
    state.hash(&mut mixer);
    mixer.finish()
}

/// A value that many states share, hashed once; equal to those with the same hash.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    hash: u64,
    value: Arc<T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { hash: self.hash, value: Arc::clone(&self.value) }
    }
}

impl<T: Hash> Shared<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self { hash: hash(&*value), value }
    }

    pub(crate) fn of(value: T) -> Self {
        Self::new(Arc::new(value))
    }

    pub(crate) fn arc(&self) -> &Arc<T> {
        &self.value
    }
}

impl<T: Clone + Hash> Shared<T> {
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(Arc::make_mut(&mut self.value));
        self.hash = hash(&*self.value);
        result
    }
}

impl<T: Default + Hash> Default for Shared<T> {
    fn default() -> Self {
        Self::of(T::default())
    }
}

/// One of each of many equal values.
pub(crate) struct Kept<T>(HashMap<u64, Shared<T>>);

impl<T> Kept<T> {
    pub(crate) fn keep(&mut self, value: &Shared<T>) -> Shared<T> {
        self.0.entry(value.hash).or_insert_with(|| value.clone()).clone()
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl<T> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }
    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}
