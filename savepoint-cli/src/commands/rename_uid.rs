//! `tidegate rename-uid`: a savepoint in which an operator has another uid.

use checkpoint::savepoint::Changed;
use env::Env;
use types::Result;

use crate::{
    making::{Target, make},
    output::Output,
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A savepoint, or a checkpoint whose sinks have committed: only read.
    snapshot: String,
    /// The operator's uid there.
    old: String,
    /// Its uid in the new savepoint.
    new: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let Args { snapshot, old, new, target } = args;
    make(env, output, &snapshot, &target, |manifest| Changed::rename_uid(manifest, &old, &new)).await
}
