//! `tidegate run`: becomes the program, so that signals and the exit code are the program's own.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use types::Error;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Start from this snapshot: the program gets it as `--from SNAPSHOT`.
    #[arg(short = 's', long = "from", visible_alias = "snapshot", value_name = "SNAPSHOT")]
    snapshot: Option<OsString>,
    /// The program and its arguments.
    #[arg(
        value_name = "PROGRAM [ARGS]",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    program: Vec<OsString>,
}

impl Args {
    /// Becomes the program. Returns only if that failed.
    pub(crate) fn exec(self) -> Error {
        let Some((program, args)) = self.program.split_first() else {
            return Error::invalid_job("give the program to run");
        };
        let mut command = Command::new(program);
        command.args(args);
        if let Some(snapshot) = self.snapshot {
            command.arg("--from").arg(snapshot);
        }
        let error = command.exec();
        let program = program.to_string_lossy();
        let advice =
            if program.contains('/') { "" } else { " (a program that is here is written ./PROGRAM)" };
        Error::invalid_job(format!("cannot run {program}{advice}")).with_source(error)
    }
}
