//! `tidegate stop`: returns when the job has ended with a last checkpoint.

use env::Env;
use types::{
    Error, Result,
    rest::{JobEnded, StopRequest},
};

use super::savepoint::absolute;
use crate::{
    client::{Address, Client, path},
    output::{Output, Report},
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The job's name; not needed where there is one job.
    job: Option<String>,
    /// Copy the last checkpoint into this directory.
    #[arg(long, value_name = "DIR")]
    savepoint: Option<String>,
    /// Fire all event-time timers first: for a job whose input will not go on.
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    address: Address,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let client = Client::new(env, args.address)?;
    let job = client.job(args.job).await?;
    let savepoint = args.savepoint.map(|dir| absolute(&dir)).transpose()?;
    let request = StopRequest { drain: args.drain, savepoint };
    let ended: JobEnded = client.post(&path(&job, "/stop"), request, "stopping the job").await?;
    output.show(&ended)?;
    match ended.savepoint_failure {
        None => Ok(()),
        Some(why) => Err(Error::unavailable(format!("the job has ended, but there is no savepoint: {why}"))),
    }
}

impl Report for JobEnded {
    fn text(&self) -> String {
        let mut text = format!(
            "the job has {}",
            match self.how.as_str() {
                "finished" => "finished",
                "cancelled" => "been cancelled",
                _ => "stopped",
            }
        );
        if let Some(checkpoint) = self.checkpoint {
            text += &format!(" with checkpoint {checkpoint}");
        }
        text += "\n";
        if let Some(dir) = &self.savepoint {
            text += &format!("savepoint: {dir}\nstart from it with --from {dir}\n");
        }
        text
    }
}
