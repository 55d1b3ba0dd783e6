//! Fuzzes the reader of run files, as `verify --deep` reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_statebackend::hostile::RUN.fuzz(bytes));
