//! A table of settings, read section by section, until everything that is wrong in it is known.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::place::{Places, Remark};
use super::words::{self, joined};

/// What is being read. Each section is asked for by its name; what nobody asked for is unknown.
pub(super) struct Reader<'a> {
    table: Table,
    places: &'a Places,
    asked: Vec<&'static str>,
    wrong: Vec<Remark>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(table: Table, places: &'a Places) -> Self {
        Self {
            table,
            places,
            asked: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// A setting outside of all sections.
    pub(super) fn value<T: DeserializeOwned + Default>(&mut self, key: &'static str) -> T {
        let value = self.take(key);
        value.and_then(|value| self.read(key, value)).unwrap_or_default()
    }

    /// `[key]`, or its default.
    pub(super) fn section<T: DeserializeOwned + Default>(&mut self, key: &'static str) -> T {
        self.section_or(key, T::default)
    }

    /// `[key]`, or what it is without.
    pub(super) fn section_or<T: DeserializeOwned>(&mut self, key: &'static str, without: impl FnOnce() -> T) -> T {
        let read = match self.take(key) {
            None => None,
            Some(section @ Value::Table(_)) => self.read(key, section),
            Some(other) => {
                let is = if other.is_array() { "a list" } else { "a value" };
                self.refuse(
                    key,
                    &format!("is {is}, and a section is wanted; write [{key}] on a line of its own"),
                );
                None
            }
        };
        read.unwrap_or_else(without)
    }

    /// All of `[[key]]`.
    pub(super) fn list<T: DeserializeOwned>(&mut self, key: &'static str) -> Vec<T> {
        let members = match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(members)) if members.iter().all(Value::is_table) => members,
            Some(_) => {
                self.refuse(
                    key,
                    &format!("is one of any number; write [[{key}]], with two brackets, before each"),
                );
                Vec::new()
            }
        };
        let numbered = members.into_iter().enumerate();
        numbered
            .filter_map(|(index, member)| self.read(&format!("{key}[{index}]"), member))
            .collect()
    }

    /// Everything that is wrong.
    pub(super) fn wrong(mut self) -> Vec<Remark> {
        for (key, _) in &self.table {
            self.wrong
                .push(Remark::new(key, words::unknown_key("", key, &self.asked)));
        }
        self.wrong
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }

    fn refuse(&mut self, key: &str, words: &str) {
        self.wrong.push(Remark::new(key, words));
    }

    /// Reads `value`; as long as something in it is wrong, that is noted and left off, so that the next fault is seen.
    fn read<T: DeserializeOwned>(&mut self, section: &str, mut value: Value) -> Option<T> {
        let mut left_off: Vec<String> = Vec::new();
        loop {
            let remark = match T::deserialize(value.clone()) {
                Ok(read) => return left_off.is_empty().then_some(read),
                Err(error) => words::remark(section, &value, &error),
            };
            let key = remark.key.strip_prefix(section).unwrap_or_default();
            let name = key.trim_start_matches('.').to_owned();
            if self.places.is_given(&remark.key) && as_text(&mut value, &name) {
                continue;
            }
            // What follows from a fault is none of its own.
            if !left_off
                .iter()
                .any(|left| name == *left || mentions(&remark.words, left))
            {
                left_off.extend(meant(&remark.words));
                self.wrong.push(remark);
            }
            if !leave_off(&mut value, &name) {
                return None;
            }
            left_off.push(name);
        }
    }
}

/// Lays one value over what the file says; sections are made as needed. `false`: something else is where a section
/// would have to be.
pub(super) fn lay_over(table: &mut Table, key: &[&str], value: Value) -> bool {
    let Some((first, rest)) = key.split_first() else {
        return false;
    };
    if rest.is_empty() {
        table.insert((*first).to_owned(), value);
        return true;
    }
    let section = table
        .entry((*first).to_owned())
        .or_insert_with(|| Value::Table(Table::new()));
    match section {
        Value::Table(section) => lay_over(section, rest, value),
        _ => false,
    }
}

/// What commands that ask a running node look at.
const OF_COMMANDS: [&str; 5] = [
    "WHARF_ADMIN_TOKEN",
    "WHARF_ADMIN_TOKEN_FILE",
    "WHARF_ADMIN_CA_FILE",
    "WHARF_ADMIN_CERTIFICATE_FILE",
    "WHARF_ADMIN_KEY_FILE",
];

/// The variable that was probably meant by one with an underscore too few. Whoever names a machine `wharf` has variables
/// of that name without meaning us, so only what begins like a section counts.
pub(super) fn meant_by(name: &str) -> Option<String> {
    const SECTIONS: [&str; 8] = [
        "NODE",
        "LISTEN",
        "ADMIN",
        "STORAGE",
        "PARENT",
        "FRESHNESS",
        "LIMITS",
        "LOG",
    ];
    let (section, key) = name.strip_prefix("WHARF_")?.split_once('_')?;
    let key = key.trim_start_matches('_');
    let is_of_a_service = ["SERVICE", "PORT"].iter().any(|word| key.starts_with(word));
    (SECTIONS.contains(&section) && !key.is_empty() && !is_of_a_service && !OF_COMMANDS.contains(&name))
        .then(|| format!("WHARF__{section}__{key}"))
}

/// A variable's text as TOML if it is a number, a truth or a list; else as a string.
pub(super) fn typed(text: &str) -> Value {
    let parsed = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"));
    match parsed {
        Some(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

/// A variable that looks like a number may be a text all the same. `false`: it is one already.
fn as_text(value: &mut Value, name: &str) -> bool {
    let Some(here) = found(value, name) else { return false };
    if !matches!(here, Value::Integer(_) | Value::Boolean(_)) {
        return false;
    }
    *here = Value::String(here.to_string());
    true
}

fn leave_off(value: &mut Value, name: &str) -> bool {
    let (around, last) = name.rsplit_once('.').unwrap_or(("", name));
    let section = found(value, around).and_then(Value::as_table_mut);
    section.is_some_and(|section| section.remove(without_index(last)).is_some())
}

fn found<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    name.split('.')
        .filter(|key| !key.is_empty())
        .try_fold(value, |value, key| value.get_mut(without_index(key)))
}

fn without_index(key: &str) -> &str {
    key.split('[').next().unwrap_or_default()
}

/// The key that an unknown one was probably meant to be: it will be found missing next.
fn meant(words: &str) -> Option<String> {
    let near = words.strip_prefix("unknown; did you mean ")?.strip_suffix('?')?;
    Some(joined("", near))
}

fn mentions(words: &str, key: &str) -> bool {
    let mut parts = words.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    parts.any(|word| word == key)
}
