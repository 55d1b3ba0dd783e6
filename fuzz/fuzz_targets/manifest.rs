//! Fuzzes the reader of manifests.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_checkpoint::hostile::MANIFEST.fuzz(bytes));
