//! Fuzzes the reader of values that are read by their shapes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_types::hostile::SHAPED_VALUE.fuzz(bytes));
