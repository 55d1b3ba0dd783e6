//! By key group: each key is encoded once, into a buffer that is used again, and travels with its record.
//!
//! A batch is routed in blocks: first the keys of a block are encoded, then they are hashed, then the records move. One
//! record at a time, each of these steps would wait for the one before it, and the next record for all of them.

use std::sync::Arc;

use statebackend::KeyRef;
use types::{MaxParallelism, Result, key_hash, ordered};

use super::{Router, Targets, exchange};
use crate::{
    api::{
        data::{Data, Key},
        erased::{Exchange, ExchangeContext},
    },
    record::{Batch, Record},
    task::guard,
};

/// Records routed at a time.
const BLOCK: usize = 64;
/// A block ends behind the key that brings its keys to as many bytes.
const BLOCK_BYTES: usize = 64 << 10;

/// By the key that `encode` finds in a record.
pub(crate) fn hash<T, F>(encode: F) -> Arc<dyn Exchange>
where
    T: Data,
    F: Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync + 'static,
{
    let encode = Arc::new(encode);
    exchange::<T, _, _>(move |context| Hash::new(Arc::clone(&encode), context))
}

/// The key that `selector` makes.
pub(crate) fn encode_owned<T, K: Key>(
    selector: impl Fn(&T) -> K + Send + Sync,
) -> impl Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync {
    move |record, into| ordered::encode_into(&selector(record), into)
}

/// The key that `selector` finds in the record.
pub(crate) fn encode_borrowed<T, K: Key>(
    selector: impl Fn(&T) -> &K + Send + Sync,
) -> impl Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync {
    move |record, into| ordered::encode_into(selector(record), into)
}

struct Hash<F> {
    encode: Arc<F>,
    max_parallelism: MaxParallelism,
    /// The target that owns each key group.
    owners: Vec<u32>,
    /// The encoded keys of the block.
    keys: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// Their hashes.
    hashes: Vec<u64>,
}

impl<F> Hash<F> {
    fn new(encode: Arc<F>, context: &ExchangeContext) -> Self {
        let max_parallelism = context.max_parallelism;
        let parallelism = u32::try_from(context.targets).expect("parallelism fits in 32 bits");
        let owner = |group| max_parallelism.owner(group, parallelism).0;
        let owners = max_parallelism.all().iter().map(owner).collect();
        Self { encode, max_parallelism, owners, keys: Vec::new(), ends: Vec::new(), hashes: Vec::new() }
    }

    /// Encodes the keys of the values, as far as one block goes.
    fn encode<T>(&mut self, values: &[T]) -> Result<()>
    where
        F: Fn(&T, &mut Vec<u8>) -> Result<()>,
    {
        self.keys.clear();
        self.ends.clear();
        for value in values {
            (self.encode)(value, &mut self.keys)?;
            self.ends.push(self.keys.len());
            if self.keys.len() >= BLOCK_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// Hashes what was encoded.
    fn hash(&mut self) {
        self.hashes.clear();
        let mut start = 0;
        self.hashes.extend(self.ends.iter().map(|&end| {
            let hash = key_hash(&self.keys[start..end]);
            start = end;
            hash
        }));
    }
}

impl<T, F> Router<T> for Hash<F>
where
    T: Data,
    F: Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync,
{
    fn route(&mut self, batch: &mut Batch<T>, targets: &mut Targets<T>) -> Result<()> {
        while !batch.is_empty() {
            let block = &batch.as_slice()[..batch.len().min(BLOCK)];
            // The records before the one that fails go on their way, as they would one at a time.
            let encoded = guard::catch(|| self.encode(block));
            self.hash();
            let mut start = 0;
            for place in 0..self.ends.len() {
                let record = batch.next().expect("the block is no longer than the batch");
                start = self.put(record, place, start, targets);
            }
            if encoded.is_err() {
                batch.next();
            }
            encoded?;
        }
        Ok(())
    }
}

impl<F> Hash<F> {
    /// Hands over a record whose key is the one at `place`, from `start` on; returns where the key ends.
    #[inline]
    fn put<T: Data>(
        &self,
        record: Record<'_, T>,
        place: usize,
        start: usize,
        targets: &mut Targets<T>,
    ) -> usize {
        let (hash, end) = (self.hashes[place], self.ends[place]);
        let group = self.max_parallelism.key_group(hash);
        let key = KeyRef { hash, group, bytes: &self.keys[start..end] };
        let target = self.owners[usize::from(group.0)] as usize;
        targets.add_keyed(target, record.value, record.time, key);
        end
    }
}
