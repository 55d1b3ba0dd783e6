//! The layers above the code: the configuration file, the environment, the command line.

use std::path::Path;

use env::Env;
use types::{Error, Result};

use super::{
    args::JobArgs,
    settings::{SETTINGS, Settings},
};

/// The file that is read if no other is named.
const FILE: &str = "tidegate.toml";

/// `code`, changed by the configuration file, then the environment, then the command line.
///
/// # Errors
/// `InvalidJob` naming where the mistake is; `BadInput` if a named file is missing.
pub fn resolve(env: &Env, code: Settings, args: &JobArgs) -> Result<Settings> {
    let mut settings = code;
    if let Some((name, text)) = file(env, args.config.as_deref())? {
        for (key, value) in entries(&name, &text)? {
            settings.set(&key, &value, &name)?;
        }
    }
    for setting in SETTINGS {
        let variable = format!("TIDEGATE_{}", setting.name.to_uppercase().replace(['.', '-'], "_"));
        if let Some(value) = env.var(&variable) {
            settings.set(setting.name, &value, &variable)?;
        }
    }
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

/// The settings in a file: `name = value`, or in a `[section]`.
fn entries(name: &str, text: &str) -> Result<Vec<(String, String)>> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        Error::invalid_job(format!("{name}, line {line}: {}", error.message().replace('\n', " ")))
    })?;
    let mut entries = Vec::new();
    for (key, value) in &table {
        flatten(name, key, value, &mut entries)?;
    }
    Ok(entries)
}

fn flatten(file: &str, key: &str, value: &toml::Value, into: &mut Vec<(String, String)>) -> Result<()> {
    let text = match value {
        toml::Value::Table(table) => {
            for (inner, value) in table {
                flatten(file, &format!("{key}.{inner}"), value, into)?;
            }
            return Ok(());
        }
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(set) => set.to_string(),
        toml::Value::Array(items) => {
            let text = |item: &toml::Value| item.as_str().map(ToOwned::to_owned);
            let texts: Option<Vec<String>> = items.iter().map(text).collect();
            texts
                .ok_or_else(|| Error::invalid_job(format!("{file}: {key} must be a list of texts")))?
                .join(",")
        }
        toml::Value::Datetime(_) => {
            return Err(Error::invalid_job(format!("{file}: {key} cannot be a date")));
        }
    };
    into.push((key.to_owned(), text));
    Ok(())
}
