//! `tidegate run`: becomes the program, so that signals and the exit code are the program's own.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use types::Error;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Start from this snapshot: the program gets it as `--from SNAPSHOT`.
    #[arg(short = 's', long, value_name = "SNAPSHOT")]
    snapshot: Option<OsString>,
    /// The program.
    program: OsString,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Args {
    /// Becomes the program. Returns only if that failed.
    pub(crate) fn exec(self) -> Error {
        let mut command = Command::new(&self.program);
        command.args(self.args);
        if let Some(snapshot) = self.snapshot {
            command.arg("--from").arg(snapshot);
        }
        let error = command.exec();
        let program = self.program.to_string_lossy();
        let advice =
            if program.contains('/') { "" } else { " (a program that is here is written ./PROGRAM)" };
        Error::invalid_job(format!("cannot run {program}{advice}")).with_source(error)
    }
}
