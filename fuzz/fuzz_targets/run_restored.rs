//! Fuzzes the reader of run files, as restores and merges read them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_statebackend::hostile::RUN_RESTORED.fuzz(bytes));
