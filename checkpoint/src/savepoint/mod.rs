//! Snapshots that stand for themselves: where a path points ([`location`]), savepoints that belong to the user
//! ([`write`](self::write())), and the copying of a snapshot that a job does not own ([`import`](self::import())).

mod location;

pub use location::SnapshotLocation;
