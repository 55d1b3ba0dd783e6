//! `tidegate savepoint`: returns when the savepoint is whole.

use env::Env;
use types::{
    Error, Result,
    rest::{SavepointRequest, SavepointTaken},
};

use crate::{
    client::{Address, Client, path},
    output::{Output, Report},
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The job's name; not needed where there is one job. A single argument with a `/` or a `:` in it is DIR.
    job: Option<String>,
    /// An empty directory or a new one; if none is given, the job makes one beside its checkpoint directory.
    dir: Option<String>,
    #[command(flatten)]
    address: Address,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let client = Client::new(env, args.address)?;
    // Whoever gives one word may have meant a directory.
    let only = args.job.clone().filter(|_| args.dir.is_none());
    let (job, dir) = match (args.job, args.dir) {
        (Some(only), None) if only.contains(['/', ':']) => (None, Some(only)),
        both => both,
    };
    let job = client.job(job).await?;
    let request = SavepointRequest { dir: dir.map(|dir| absolute(&dir)).transpose()? };
    let what = "copying a checkpoint";
    let taken: Result<SavepointTaken> = client.post(&path(&job, "/savepoint"), request, what).await;
    match (taken, only) {
        (Err(error), Some(word)) if !word.contains(['/', ':']) && names_no_job(&client, &word).await => {
            Err(Error::new(error.kind(), format!("{error}; a directory is written ./{word}")))
        }
        (taken, _) => output.show(&taken?),
    }
}

async fn names_no_job(client: &Client, word: &String) -> bool {
    client.names().await.is_ok_and(|names| !names.contains(word))
}

/// The directory as the job must be told it: the job runs elsewhere.
pub(super) fn absolute(dir: &str) -> Result<String> {
    if dir.contains(':') {
        return Ok(dir.to_owned());
    }
    let path = std::path::absolute(dir);
    let path = path.map_err(|error| Error::invalid_job(format!("{dir:?} is no path")).with_source(error))?;
    path.into_os_string().into_string().map_err(|_| Error::invalid_job(format!("{dir} is not UTF-8")))
}

impl Report for SavepointTaken {
    fn text(&self) -> String {
        let Self { checkpoint, dir } = self;
        format!("savepoint of checkpoint {checkpoint} is complete: {dir}\nstart from it with --from {dir}\n")
    }
}
