//! `tidegate drop-state`: a savepoint without a state of an operator, or without the operator.

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
    /// The operator.
    #[arg(long)]
    uid: String,
    /// Its state to leave out; if none is given, the operator with all that it has.
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let Args { snapshot, uid, state, target } = args;
    let change = |manifest| Changed::drop_state(manifest, &uid, state.as_deref());
    make(env, output, &snapshot, &target, change).await
}
