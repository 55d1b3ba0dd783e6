//! The values that a type under trace is shown, in the order in which they are tried: first what nearly every type takes,
//! then what common types that check what they read ask for.

/// How many values a place is shown before it counts as one of which no value can be made.
pub(super) const TRIES: usize = STRINGS.len();

pub(super) const BOOLS: [bool; 2] = [false, true];

pub(super) const INTEGERS: [u8; 6] = [0, 1, 2, 10, 50, 100];

pub(super) const FLOATS: [f64; 4] = [0.0, 1.0, 0.5, 100.0];

pub(super) const CHARS: [char; 4] = ['a', 'A', '0', ' '];

/// Of the lengths of ids, addresses, hashes and keys.
pub(super) const BYTE_STRINGS: [&[u8]; 10] =
    [&[], &[0; 16], &[0; 4], &[0; 8], &[0; 12], &[0; 20], &[0; 24], &[0; 32], &[0; 1], &[0; 64]];

/// Names, numbers, ids, times, addresses.
pub(super) const STRINGS: [&str; 24] = [
    "",
    "a",
    "0",
    "1",
    "A",
    "00000000-0000-0000-0000-000000000000",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00",
    "1970-01-01",
    "00:00:00",
    "1970-01-01T00:00:00+00:00[UTC]",
    "0.0.0.0",
    "0.0.0.0:0",
    "0.0.0.0/0",
    "http://a.b/",
    "a@b.c",
    "0.0.0",
    "PT0S",
    "UTC",
    "/",
    "Mon",
    "January",
    "USD",
    "true",
];

/// The value whose turn it is; there is always one.
pub(super) fn pick<T: Copy>(samples: &[T], turn: usize) -> T {
    samples[turn % samples.len()]
}
