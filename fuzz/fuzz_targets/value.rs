//! Fuzzes the reader of values of state.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_types::hostile::VALUE.fuzz(bytes));
