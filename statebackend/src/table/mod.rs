//! The typed table: all keyed state of a subtask as decoded cells, with the list of those changed since each barrier.
//!
//! The engine calls [`KeyedState`]; user code reaches it through handles. Invariant: a cell belongs to at most one
//! undrained checkpoint, so what a checkpoint holds is what the cells were when its barrier came.

mod backing;
mod cells;
mod chunks;
mod dirty;
mod drained;
mod expiring;
mod intervals;
mod keyed_state;
mod list;
mod map;
mod pieces;
mod resident;
mod slot;
mod sweep;
mod timers;
mod value;
mod waiting;

pub(crate) use backing::Seen;
pub use chunks::Refill;
pub(crate) use drained::{Drained, GROUP_LEN, Line, key_group};
pub(crate) use keyed_state::TablePlace;
pub use keyed_state::{Delta, KeyedState};
pub use list::ListTable;
pub use map::MapTable;
pub(crate) use resident::{CachedTable, Need};
pub(crate) use slot::StateTable;
pub use value::ValueTable;
pub use waiting::MadeCells;
pub(crate) use waiting::{Blocks, Index, Spot, Waiting};
