//! A few words that outlive the process, each under a name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// What writes them down, all of them each time. It may take its time: whoever notes something does not wait for it.
type Write = Box<dyn Fn(Vec<String>) + Send + Sync>;

/// Lines of a name, a blank and a text. Clones are the same.
#[derive(Clone)]
pub struct Notes(Arc<Inner>);

struct Inner {
    lines: Mutex<BTreeMap<String, String>>,
    write: Write,
}

impl Notes {
    /// Begins with the lines that were written down last. `write` is given all of them whenever one changes.
    pub fn new(lines: Vec<String>, write: impl Fn(Vec<String>) + Send + Sync + 'static) -> Self {
        let pair = |line: &String| {
            let (name, text) = line.split_once(' ')?;
            Some((name.to_owned(), text.to_owned()))
        };
        Self(Arc::new(Inner {
            lines: Mutex::new(lines.iter().filter_map(pair).collect()),
            write: Box::new(write),
        }))
    }

    /// Ones that nobody writes down.
    pub fn forgotten() -> Self {
        Self::new(Vec::new(), |_| {})
    }

    /// What was noted last under this name.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.lines.lock().get(name).cloned()
    }

    /// Notes a text, in one line, under a name without blanks.
    pub fn set(&self, name: &str, text: String) {
        let mut lines = self.0.lines.lock();
        if lines.get(name) == Some(&text) {
            return;
        }
        lines.insert(name.to_owned(), text);
        let all = lines.iter().map(|(name, text)| format!("{name} {text}")).collect();
        // In the order of the changes: under the lock.
        (self.0.write)(all);
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notes").field(&self.0.lines.lock()).finish()
    }
}
