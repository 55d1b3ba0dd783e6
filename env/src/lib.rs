//! The way to the world: clock, randomness, tasks, channels, files, stores, sockets, fault points.
//!
//! All other crates reach the world through one [`Env`]; clippy's disallowed lists hold them to it. Behind it stands a
//! [`World`]: the real one (tokio, disks, TCP) or the simulated one (one thread, virtual time, one seed, un-synced
//! bytes lost at a crash), and one seed replays one run.

mod channel;
mod fault;
mod files;
mod real;
mod store;
mod world;

#[cfg(any(test, feature = "test-util"))]
pub mod sim;

pub use channel::{Closed, Limits, Message, Receiver, Sender, TrySend, Weight, channel};
pub use fault::FaultPoint;
pub use files::{FileKind, FileLock, FileMeta, Files, ReadFile, WriteFile};
#[cfg(any(test, feature = "test-util"))]
pub use real::files as real_files;
#[cfg(any(test, feature = "test-util"))]
pub use store::store_conformance;
pub use store::{
    Created, MemoryLimit, Payload, Store, StoreEntry, StoreRequests, StoreWriter, absolute, is_volatile,
};
#[cfg(all(feature = "s3", any(test, feature = "test-util")))]
pub use store::{S3Proxy, S3Request, S3Server, Treatment};
pub use world::{BoxFuture, Connection, Env, Listener, Monotonic, Rng, TaskHandle, World};
