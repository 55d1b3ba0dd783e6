//! `tidegate convert`: a savepoint out of a completed checkpoint, without the job.

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
    /// A checkpoint whose sinks have committed, or a savepoint.
    snapshot: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let all = |manifest| Ok(Changed::nothing(manifest));
    make(env, output, &args.snapshot, &args.target, all).await
}
