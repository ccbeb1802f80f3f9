//! What a deserializer says of a value, in the words of whoever wrote it.

use toml::{Table, Value};

use super::place::Remark;

/// What `error` says, which came of reading the section `section` out of `value`.
pub(super) fn remark(section: &str, value: &Value, error: &toml::de::Error) -> Remark {
    let message = error.message();
    let within = within(error);
    let key = joined(section, &within);
    let here = at(value, &within).unwrap_or(value);
    if let Some((name, known)) = unknown(message, "field") {
        return Remark::new(joined(&key, name), unknown_key(&key, name, &known));
    }
    if let Some((_, known)) = unknown(message, "variant") {
        return match here.as_str() {
            Some(written) => Remark::new(key, unknown_word(written, &known)),
            None => wrong_type(key, here, "a string"),
        };
    }
    if let Some((_, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        return wrong_type(key, here, expected);
    }
    of_room(key, here, message)
}

/// What the TOML parser says of a line, with a remedy.
pub(super) fn syntax(message: &str, line: &str) -> String {
    let remedy = match message {
        "duplicate key" => {
            let key = line.split(['=', '.']).next().unwrap_or_default().trim();
            return format!("not TOML: {key} stands here for the second time; leave one of the two off");
        }
        _ if line.trim_start().starts_with('[') => "a section begins with [name] or [[upstream]], alone on its line",
        _ if message.contains("must be quoted") => "put the value into double quotes",
        _ => "a setting is key = \"value\", with the value in double quotes, alone on its line",
    };
    format!("not TOML: {message}; {remedy}")
}

/// What a section or a word may be, where it is something else.
pub(super) fn unknown_key(section: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("unknown; did you mean {near}?"),
        None if section.is_empty() => format!("unknown; there are {}", known.join(", ")),
        None => format!("unknown; {section} has {}", known.join(", ")),
    }
}

/// The one of `known` that was probably meant.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = |near: &&str| strsim::jaro_winkler(name, near);
    let best = known.iter().max_by(|one, other| close(one).total_cmp(&close(other)))?;
    (close(best) > 0.85).then_some(best)
}

/// The keys that lead to the value, dotted; the deserializer tells them behind its message.
fn within(error: &toml::de::Error) -> String {
    let whole = error.to_string();
    let behind = whole.strip_prefix(error.message()).unwrap_or_default().trim();
    let keys = behind.strip_prefix("in `").and_then(|keys| keys.strip_suffix('`'));
    keys.unwrap_or_default().to_owned()
}

pub(super) fn joined(section: &str, key: &str) -> String {
    match (section, key) {
        ("", key) => key.to_owned(),
        (section, "") => section.to_owned(),
        (section, key) => format!("{section}.{key}"),
    }
}

fn at<'a>(value: &'a Value, keys: &str) -> Option<&'a Value> {
    keys.split('.')
        .filter(|key| !key.is_empty())
        .try_fold(value, |value, key| value.get(key))
}

/// The name and those that are known, of "unknown field `a`, expected one of `b`, `c`".
fn unknown<'a>(message: &'a str, what: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let rest = message.strip_prefix(&format!("unknown {what} `"))?;
    let (name, rest) = rest.split_once("`, ")?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

fn unknown_word(written: &str, known: &[&str]) -> String {
    match nearest(&written.to_ascii_lowercase(), known) {
        Some(near) => format!("{written:?} is not known; did you mean {near:?}?"),
        None => format!("{written:?} is not known; write one of {}", known.join(", ")),
    }
}

fn wrong_type(key: String, value: &Value, expected: &str) -> Remark {
    let wants = Wanted::of(expected);
    // A list whose members are wrong is not named by its member.
    if let (Value::Array(members), Wanted::Text) = (value, &wants)
        && let Some(index) = members.iter().position(|member| !member.is_str())
    {
        return wrong_type(format!("{key}[{index}]"), &members[index], expected);
    }
    let is = match value {
        Value::String(_) => "is text".to_owned(),
        Value::Integer(number) => format!("is the number {number}"),
        Value::Float(number) => format!("is the number {number}"),
        Value::Boolean(truth) => format!("is {truth}"),
        Value::Datetime(_) => "is a date".to_owned(),
        Value::Array(_) => "is a list".to_owned(),
        Value::Table(_) => "is a section".to_owned(),
    };
    let remedy = match (&wants, value) {
        (Wanted::Text, Value::Integer(_) | Value::Float(_)) => format!("\"{value}\", in quotes"),
        (Wanted::Text, _) => "one value in quotes".to_owned(),
        (Wanted::List, Value::String(_)) => format!("[{value}], in brackets"),
        (Wanted::List, _) => "[\"a\", \"b\"], in brackets and quotes".to_owned(),
        (Wanted::Number, Value::String(text)) if text.parse::<u64>().is_ok() => format!("{text}, without quotes"),
        (Wanted::Number, _) => "0 or more, without quotes".to_owned(),
        (Wanted::Truth, _) => "true or false, without quotes".to_owned(),
        (Wanted::Other, _) => "that instead".to_owned(),
    };
    Remark::new(
        key,
        format!("{is}, and {} is wanted; write {remedy}", wants.word(expected)),
    )
}

/// What a deserializer wanted to see.
enum Wanted {
    Text,
    Number,
    Truth,
    List,
    Other,
}

impl Wanted {
    fn of(expected: &str) -> Self {
        match expected {
            "a sequence" => Self::List,
            "a boolean" => Self::Truth,
            _ if expected.contains("string") => Self::Text,
            "usize" | "u64" | "u32" | "u16" | "u8" | "i64" | "i32" => Self::Number,
            _ => Self::Other,
        }
    }

    fn word<'a>(&self, expected: &'a str) -> &'a str {
        match self {
            Self::Text => "text",
            Self::Number => "a whole number",
            Self::Truth => "a truth",
            Self::List => "a list",
            Self::Other => expected,
        }
    }
}

/// A room's own message begins with the key that it is about, if it is about one.
fn of_room(key: String, value: &Value, message: &str) -> Remark {
    let (first, rest) = message.split_once(' ').unwrap_or((message, ""));
    let first = first.trim_end_matches(':');
    let name = first.strip_prefix(&format!("{key}.")).unwrap_or(first);
    let bare = name.split('[').next().unwrap_or_default();
    let is_here = value.as_table().is_some_and(|table: &Table| table.contains_key(bare));
    if is_here || rest.starts_with("is missing") {
        return Remark::new(joined(&key, name), rest);
    }
    if first == key || key.ends_with(&format!(".{first}")) {
        return Remark::new(key, rest);
    }
    Remark::new(key, message)
}
