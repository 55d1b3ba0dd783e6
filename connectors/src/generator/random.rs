//! Random numbers that follow from a seed and a record's number alone, so that a record can be made again anywhere.

/// A splitmix64 generator. Its numbers are fixed for ever: positions in checkpoints rely on them.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of the record `number` under `seed`.
    #[inline]
    #[must_use]
    pub fn of(seed: u64, number: u64) -> Self {
        // Mixed once, so that the streams of neighbouring numbers do not overlap.
        let mut random = Self { state: seed };
        random.state = random.next_u64() ^ number;
        random.state = random.next_u64();
        random
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: even enough for any bound that a test will use.
        u64::try_from((u128::from(self.next_u64()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// A number from 0 to 1, 1 not included.
    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_pinned() {
        // The reference values of splitmix64 for the seed 1234567.
        let mut reference = Random { state: 1_234_567 };
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([(); 3].map(|()| reference.next_u64()), expected);
        let mut random = Random::of(42, 7);
        assert_eq!(random.next_u64(), Random::of(42, 7).next_u64());
        assert_ne!(random.next_u64(), Random::of(42, 8).next_u64());
    }

    #[test]
    fn bounds_hold() {
        let mut random = Random::of(1, 0);
        for bound in [1, 2, 10, u64::MAX] {
            assert!((0..1000).all(|_| random.below(bound) < bound));
        }
        assert_eq!(random.below(0), 0);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.unit())));
    }
}
