//! Benchmarks: one file per question, peers side by side.
