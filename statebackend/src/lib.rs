//! Typed state, the stores behind it, and the run file format.
