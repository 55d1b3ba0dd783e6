//! Seeded choices: every random kill and every generated text comes from one number that can be given again.

use std::ops::Range;

/// The environment variable that replays a run.
const VARIABLE: &str = "TIDEGATE_SEED";

/// A source of choices that depend on its seed alone (SplitMix64).
#[derive(Clone, Debug)]
pub struct Seeded {
    state: u64,
}

impl Seeded {
    /// Choices from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Choices from the seed in `TIDEGATE_SEED`, or from `default`; prints how to replay the test `name`.
    ///
    /// # Panics
    /// If the variable is not a number.
    #[must_use]
    pub fn announced(name: &str, default: u64) -> Self {
        let seed = match std::env::var(VARIABLE) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE}={text} is not a number")),
            Err(_) => default,
        };
        println!("{name}: replay with {VARIABLE}={seed} make kills ONLY={name}");
        Self::new(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty(), "nothing to choose from in {range:?}");
        range.start + self.number() % (range.end - range.start)
    }

    /// One of the choices.
    ///
    /// # Panics
    /// If there is none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.within(0..choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_run() {
        let numbers = |seed| {
            let mut seeded = Seeded::new(seed);
            [(); 8].map(|()| seeded.within(10..20))
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert!(numbers(7).iter().all(|number| (10..20).contains(number)));
    }
}
