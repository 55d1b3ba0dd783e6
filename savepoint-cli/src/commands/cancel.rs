//! `tidegate cancel`: returns when the job has ended, without a last checkpoint.

use env::Env;
use types::{
    Result,
    rest::{JobEnded, NoOptions},
};

use crate::{
    client::{Address, Client, path},
    output::Output,
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
    let ended: JobEnded = client.post(&path(&job, "/cancel"), NoOptions {}, "cancelling the job").await?;
    output.show(&ended)
}
