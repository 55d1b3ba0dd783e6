//! The contexts of zstd, used again by whoever comes next, on whichever thread.
//!
//! A context is some hundred KiB that the C library takes from its own allocator. Made anew for each run on one of many
//! threads, it leaves as much behind in the heap of each of them. What a context did before does not change what it
//! does next.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

use types::{Error, Result};
use zstd::bulk::{Compressor, Decompressor};

/// Higher levels are slower and, on sorted state, not smaller.
const ZSTD_LEVEL: i32 = 1;

static COMPRESSORS: Spare<Compressor<'static>> = Spare::new();
static DECOMPRESSORS: Spare<Decompressor<'static>> = Spare::new();

/// A compressor.
pub(super) fn compressor() -> Result<Lent<Compressor<'static>>> {
    COMPRESSORS.lend(|| Compressor::new(ZSTD_LEVEL))
}

/// A decompressor.
pub(super) fn decompressor() -> Result<Lent<Decompressor<'static>>> {
    DECOMPRESSORS.lend(Decompressor::new)
}

/// Contexts that nobody uses.
struct Spare<T>(Mutex<Vec<T>>);

impl<T> Spare<T> {
    /// How many are kept: a process writes one run and merges others, and reads what it merges.
    const MAX: usize = 4;

    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn lend(&'static self, make: impl FnOnce() -> std::io::Result<T>) -> Result<Lent<T>> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let context = match spare {
            Some(context) => context,
            None => make().map_err(|error| Error::internal("cannot set up zstd").with_source(error))?,
        };
        Ok(Lent { context: Some(context), owner: self })
    }

    fn give_back(&self, context: T) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < Self::MAX {
            spare.push(context);
        }
    }
}

/// A context, until it is dropped.
pub(super) struct Lent<T: 'static> {
    /// Always there, until the drop.
    context: Option<T>,
    owner: &'static Spare<T>,
}

impl<T> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.context.as_ref().expect("it is there until the drop")
    }
}

impl<T> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.context.as_mut().expect("it is there until the drop")
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            self.owner.give_back(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_serve_again_and_few_are_kept() -> Result<()> {
        static NUMBERS: Spare<u32> = Spare::new();
        let mut made = 0_u32;
        let mut lend = || {
            NUMBERS.lend(|| {
                made += 1;
                Ok(made)
            })
        };
        drop((lend()?, lend()?));
        let again = [lend()?, lend()?];
        assert!(again.iter().all(|number| **number <= 2));
        let more: Vec<_> = (0..6).map(|_| lend()).collect::<Result<_>>()?;
        drop((again, more));
        assert_eq!(NUMBERS.0.lock().unwrap_or_else(PoisonError::into_inner).len(), 4);
        Ok(())
    }

    #[test]
    fn what_a_compressor_did_before_does_not_change_what_it_does() -> Result<()> {
        let text: Vec<u8> = (0..70_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let compress = |compressor: &mut Compressor<'static>, plain: &[u8]| {
            compressor.compress(plain).map_err(|error| Error::internal("zstd").with_source(error))
        };
        let mut used = compressor()?;
        for len in [1, 64 << 10, 100, 200_000] {
            let mut fresh = Compressor::new(ZSTD_LEVEL)
                .map_err(|error| Error::internal("cannot set up zstd").with_source(error))?;
            let plain = &text[len / 2..len / 2 + len.min(text.len() / 2)];
            assert_eq!(compress(&mut used, plain)?, compress(&mut fresh, plain)?, "{len} bytes");
        }
        Ok(())
    }
}
