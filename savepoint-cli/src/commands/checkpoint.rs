//! `tidegate checkpoint`: returns when the checkpoint is in the job's history.

use env::Env;
use types::{
    Result,
    rest::{CheckpointTaken, NoOptions},
};

use crate::{
    client::{Address, Client, path},
    output::{Output, Report},
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The job's name; not needed where there is one job.
    job: Option<String>,
    #[command(flatten)]
    address: Address,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let client = Client::new(env, args.address)?;
    let job = client.job(args.job).await?;
    let what = "taking a checkpoint";
    let taken: CheckpointTaken = client.post(&path(&job, "/checkpoint"), NoOptions {}, what).await?;
    output.show(&taken)
}

impl Report for CheckpointTaken {
    fn text(&self) -> String {
        format!("checkpoint {} is complete\n", self.checkpoint)
    }
}
