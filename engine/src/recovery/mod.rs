//! What a new attempt gives back to its tasks. Pure: [`plan`] deals a manifest's state out over the tasks of the job as
//! it is now, at whatever parallelism; [`compatible`] refuses what does not fit, before anything starts, and [`dry_run`]
//! says all of it at once; [`migrate`] says whether states must be written anew, [`clock`] whether this machine's time can be
//! right.

pub(crate) mod clock;
pub(crate) mod compatible;
pub(crate) mod describe;
pub(crate) mod dry_run;
mod migrate;
pub(crate) mod pending;
pub(crate) mod places;
pub(crate) mod plan;
pub(crate) mod savepoint;
