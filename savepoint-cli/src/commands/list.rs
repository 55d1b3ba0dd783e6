//! `tidegate list`: the running jobs at an address.

use env::Env;
use types::{Result, rest::JobList};

use crate::{
    client::{Address, Client},
    format::{or_dash, span, table},
    output::{Output, Report},
};

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::status::NUMBERS)]
pub(crate) struct Args {
    #[command(flatten)]
    address: Address,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let jobs: JobList = Client::new(env, args.address)?.get("/jobs").await?;
    output.show(&jobs)
}

impl Report for JobList {
    fn text(&self) -> String {
        let head = ["JOB", "STATE", ">ATTEMPT", "UPTIME", ">RESTARTS", ">CHECKPOINTS"];
        let rows = self.jobs.iter().map(|job| {
            vec![
                job.name.clone(),
                job.state.clone(),
                or_dash(job.attempt),
                span(job.uptime_ms),
                job.restarts.to_string(),
                job.checkpoints.to_string(),
            ]
        });
        table(&head, rows)
    }
}
