//! Lines from a TCP peer, for demonstrations and simple feeds.
//!
//! # Guarantee
//! [`SocketSource`] is **at most once after a failure**: a socket cannot be read again, so whatever had arrived after the
//! last checkpoint, and whatever the peer sends while nobody is connected, is lost, unless the peer itself sends it
//! again. Use it where that is acceptable.

mod source;

pub use source::{SocketReader, SocketSource, SocketSplit};
