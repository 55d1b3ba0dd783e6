//! What the benchmarks share: the jobs' source and sink, and the line of figures that each of them prints. One binary
//! for each question; `measure` runs them in turn and prints the table of `README.md`.

pub mod access;
pub mod figures;
pub mod gaps;
pub mod paced;
pub mod payload;
pub mod rounds;
pub mod turns;
pub mod watch;

use std::process::ExitCode;

use types::Result;

use crate::figures::Figures;

/// Prints the figures of a run, or why there are none.
#[must_use]
pub fn report(figures: Result<Figures>) -> ExitCode {
    print(figures.map(|figures| figures.line()))
}

/// Prints a line, or why there is none.
#[must_use]
#[expect(clippy::disallowed_macros, reason = "a program's output")]
pub fn print(line: Result<String>) -> ExitCode {
    match line {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// The finaliser of splitmix64: the key of a record's number, as the peers make it.
#[must_use]
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
