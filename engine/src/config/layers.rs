//! The layers above the code: the configuration file, the environment, the command line.

use std::path::Path;

use env::Env;
use toml::de::{DeTable, DeValue};
use types::{Error, Result};

use super::{
    args::JobArgs,
    names::{self, Variable},
    settings::{SETTINGS, Settings},
};

/// The file that is read if no other is named.
const FILE: &str = "tidegate.toml";

/// `code`, changed by the configuration file, then the environment, then the command line.
///
/// # Errors
/// `InvalidJob` naming where the mistake is.
pub fn resolve(env: &Env, code: Settings, args: &JobArgs) -> Result<Settings> {
    let mut settings = code;
    if let Some((name, text)) = file(env, args.config.as_deref())? {
        for Entry { line, name: setting, text, shown } in entries(&name, &text)? {
            settings.set_shown(&setting, &text, &shown, &format!("{name}, line {line}"))?;
        }
        if args.config.is_none() {
            // Nobody named it, so whoever starts the job may not know of it.
            let path = env.files().canonical(Path::new(&name)).unwrap_or_else(|_| name.into());
            env.warn(&format!("settings of {} apply; environment and command line win", path.display()));
        }
    }
    environment(env, &mut settings)?;
    for given in &args.set {
        let Some((name, value)) = given.split_once('=') else {
            return Err(Error::invalid_job(format!("--set {given:?}: write it as NAME=VALUE")));
        };
        settings.set(name.trim(), value.trim(), "--set")?;
    }
    for (name, value, flag) in args.given() {
        settings.set(name, &value, flag)?;
    }
    settings.checked()
}

fn environment(env: &Env, settings: &mut Settings) -> Result<()> {
    for name in env.vars(names::PREFIX) {
        match names::judge(&name) {
            Variable::Known => {}
            Variable::Mistyped(meant) => {
                return Err(Error::invalid_job(format!(
                    "environment: {name} is no setting, did you mean {meant}?"
                )));
            }
            Variable::Unknown => env.warn(&format!("environment: {name} is no setting, and is not read")),
        }
    }
    for setting in SETTINGS {
        let variable = names::variable(setting.name);
        if let Some(value) = env.var(&variable) {
            settings.set(setting.name, &value, &variable)?;
        }
    }
    Ok(())
}

fn file(env: &Env, named: Option<&str>) -> Result<Option<(String, String)>> {
    let name = named.unwrap_or(FILE);
    let io = |error| Error::io(format!("configuration file {name}"), error);
    let files = env.files();
    let Some(meta) = files.metadata(Path::new(name)).map_err(io)? else {
        return match named {
            None => Ok(None),
            Some(_) => {
                Err(Error::invalid_job(format!("there is no configuration file {name}: check --config")))
            }
        };
    };
    let mut bytes = vec![0; usize::try_from(meta.len.min(1 << 20)).unwrap_or(0)];
    let open = files.open(Path::new(name)).map_err(io)?;
    let filled = open.read_full(0, &mut bytes).map_err(io)?;
    bytes.truncate(filled);
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::invalid_job(format!(
            "configuration file {name} is not UTF-8 at byte {}",
            error.utf8_error().valid_up_to()
        ))
    })?;
    Ok(Some((name.to_owned(), text)))
}

/// A setting of a file.
struct Entry {
    /// The line of its name.
    line: usize,
    name: String,
    /// Its value as the other layers write it.
    text: String,
    /// Its value as it stands in the file.
    shown: String,
}

/// A configuration file that is being read.
struct Reading<'a> {
    file: &'a str,
    text: &'a str,
    entries: Vec<Entry>,
}

/// The settings in a file: `name = value`, or in a `[section]`.
fn entries(file: &str, text: &str) -> Result<Vec<Entry>> {
    let mut reading = Reading { file, text, entries: Vec::new() };
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| reading.line(span.start));
        reading.mistake(line, &error.message().replace('\n', " "))
    })?;
    reading.table("", table.get_ref())?;
    Ok(reading.entries)
}

impl Reading<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text[..at].matches('\n').count()
    }

    fn mistake(&self, line: usize, what: &str) -> Error {
        Error::invalid_job(format!("{}, line {line}: {what}", self.file))
    }

    /// The settings of the section `within`.
    fn table(&mut self, within: &str, table: &DeTable<'_>) -> Result<()> {
        for (key, value) in table {
            let (line, name) = (self.line(key.span().start), format!("{within}{}", key.get_ref()));
            let text = match value.get_ref() {
                DeValue::Table(inner) => {
                    self.table(&format!("{name}."), inner)?;
                    continue;
                }
                value => plain(value).map_err(|wrong| self.mistake(line, &format!("{name} {wrong}")))?,
            };
            // On one line, as a message is.
            let shown = self.text[value.span()].split_whitespace().collect::<Vec<_>>().join(" ");
            self.entries.push(Entry { line, name, text, shown });
        }
        Ok(())
    }
}

/// A value as the other layers write it, or what is wrong with it.
fn plain(value: &DeValue<'_>) -> Result<String, &'static str> {
    Ok(match value {
        DeValue::String(text) => text.clone().into_owned(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| "is too large a number")?
            .to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(set) => set.to_string(),
        DeValue::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
            texts.ok_or("must be a list of texts")?.join(",")
        }
        DeValue::Datetime(_) => return Err("cannot be a date"),
        DeValue::Table(_) => return Err("cannot be a section"),
    })
}
