//! The one place that writes to the terminal. Standard output is what was asked for; standard error is errors and
//! progress. A reader that goes away (`| head`) ends the writing and changes nothing else.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the command line speaks to people here, and only here"
)]

use std::{
    io::{self, ErrorKind as Io, IsTerminal, Write},
    process::ExitCode,
};

use clap::error::ErrorKind as Usage;
use serde::Serialize;
use types::{Error, ErrorKind, Result, rest::ErrorAnswer};

/// What a command found: JSON by its fields, text for people.
pub(crate) trait Report: Serialize {
    /// The text, lines ended by `\n`.
    fn text(&self) -> String;
}

/// Where reports and the final error go.
pub(crate) struct Output {
    json: bool,
    /// Standard output could not be written, and not because its reader left.
    failed: Option<io::Error>,
    /// Nobody reads standard output any more.
    left: bool,
    /// With which a command that did what it was asked ends.
    code: u8,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, failed: None, left: false, code: 0 }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// From now on reports and errors are JSON.
    pub(crate) fn set_json(&mut self) {
        self.json = true;
    }

    /// A command that does what it was asked ends with this exit code.
    pub(crate) fn set_code(&mut self, code: u8) {
        self.code = code;
    }

    /// Whether what is written appears where progress would.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether somebody reads what is written: there may be more than anybody wants.
    pub(crate) fn has_reader(&self) -> bool {
        self.failed.is_none() && !self.left
    }

    /// Shows what a command found.
    ///
    /// # Errors
    /// `Internal` if it cannot be said in JSON.
    pub(crate) fn show(&mut self, report: &impl Report) -> Result<()> {
        let text = if self.json {
            let json = serde_json::to_string_pretty(report);
            json.map_err(|error| Error::internal("a report is not JSON").with_source(error))? + "\n"
        } else {
            report.text()
        };
        self.write(text.as_bytes());
        Ok(())
    }

    /// Writes a piece of what a command found, where it is too long to be kept.
    pub(crate) fn write(&mut self, piece: &[u8]) {
        if !self.has_reader() {
            return;
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(piece).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == Io::BrokenPipe => self.left = true,
            Err(error) => self.failed = Some(error),
            Ok(()) => {}
        }
    }

    /// Says something beside the report that people may wonder about.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            warn(text);
        }
    }

    /// The exit code of the command, after one line about what went wrong.
    pub(crate) fn end(self, done: Result<()>) -> ExitCode {
        match (done, self.failed) {
            (Err(error), _) => {
                self::error(&error, self.json);
                ExitCode::from(error.kind().exit_code())
            }
            (Ok(()), Some(error)) => {
                warn(&format!("error: cannot write the output: {error}"));
                ExitCode::FAILURE
            }
            (Ok(()), None) => ExitCode::from(self.code),
        }
    }
}

fn error(error: &Error, json: bool) {
    match serde_json::to_string(&ErrorAnswer::from(error)) {
        Ok(line) if json => warn(&line),
        _ => warn(&format!("error: {}", one_line(&error.to_string()))),
    }
}

/// Shows what clap says: help as it is, a mistake as one line.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion) {
        // The reader of a help text may have gone.
        let _gone = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or(&text);
    let said = said.split("\n\nFor more information").next().unwrap_or(said);
    let said = one_line(&said.strip_prefix("error: ").unwrap_or(said).replace("\n\n  tip: ", "; "));
    let said = said.replace(" tip: ", "; ");
    let said = if said.is_empty() || error.kind() == Usage::DisplayHelpOnMissingArgumentOrSubcommand {
        "give a command".to_owned()
    } else {
        said
    };
    warn(&format!("error: {said}; see tidegate --help"));
    ExitCode::from(ErrorKind::InvalidJob.exit_code())
}

/// A panic is a mistake of ours; it is said in one line, and the exit code says so, too.
pub(crate) fn one_line_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let owned = payload.downcast_ref::<String>().map(String::as_str);
        let text = owned.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
        warn(&format!("error: a mistake in tidegate at {place}: {}", one_line(text)));
        std::process::exit(ErrorKind::Internal.exit_code().into());
    }));
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn warn(line: &str) {
    // Nobody is left to be told.
    let _gone = writeln!(io::stderr(), "{line}");
}
