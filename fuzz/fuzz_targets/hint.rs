//! Fuzzes the reader of hints.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_checkpoint::hostile::HINT.fuzz(bytes));
