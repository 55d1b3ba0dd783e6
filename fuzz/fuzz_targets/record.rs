//! Fuzzes the reader of history records.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_checkpoint::hostile::RECORD.fuzz(bytes));
