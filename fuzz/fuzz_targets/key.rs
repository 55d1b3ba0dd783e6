//! Fuzzes the reader of ordered keys.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_types::hostile::KEY.fuzz(bytes));
