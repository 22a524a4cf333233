//! Three layers make a configuration: the file, the environment, the flags; the later one wins. Each is checked by
//! itself before they are joined, so that an error can say where it was written.

use std::{fmt, fs, path::Path};

use serde::Deserialize as _;
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{Config, ConfigError, specimen::specimen};

/// What environment variables of ours begin with.
const PREFIX: &str = "XPUSH_";

/// Between two levels of a key in a variable's name; single underscores are part of a word.
const LEVEL: &str = "__";

/// Variables that are not keys of the configuration: those of the command line, of the tests, and those that
/// Kubernetes sets in every container beside a service with the name `xpush`.
const NOT_KEYS: [&str; 8] = ["CONFIG", "URL", "TOKEN", "API_KEY", "BLESS", "TEST_", "SERVICE_", "PORT"];

/// Tables whose keys are names that the operator gives.
const OPEN: [&str; 2] = ["namespaces", "auth.api_keys.grants"];

/// How much alike a wrong key and the suggested one must be, 1 being the same: two slips in a short word.
const ALIKE: f64 = 0.6;

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    File { path: String, line: Option<usize> },
    Environment { variable: String },
    Flag { key: String },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{path}, line {line}"),
            Self::File { path, line: None } => f.write_str(path),
            Self::Environment { variable } => write!(f, "the environment variable {variable}"),
            Self::Flag { key } => write!(f, "the flag for {key}"),
        }
    }
}

/// The file's layer.
pub(super) fn file(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|reason| ConfigError::Unreadable { path: path.to_owned(), reason: reason.to_string() })?;
    let place = |line| Place::File { path: path.display().to_string(), line };
    let wrong = |error: toml::de::Error| {
        let position = error.span().map(|span| Position::of(&text, span.start));
        ConfigError::Value {
            place: place(position.as_ref().map(|position| position.line)),
            key: position.and_then(|position| position.key),
            problem: one_line(error.message()),
        }
    };
    let table: Table = toml::from_str(&text).map_err(wrong)?;
    if let Some(path) = unknown(&table, &specimen(), &mut vec![]) {
        return Err(unknown_key(&path, place(line_of(&text, &path))));
    }
    toml::from_str::<Config>(&text).map_err(wrong)?;
    Ok(table)
}

/// The environment's layer: `XPUSH_LISTEN__HTTP` is `listen.http`.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Table, ConfigError> {
    let mut layer = Table::new();
    for (variable, text) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        if NOT_KEYS.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let key = name.to_lowercase().replace(LEVEL, ".");
        join(&mut layer, single(&key, &text, &Place::Environment { variable })?);
    }
    Ok(layer)
}

/// The flags' layer.
pub(super) fn flags(overrides: impl IntoIterator<Item = (String, String)>) -> Result<Table, ConfigError> {
    let mut layer = Table::new();
    for (key, text) in overrides {
        join(&mut layer, single(&key, &text, &Place::Flag { key: key.clone() })?);
    }
    Ok(layer)
}

/// Lays `upper` over `lower`: tables are joined, everything else is replaced.
pub(super) fn join(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => join(lower, upper),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// A layer of one key, whose value is written as text.
fn single(key: &str, text: &str, place: &Place) -> Result<Table, ConfigError> {
    let path: Vec<String> = key.split('.').map(str::to_owned).collect();
    let kind = at(&specimen(), &path).ok_or_else(|| unknown_key(&path, place.clone()))?;
    let wrong = |problem| ConfigError::Value { place: place.clone(), key: Some(key.to_owned()), problem };
    let value = parse(text, &kind).map_err(wrong)?;
    let layer = path.iter().rev().fold(value, |inner, key| {
        let mut table = Table::new();
        table.insert(key.clone(), inner);
        Value::Table(table)
    });
    let Value::Table(layer) = layer else { return Ok(Table::new()) };
    if let Some(path) = unknown(&layer, &specimen(), &mut vec![]) {
        return Err(unknown_key(&path, place.clone()));
    }
    Config::deserialize(layer.clone()).map_err(|error| wrong(one_line(error.message())))?;
    Ok(layer)
}

/// The value that a text stands for where one like `kind` is expected.
fn parse(text: &str, kind: &Value) -> Result<Value, String> {
    match kind {
        Value::Integer(_) => {
            let number = text.trim().replace('_', "").parse();
            number.map(Value::Integer).map_err(|_| format!("expected a whole number, found {text:?}"))
        }
        Value::Boolean(_) => {
            let truth = text.trim().parse();
            truth.map(Value::Boolean).map_err(|_| format!("expected true or false, found {text:?}"))
        }
        Value::Array(_) | Value::Table(_) if text.trim_start().starts_with(['[', '{']) => {
            let mut table: Table = toml::from_str(&format!("value = {text}")).map_err(|error| {
                format!("expected a value as TOML writes it: {}", one_line(error.message()))
            })?;
            table.remove("value").ok_or_else(|| "expected a value as TOML writes it".to_owned())
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// The specimen's value for a key.
fn at(specimen: &Table, path: &[String]) -> Option<Value> {
    let mut value = Value::Table(specimen.clone());
    for (depth, key) in path.iter().enumerate() {
        value = match value {
            Value::Table(table) if is_open(&path[..depth]) => table.into_iter().next()?.1,
            Value::Table(mut table) => table.remove(key)?,
            // A step with an index: what holds for one entry of a list holds for all.
            Value::Array(list) if key.parse::<usize>().is_ok() => list.into_iter().next()?,
            _ => return None,
        };
    }
    Some(value)
}

/// The path of the first key that the specimen does not have. Entries of a list are steps with their index.
fn unknown(table: &Table, specimen: &Table, path: &mut Vec<String>) -> Option<Vec<String>> {
    for (key, value) in table {
        let known = if is_open(path) { specimen.values().next() } else { specimen.get(key) };
        path.push(key.clone());
        let Some(known) = known else { return Some(path.clone()) };
        let found = match (value, known) {
            (Value::Table(table), Value::Table(known)) => unknown(table, known, path),
            (Value::Array(list), Value::Array(known)) => {
                let Some(Value::Table(known)) = known.first() else {
                    path.pop();
                    continue;
                };
                list.iter().enumerate().find_map(|(index, entry)| {
                    path.push(index.to_string());
                    let found = entry.as_table().and_then(|entry| unknown(entry, known, path));
                    path.pop();
                    found
                })
            }
            _ => None,
        };
        if found.is_some() {
            return found;
        }
        path.pop();
    }
    None
}

fn is_open(path: &[String]) -> bool {
    OPEN.contains(&&*written(path))
}

/// A path as people write it: the indices of list entries are left out.
fn written(path: &[String]) -> String {
    let words: Vec<&str> =
        path.iter().map(|step| &**step).filter(|step| step.parse::<usize>().is_err()).collect();
    words.join(".")
}

fn unknown_key(path: &[String], place: Place) -> ConfigError {
    ConfigError::UnknownKey { key: written(path), place, suggestion: suggestion(path) }
}

/// The known key that is most like this one: of the same section, or another whose last word is the same, or that
/// is alike as a whole.
fn suggestion(path: &[String]) -> Option<String> {
    let (word, section) = path.split_last()?;
    let mut known = vec![];
    if let Some(Value::Table(siblings)) = at(&specimen(), section) {
        for sibling in siblings.keys() {
            let likeness = strsim::normalized_damerau_levenshtein(sibling, word);
            known.push((likeness, written(&[section, std::slice::from_ref(sibling)].concat())));
        }
    }
    let mut all = vec![];
    all_keys(&specimen(), "", &mut all);
    for key in all {
        let is_same_word = key.rsplit('.').next() == Some(word);
        let likeness = strsim::normalized_damerau_levenshtein(&key, &written(path));
        known.push((if is_same_word { 1.0 } else { likeness }, key));
    }
    let best = known.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= ALIKE).map(|(_, key)| key)
}

fn all_keys(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(table) if !OPEN.contains(&&*key) => all_keys(table, &key, keys),
            Value::Array(list) => {
                if let Some(Value::Table(table)) = list.first() {
                    all_keys(table, &key, keys);
                }
            }
            _ => {}
        }
        keys.push(key);
    }
}

/// Where an error is in the file.
struct Position {
    line: usize,
    /// What the line begins with. Its value is not shown: it may be a secret.
    key: Option<String>,
}

impl Position {
    fn of(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[begin..].lines().next().unwrap_or_default();
        let key = line.split_once('=').map(|(key, _)| key.trim().to_owned());
        Self { line: before.matches('\n').count() + 1, key }
    }
}

/// The line on which a key stands.
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let mut value = &DeValue::Table(DeTable::parse(text).ok()?.into_inner());
    let mut begin = None;
    for step in path {
        value = match value {
            DeValue::Table(entries) => {
                let (key, inner) = entries.get_key_value(&**step)?;
                begin = Some(key.span().start);
                inner.get_ref()
            }
            DeValue::Array(entries) => entries.get(step.parse::<usize>().ok()?)?.get_ref(),
            _ => return None,
        };
    }
    begin.map(|begin| Position::of(text, begin).line)
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
