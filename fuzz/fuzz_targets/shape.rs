//! Fuzzes the reader of stored shapes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_types::hostile::SHAPE.fuzz(bytes));
