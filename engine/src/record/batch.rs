//! A batch: values with their event times and, on keyed edges, their encoded keys with hash and key group.
//!
//! Built once ([`BatchBuilder`]), then consumed from the front ([`Batch::next`]), so that an operator can stop in the
//! middle when its own output is full and go on later.

use statebackend::KeyRef;
use types::{KeyGroup, Timestamp};

/// The greatest number of bytes known to be in a batch: a quarter of what a channel holds.
pub const BATCH_BYTES: usize = 256 * 1024;

/// The keys of a batch: encoded once where the stream is keyed; hash and key group travel with the record.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    places: Vec<KeyPlace>,
    bytes: Vec<u8>,
}

/// What travels with a key, and where its bytes end.
#[derive(Clone, Copy, Debug)]
struct KeyPlace {
    hash: u64,
    end: u32,
    group: KeyGroup,
}

impl Keys {
    fn with_capacity(records: usize) -> Self {
        Self { places: Vec::with_capacity(records), bytes: Vec::with_capacity(records * 12) }
    }

    /// Appends a key.
    #[inline]
    pub fn push(&mut self, key: KeyRef<'_>) {
        match <[u8; 8]>::try_from(key.bytes) {
            // The most common length: copied without a call.
            Ok(word) => self.bytes.extend_from_slice(&word),
            Err(_) => self.bytes.extend_from_slice(key.bytes),
        }
        let end = u32::try_from(self.bytes.len()).expect("the keys of one batch stay under 4 GiB");
        self.places.push(KeyPlace { hash: key.hash, end, group: key.group });
    }

    /// The key at `index`.
    ///
    /// # Panics
    /// If there is none: a keyed operator was given records without keys.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> KeyRef<'_> {
        let KeyPlace { hash, end, group } = self.places[index];
        let start = if index == 0 { 0 } else { self.places[index - 1].end };
        KeyRef { hash, group, bytes: &self.bytes[start as usize..end as usize] }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none: the edge is not keyed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// A record taken out of a batch.
pub struct Record<'a, T> {
    /// The value.
    pub value: T,
    /// The event time, if one was assigned.
    pub time: Option<Timestamp>,
    /// The place in the batch: of its key, see [`Batch::keys`].
    pub index: usize,
    /// The batch's keys.
    pub keys: &'a Keys,
}

impl<'a, T> Record<'a, T> {
    /// The record's key.
    ///
    /// # Panics
    /// If the edge is not keyed.
    #[must_use]
    #[inline]
    pub fn key(&self) -> KeyRef<'a> {
        self.keys.get(self.index)
    }
}

/// Records on their way from one operator to the next.
#[derive(Debug)]
pub struct Batch<T> {
    values: std::vec::IntoIter<T>,
    /// Empty if no record has an event time.
    times: Vec<Timestamp>,
    keys: Keys,
    next: usize,
    /// What the records were noted to hold on the heap when the batch was built.
    noted_bytes: usize,
}

impl<T> Batch<T> {
    /// Takes the next record.
    #[expect(
        clippy::should_implement_trait,
        reason = "the record borrows the batch's keys, which an iterator cannot say"
    )]
    #[inline]
    pub fn next(&mut self) -> Option<Record<'_, T>> {
        let value = self.values.next()?;
        let index = self.next;
        self.next += 1;
        let time = self.time(index);
        Some(Record { value, time, index, keys: &self.keys })
    }

    #[inline]
    fn time(&self, index: usize) -> Option<Timestamp> {
        self.times.get(index).copied().filter(|&time| time != Timestamp::MIN)
    }

    /// The records not yet taken.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        self.values.as_slice()
    }

    /// How many records are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether all records were taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.len() == 0
    }

    /// The bytes that the records hold on the heap, as far as known, their keys included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.noted_bytes + self.keys.bytes.len()
    }

    /// The noted bytes of one record, on average.
    pub(crate) fn noted_bytes_each(&self) -> usize {
        self.noted_bytes.checked_div(self.len()).unwrap_or(0)
    }

    /// Gives every record not yet taken the event time that `time` says.
    pub fn assign_times(&mut self, time: impl FnMut(&T) -> Timestamp) {
        self.times.resize(self.next, Timestamp::MIN);
        self.times.extend(self.values.as_slice().iter().map(time));
    }

    /// The greatest event time of the records not yet taken, if any has one.
    #[must_use]
    pub fn max_time(&self) -> Option<Timestamp> {
        let times = self.times.get(self.next..)?;
        times.iter().copied().max().filter(|&time| time != Timestamp::MIN)
    }

    /// The keys of the records not yet taken, in their order; none if the edge is not keyed.
    pub fn keys(&self) -> impl Iterator<Item = KeyRef<'_>> {
        (self.next..self.keys.len()).map(|index| self.keys.get(index))
    }

    /// Hash and key group of the keys of the records not yet taken.
    #[inline]
    pub fn places(&self) -> impl Iterator<Item = (u64, KeyGroup)> {
        self.keys.places.iter().skip(self.next).map(|place| (place.hash, place.group))
    }
}

impl<T: Clone> Clone for Batch<T> {
    /// Copies the records that are left, so that a place in the clone is not one in the original.
    fn clone(&self) -> Self {
        let mut builder = BatchBuilder::default();
        builder.reserve(self.len());
        for (offset, value) in self.values.as_slice().iter().enumerate() {
            let index = self.next + offset;
            if self.keys.is_empty() {
                builder.push(value.clone(), self.time(index));
            } else {
                builder.push_keyed(value.clone(), self.time(index), self.keys.get(index));
            }
        }
        builder.add_bytes(self.noted_bytes);
        builder.build()
    }
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T> From<Vec<T>> for Batch<T> {
    fn from(values: Vec<T>) -> Self {
        Self { values: values.into_iter(), times: Vec::new(), keys: Keys::default(), next: 0, noted_bytes: 0 }
    }
}

/// A batch being filled.
#[derive(Debug)]
pub struct BatchBuilder<T> {
    values: Vec<T>,
    times: Vec<Timestamp>,
    keys: Keys,
    bytes: usize,
}

impl<T> Default for BatchBuilder<T> {
    fn default() -> Self {
        Self { values: Vec::new(), times: Vec::new(), keys: Keys::default(), bytes: 0 }
    }
}

impl<T> BatchBuilder<T> {
    /// Appends a record.
    #[inline]
    pub fn push(&mut self, value: T, time: Option<Timestamp>) {
        if time.is_some() || !self.times.is_empty() {
            self.push_time(time);
        }
        self.values.push(value);
    }

    /// Appends records that share one event time.
    #[inline]
    pub fn extend(&mut self, values: impl IntoIterator<Item = T>, time: Option<Timestamp>) {
        let before = self.values.len();
        self.values.extend(values);
        if time.is_some() || !self.times.is_empty() {
            self.times.resize(before, Timestamp::MIN);
            self.times.resize(self.values.len(), time.unwrap_or(Timestamp::MIN));
        }
    }

    /// Appends a record with its key.
    #[inline]
    pub fn push_keyed(&mut self, value: T, time: Option<Timestamp>, key: KeyRef<'_>) {
        if self.keys.is_empty() {
            self.keys = Keys::with_capacity(self.values.capacity());
        }
        self.push(value, time);
        self.keys.push(key);
    }

    fn push_time(&mut self, time: Option<Timestamp>) {
        // Records before the first one with a time have none.
        self.times.resize(self.values.len(), Timestamp::MIN);
        self.times.push(time.unwrap_or(Timestamp::MIN));
    }

    /// Notes that the records weigh `bytes` more than their size in memory says (text on the heap, for instance).
    #[inline]
    pub fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The noted bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the records weigh: their size, what they are known to hold on the heap, and their keys.
    #[must_use]
    #[inline]
    pub fn weight(&self) -> usize {
        self.values.len() * size_of::<T>() + self.bytes + self.keys.bytes.len()
    }

    /// Makes room for `records` more, so that filling them never reallocates.
    pub fn reserve(&mut self, records: usize) {
        self.values.reserve(records);
    }

    /// How many records there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Takes out what was built; the builder is empty again and keeps room for as many records.
    #[must_use]
    pub fn take(&mut self) -> Batch<T> {
        let room = Self { values: Vec::with_capacity(self.values.capacity()), ..Self::default() };
        std::mem::replace(self, room).build()
    }

    /// What was built.
    #[must_use]
    pub fn build(self) -> Batch<T> {
        Batch {
            values: self.values.into_iter(),
            times: self.times,
            keys: self.keys,
            next: 0,
            noted_bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests;
