//! Tidegate: a stream processor built around its state.
