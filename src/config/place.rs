//! Where each setting was said: a place in the file, a variable of the environment, or a flag.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the settings came from, by their dotted keys: `parent.url`, `upstream[1].listen`.
#[derive(Debug, Default)]
pub struct Places {
    path: Option<PathBuf>,
    text: String,
    /// In the file: of the key, and of its value.
    spans: BTreeMap<String, (Span, Span)>,
    /// Over the file: a variable or a flag, as it is written.
    given: BTreeMap<String, String>,
    /// Variables that look as if they were meant for a setting, and are for none.
    pub(super) strays: Vec<Remark>,
}

type Span = Range<usize>;

/// What is said of one setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remark {
    /// Its dotted key; empty: the file as a whole.
    pub key: String,
    /// Reason and remedy.
    pub words: String,
}

/// A [`Remark`] with its place, as it is shown.
#[derive(Clone, Debug)]
pub struct Placed {
    /// `wharf.toml:12:9`, a variable, a flag; `settings` for what nobody wrote.
    pub at: String,
    /// What is said.
    pub remark: Remark,
    /// The line of the file with a mark below; empty where it is not shown.
    quote: String,
    /// Where in the file; 0 for what is not there.
    offset: usize,
}

impl Placed {
    /// As it is shown where nothing is refused for it.
    pub fn warning(&self) -> String {
        self.told("warning: ")
    }

    fn told(&self, kind: &str) -> String {
        let Remark { key, words } = &self.remark;
        let colon = if key.is_empty() { "" } else { ": " };
        format!("{}: {kind}{key}{colon}{words}{}", self.at, self.quote)
    }

    /// The place without its column.
    pub(super) fn line(&self) -> &str {
        self.at.rsplit_once(':').map_or(&self.at, |(line, _)| line)
    }
}

impl Remark {
    /// `words` are the reason and the remedy.
    pub fn new(key: impl Into<String>, words: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            words: words.into(),
        }
    }
}

impl Places {
    /// Of a file with this text, read as this table.
    pub(super) fn of(path: &Path, text: &str, table: &DeTable<'_>) -> Self {
        let mut spans = BTreeMap::new();
        enter(&mut spans, "", table);
        Self {
            path: Some(path.to_owned()),
            text: text.to_owned(),
            spans,
            given: BTreeMap::new(),
            strays: Vec::new(),
        }
    }

    /// Of a file with this text that cannot be read as TOML.
    pub(super) fn unread(path: &Path, text: &str) -> Self {
        Self {
            path: Some(path.to_owned()),
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// From now on `key` was said by `name`, a variable or a flag.
    pub(super) fn give(&mut self, key: String, name: String) {
        self.given.insert(key, name);
    }

    /// What the file says.
    pub(super) fn keys(&self) -> std::collections::BTreeSet<String> {
        self.spans.keys().cloned().collect()
    }

    /// Whether somebody said it, wherever.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.spans.contains_key(key) || self.is_given(key)
    }

    /// Whether a variable or flag said it, and not the file.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// The remarks with their places, in the order of the file.
    pub fn place_all(&self, remarks: Vec<Remark>) -> Vec<Placed> {
        let mut placed: Vec<Placed> = remarks.into_iter().map(|remark| self.place(remark)).collect();
        placed.sort_by_key(|placed| placed.offset);
        placed
    }

    /// The remark with the place of its key; of the nearest one around it, where that is not written.
    fn place(&self, remark: Remark) -> Placed {
        let mut key = remark.key.as_str();
        loop {
            if let Some(name) = self.given_as(key) {
                return Placed {
                    at: name.to_owned(),
                    quote: String::new(),
                    remark,
                    offset: 0,
                };
            }
            if let Some((name, value)) = self.spans.get(key) {
                // What is too much, and what is missing, is seen at the key.
                let is_value = key == remark.key && !remark.words.starts_with("unknown");
                let span = if is_value { value } else { name }.clone();
                return self.at(&span, remark);
            }
            if key.is_empty() {
                return Placed {
                    at: self.whole(),
                    quote: String::new(),
                    remark,
                    offset: 0,
                };
            }
            key = key.rfind(['.', '[']).map_or("", |end| &key[..end]);
        }
    }

    /// The remark at a place of the file.
    pub(super) fn at(&self, span: &Span, remark: Remark) -> Placed {
        let start = span.start.min(self.text.len());
        let begin = self.line_begin(start);
        let number = self.text[..begin].matches('\n').count() + 1;
        let line = self.line_at(start);
        let column = self.text[begin..start].chars().count() + 1;
        let end = span.end.clamp(start, (begin + line.len()).max(start));
        let width = self.text[start..end].chars().count().max(1);
        let quote = if is_quotable(line) {
            let gutter = " ".repeat(number.to_string().len());
            let before: String = self.text[begin..start].chars().map(blank).collect();
            format!(
                "\n{gutter} |\n{number} | {line}\n{gutter} | {before}{}",
                "^".repeat(width)
            )
        } else {
            String::new()
        };
        Placed {
            at: format!("{}:{number}:{column}", self.whole()),
            remark,
            quote,
            offset: start,
        }
    }

    /// The line around an offset.
    pub(super) fn line_at(&self, offset: usize) -> &str {
        self.text[self.line_begin(offset)..].lines().next().unwrap_or_default()
    }

    fn line_begin(&self, offset: usize) -> usize {
        let before = &self.text[..offset.min(self.text.len())];
        before.rfind('\n').map_or(0, |end| end + 1)
    }

    /// A section has no name of its own in the environment: any of its keys tells.
    fn given_as(&self, key: &str) -> Option<&str> {
        let within = |(given, _): &(&String, &String)| {
            *given == key || (!self.spans.contains_key(key) && given.starts_with(&format!("{key}.")))
        };
        let name = self.given.iter().find(within).map(|(_, name)| name.as_str());
        name.filter(|_| !key.is_empty())
    }

    fn whole(&self) -> String {
        let path = self.path.as_ref();
        path.map_or_else(|| "settings".to_owned(), |path| path.display().to_string())
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(""))
    }
}

fn enter(spans: &mut BTreeMap<String, (Span, Span)>, around: &str, table: &DeTable<'_>) {
    for (name, value) in table {
        let dot = if around.is_empty() { "" } else { "." };
        let key = format!("{around}{dot}{}", name.get_ref());
        enter_value(spans, key, name.span(), value);
    }
}

fn enter_value(spans: &mut BTreeMap<String, (Span, Span)>, key: String, name: Span, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::Table(table) => enter(spans, &key, table),
        DeValue::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                enter_value(spans, format!("{key}[{index}]"), value.span(), value);
            }
        }
        _ => {}
    }
    spans.insert(key, (name, value.span()));
}

/// A line that may hold a secret is shown to nobody.
fn is_quotable(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    !["password", "secret", "token", "@", "?"]
        .iter()
        .any(|word| line.contains(word))
}

fn blank(letter: char) -> char {
    if letter == '\t' { '\t' } else { ' ' }
}
