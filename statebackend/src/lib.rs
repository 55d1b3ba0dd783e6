//! Typed state, the stores behind it, and the run file format.
//!
//! * [`StateDeclarations`] collects the states of an operator; user code works with the handles that it gives out.
//! * [`KeyedState`] holds them: a typed table in memory, flipped at barriers and drained in slices.
//! * [`store`] holds the stores of bytes that may stand behind the table, which is a cache then.
//! * [`write_run`] makes a sorted run file of what was drained; [`restore`] reads runs back; [`merge`] joins neighbours.
//! * [`plan_migration`] finds the states that are stored as older types, which are written anew before they are restored.
//!
//! The engine drives all of it; the command line reads runs without the job's code.

mod compatible;
#[cfg(feature = "test-util")]
pub mod conformance;
pub mod declare;
mod expiry;
mod handle;
#[cfg(feature = "test-util")]
pub mod hostile;
mod key;
mod migration;
mod restore;
mod run;
pub mod store;
mod table;

pub use compatible::{Action, Expected, check_compatible, check_key, is_timers};
pub use declare::{
    Declared, ExpiringDeclarations, MigratingDeclarations, MigratingExpiringDeclarations, StateDeclarations,
    StateKind, StateSpec,
};
pub use expiry::Ttl;
pub use handle::{
    Aggregate, AggregatingState, Expirable, Expiring, KeyedContext, ListState, MapState, ReducingState,
    ValueState,
};
pub use key::{KeyRef, OwnedKey};
pub use migration::{Migration, Migrations, ReadOlder, Version, check_versions};
pub use restore::{CallUser, MigrationPlan, RestoreStats, Rewriting, plan_migration, restore};
pub use run::{
    Entry, EntryKind, KeySelection, LiveBatch, LiveEntry, MergePolicy, RunCompression, RunSet, Scan,
    Selection, StateCount, StateSummary, VerifiedCopy, VerifyReport, WrittenRun, copy_canonical,
    copy_verified, decompress_run, merge, plan_merge, run_of, scan, summarize, verify_copy, verify_file,
    verify_run, write_run,
};
pub use table::{Delta, KeyedState, ListTable, MadeCells, MapTable, Refill, ValueTable};
use types::serde::{Serialize, de::DeserializeOwned};

/// What can be kept in state: serializable, owned, and able to move between threads.
pub trait Data: Serialize + DeserializeOwned + Clone + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> Data for T {}
