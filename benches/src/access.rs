//! Which keys the keyed updates change: each alike, or a tenth of them most of the time; before that, if asked for, each once.

use clap::Args;

use crate::mix;

/// Odd, and no multiple of what numbers of keys are multiples of: each key comes once in so many numbers.
const STRIDE: u64 = 2_654_435_761;

/// The keys of a run.
#[derive(Args, Clone, Copy, Debug)]
pub struct Access {
    /// Keys
    #[arg(long, default_value_t = 500_000)]
    pub keys: u64,
    /// Records
    #[arg(long, default_value_t = 20_000_000)]
    pub records: u64,
    /// Nine of ten records change one of a tenth of the keys
    #[arg(long)]
    pub skew: bool,
    /// Before these records, one for each key, which do not count
    #[arg(long)]
    pub fill: bool,
    /// Keep each sum in a value of 100 bytes
    #[arg(long)]
    pub payload: bool,
}

impl Access {
    /// How many records come before those that count.
    #[must_use]
    pub fn before(self) -> u64 {
        if self.fill { self.keys } else { 0 }
    }

    /// The key of a record.
    #[must_use]
    #[inline]
    pub fn key(self, number: u64) -> u64 {
        if self.fill && number < self.keys {
            return number.wrapping_mul(STRIDE) % self.keys;
        }
        let noise = mix(number);
        if self.skew && !noise.is_multiple_of(10) {
            return mix(noise) % (self.keys / 10).max(1) * 10;
        }
        if self.skew { mix(noise) % self.keys } else { noise % self.keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_comes_once_and_a_tenth_of_them_most_of_the_time() {
        let access = Access { keys: 5000, records: 0, skew: true, fill: true, payload: false };
        let mut times = vec![0; 5000];
        (0..5000).for_each(|number| times[access.key(number) as usize] += 1);
        assert!(times.iter().all(|&times| times == 1));
        let hot = (5000..105_000).filter(|&number| access.key(number).is_multiple_of(10)).count();
        assert!((90_000..92_000).contains(&hot), "{hot} of 100,000");
    }
}
