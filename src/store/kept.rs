//! A few lines that exist nowhere else and belong to no repository, like tokens: written whole, and kept twice.
//!
//! ```text
//! wharfkept <version> <generation> <lines> <crc32c of what stands before the blank> LF
//! <crc32c of the text: 8 hexadecimal digits> <text> LF
//! ...
//! ```
//!
//! Both files are written at each change, one after the other, so that a whole one is there at every instant. The later
//! generation counts; what is damaged in both is left out, never taken from an earlier one: a right that was taken away must not
//! come back. A head whose sum is wrong says nothing, of a newer version neither.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fail::fail_point;

use super::{Error, Shared, Store, layout};
use crate::units::read_file;

const MAGIC: &str = "wharfkept";
/// The newest format this program knows.
const VERSION: u32 = 1;

/// What is kept so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// Who may log in, as an operator said it to the running node.
    Tokens,
    /// What logins are signed with.
    Keys,
    /// What parents said of repositories.
    Words,
    /// What is noted of windows and bandwidth.
    Notes,
    /// What rules select, or did.
    Selected,
    /// Passes that somebody asked for.
    Orders,
}

impl Kept {
    pub(super) const ALL: [Self; 6] = [
        Self::Tokens,
        Self::Keys,
        Self::Words,
        Self::Notes,
        Self::Selected,
        Self::Orders,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Keys => "keys",
            Self::Words => "words",
            Self::Notes => "notes",
            Self::Selected => "selected",
            Self::Orders => "orders",
        }
    }
}

/// One of the two files, as it was found: the lines of it that are intact.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Copy {
    generation: u64,
    lines: Vec<String>,
    /// How many there were when it was written.
    count: usize,
}

/// What stands where one of the two files belongs.
#[derive(Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    /// Nothing that any wharf wrote.
    Rubbish,
    Copy(Copy),
}

impl Store {
    /// The lines that were kept last. A copy that lags behind the other or is damaged is written anew; what is lost in both is said
    /// in the log. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`]: a newer wharf wrote them. [`Error::Io`]: the disk gives back neither, which does not mean that there are none.
    pub fn kept(&self, kept: Kept) -> Result<Vec<String>, Error> {
        let _turn = self.shared.keeping.lock();
        self.shared.recall(kept)
    }

    /// Keeps these lines in the place of those before: when this returns, they survive a power cut. Blocks.
    ///
    /// One copy is enough, which is said in the log: the other one is written with the next change, or at the next start.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the disk refused. After the next start there are those before, or these: whoever cares keeps again what is to be.
    pub fn keep(&self, kept: Kept, lines: &[String]) -> Result<(), Error> {
        let _turn = self.shared.keeping.lock();
        let [first, second] = self.shared.layout.kept(kept);
        let generation = match (self.shared.generation(&first), self.shared.generation(&second)) {
            (Ok(first), Ok(second)) => first.max(second),
            // What cannot be read is replaced: at the most one change ahead of the other.
            (Ok(known), Err(Error::Io { .. })) | (Err(Error::Io { .. }), Ok(known)) => known + 1,
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let text = written(generation + 1, lines);
        self.shared.layout.put(&first, &text)?;
        if let Err(error) = self.shared.layout.put(&second, &text) {
            tracing::warn!(path = %second.display(), %error, "what is kept twice lies in one copy, until the next change or start");
        }
        Ok(())
    }
}

impl Shared {
    fn recall(&self, kept: Kept) -> Result<Vec<String>, Error> {
        let paths = self.layout.kept(kept);
        let (mut best, mut unread) = (Copy::default(), None);
        let mut found = Vec::new();
        for path in &paths {
            layout::make_ours(path);
            match look(path) {
                Ok(Found::Copy(copy)) => {
                    best = best.better(copy.clone());
                    found.push((path, Found::Copy(copy)));
                }
                Ok(other) => found.push((path, other)),
                Err(error @ Error::Io { .. }) => {
                    tracing::error!(path = %path.display(), %error, "what is kept twice cannot be read here; the other copy counts");
                    unread = Some(error);
                    found.push((path, Found::Nothing));
                }
                Err(newer) => return Err(newer),
            }
        }
        if let Some(error) = unread.filter(|_| best.generation == 0 || !best.is_whole()) {
            return Err(error);
        }
        if !best.is_whole() {
            tracing::error!(
                kept = kept.name(),
                lines = best.lines.len(),
                lost = best.count.saturating_sub(best.lines.len()),
                "both copies are damaged; what is whole of them is used"
            );
        }
        if !self.layout.takes_nothing() {
            self.mend(&best, found)?;
        }
        Ok(best.lines)
    }

    /// Makes all that was found like the best of it.
    fn mend(&self, best: &Copy, found: Vec<(&PathBuf, Found)>) -> Result<(), Error> {
        let text = written(best.generation, &best.lines);
        for (path, found) in found {
            if found == Found::Rubbish {
                self.layout.set_aside(path)?;
            }
            let is_good = matches!(&found, Found::Copy(copy) if copy == best && copy.is_whole());
            if best.generation == 0 || is_good {
                continue;
            }
            match self.layout.put(path, &text) {
                Ok(()) => tracing::warn!(path = %path.display(), "a copy that lagged or was damaged was written anew"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "what is kept twice lies in one copy, until the next change or start")
                }
            }
        }
        Ok(())
    }

    fn generation(&self, path: &Path) -> Result<u64, Error> {
        Ok(match look(path)? {
            Found::Copy(copy) => copy.generation,
            Found::Nothing | Found::Rubbish => 0,
        })
    }
}

impl Copy {
    fn is_whole(&self) -> bool {
        self.lines.len() == self.count
    }

    /// The later one; of two damaged ones of the same text, what is intact in either.
    fn better(self, other: Self) -> Self {
        if self.generation != other.generation {
            return if self.generation > other.generation {
                self
            } else {
                other
            };
        }
        match (self.is_whole(), other.is_whole()) {
            (true, _) => self,
            (_, true) => other,
            _ => {
                let mut all = self;
                let more = other.lines.into_iter();
                let more: Vec<String> = more.filter(|line| !all.lines.contains(line)).collect();
                all.lines.extend(more);
                all
            }
        }
    }
}

/// What cannot be read is an error, and not absent.
fn look(path: &Path) -> Result<Found, Error> {
    // What stands in the way is set aside by who writes.
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Ok(Found::Nothing);
    }
    let bytes = match read_file(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(Error::io("reading", path)(error)),
    };
    match read(&bytes) {
        Ok(copy) => Ok(Found::Copy(copy)),
        Err(None) => Ok(Found::Rubbish),
        Err(Some(found)) => Err(Error::Newer {
            path: path.to_owned(),
            found: found.into(),
            known: VERSION.into(),
        }),
    }
}

/// Bytes on disk of all that is kept so, and of one file more while it is written.
pub(super) fn room(layout: &layout::Layout) -> u64 {
    let of = |path: &Path| fs::metadata(path).map_or(0, |metadata| layout::room(&metadata));
    let rooms = Kept::ALL.map(|kept| layout.kept(kept).map(|path| of(&path)));
    let largest = rooms.iter().flatten().max().copied().unwrap_or_default();
    rooms.iter().flatten().sum::<u64>() + largest
}

fn written(generation: u64, lines: &[String]) -> String {
    let head = format!("{MAGIC} {VERSION} {generation} {}", lines.len());
    let mut text = format!("{head} {:08x}\n", crc32c::crc32c(head.as_bytes()));
    for line in lines {
        text += &format!("{:08x} {line}\n", crc32c::crc32c(line.as_bytes()));
    }
    text
}

/// `Err`: the version, if it is of a newer wharf; `None` if it is nothing that any wrote.
fn read(bytes: &[u8]) -> Result<Copy, Option<u32>> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let (head, sum) = lines.next().and_then(|head| head.rsplit_once(' ')).ok_or(None)?;
    if !is_sum(sum, head) {
        return Err(None);
    }
    let mut words = head.split(' ');
    let (Some(MAGIC), Some(version)) = (words.next(), words.next().and_then(|word| word.parse().ok())) else {
        return Err(None);
    };
    if version > VERSION {
        return Err(Some(version));
    }
    let (Some(generation), Some(count)) = (
        words.next().and_then(|word| word.parse().ok()),
        words.next().and_then(|word| word.parse().ok()),
    ) else {
        return Err(None);
    };
    Ok(Copy {
        generation,
        lines: lines.filter_map(checked).map(str::to_owned).collect(),
        count,
    })
}

fn checked(line: &str) -> Option<&str> {
    let (sum, text) = line.split_once(' ')?;
    is_sum(sum, text).then_some(text)
}

fn is_sum(sum: &str, text: &str) -> bool {
    sum.len() == 8 && u32::from_str_radix(sum, 16) == Ok(crc32c::crc32c(text.as_bytes()))
}

impl layout::Layout {
    /// Puts a file with this text in the place of what is there, durably and at once.
    fn put(&self, path: &Path, text: &str) -> Result<(), Error> {
        if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            self.set_aside(path)?;
        }
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        fail_point!("store.kept", |_| Err(Error::io("writing", &new)(
            io::Error::from_raw_os_error(libc::ENOSPC)
        )));
        let written = layout::open_private(&new, true).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(Error::io("writing", &new))?;
        #[expect(clippy::disallowed_methods, reason = "it was synced, and the folder is next")]
        fs::rename(&new, path).map_err(Error::io("moving into place", path))?;
        self.sync_root()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{Config, Metrics};
    use crate::units::Size;

    fn lines() -> Vec<String> {
        ["one", "", "three with blanks"].map(str::to_owned).to_vec()
    }

    fn open(folder: &TempDir) -> Store {
        let config = Config {
            path: folder.path().join("data"),
            capacity: Size::gib(1),
            ..Config::default()
        };
        Store::open(&config, Metrics::new(&Registry::new()).unwrap()).unwrap()
    }

    fn file(folder: &TempDir, name: &str) -> PathBuf {
        folder.path().join("data").join(name)
    }

    fn text(folder: &TempDir, name: &str) -> String {
        fs::read_to_string(file(folder, name)).unwrap()
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let copy = read(written(7, &lines()).as_bytes()).unwrap();

        assert_eq!((copy.generation, copy.is_whole(), copy.lines), (7, true, lines()));
    }

    #[test]
    fn a_flipped_bit_takes_its_line_alone_and_in_the_head_the_file() {
        let text = written(7, &lines()).into_bytes();
        let head = text.iter().position(|byte| *byte == b'\n').unwrap();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The case of a hexadecimal digit says nothing.
            let word = text[..=bit / 8].iter().rposition(|byte| b" \n".contains(byte));
            let is_sum = bit / 8 > head || word.is_some_and(|at| at + 9 == head);
            if is_sum && damaged.eq_ignore_ascii_case(&text) {
                continue;
            }
            if bit / 8 <= head {
                assert_eq!(read(&damaged), Err(None), "bit {bit} of the head");
                continue;
            }
            let copy = read(&damaged).unwrap();
            assert!(!copy.is_whole() && !copy.lines.is_empty(), "bit {bit}");
            assert!(copy.lines.iter().all(|line| lines().contains(line)), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_rubbish() {
        let newer = |head: &str| format!("{head} {:08x}\n", crc32c::crc32c(head.as_bytes()));
        assert_eq!(read(newer("wharfkept 2 of another form").as_bytes()), Err(Some(2)));
        for rubbish in [
            &b""[..],
            b"\xff\xfe",
            b"wharfkept",
            b"wharfkept 2 1 0\n",
            b"wharfkept 2 1 0 00000000\n",
            newer("wharfkept x 1 0").as_bytes(),
            newer("other 1 1 0").as_bytes(),
        ] {
            assert_eq!(read(rubbish), Err(None));
        }
    }

    #[test]
    fn of_two_damaged_copies_what_is_intact_in_either_counts_and_nothing_earlier() {
        let damaged = |line: &str| {
            let text = written(7, &lines()).replace(line, "xx");
            read(text.as_bytes()).unwrap()
        };
        let merged = damaged("one").better(damaged("three"));
        assert!(merged.is_whole() && lines().iter().all(|line| merged.lines.contains(line)));

        let earlier = read(written(6, &["taken away".to_owned()]).as_bytes()).unwrap();
        let best = earlier.clone().better(damaged("one"));
        assert_eq!(best, damaged("one").better(earlier));
        assert!(!best.is_whole() && !best.lines.contains(&"taken away".to_owned()));
    }

    #[test]
    fn a_copy_that_lags_is_damaged_or_lost_is_written_anew_at_the_start() {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        store.keep(Kept::Tokens, &["earlier".to_owned()]).unwrap();
        let earlier = text(&folder, "tokens");
        store.keep(Kept::Tokens, &lines()).unwrap();
        let good = text(&folder, "tokens");
        assert_eq!(text(&folder, "tokens.copy"), good);

        for name in ["tokens", "tokens.copy"] {
            let damages = [
                Some(earlier.clone()),
                Some(good.replace("one", "two")),
                Some("rubbish".to_owned()),
                None,
            ];
            for damage in damages {
                match &damage {
                    Some(text) => fs::write(file(&folder, name), text).unwrap(),
                    None => fs::remove_file(file(&folder, name)).unwrap(),
                }
                assert_eq!(store.kept(Kept::Tokens).unwrap(), lines(), "{name} was {damage:?}");
                assert_eq!(text(&folder, "tokens"), good, "{name} was {damage:?}");
                assert_eq!(text(&folder, "tokens.copy"), good, "{name} was {damage:?}");
            }
        }
    }

    #[test]
    fn one_copy_is_enough_and_none_is_an_error() {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        store.keep(Kept::Tokens, &["earlier".to_owned()]).unwrap();

        // Where a folder stands no file is written.
        fs::create_dir(file(&folder, "tokens.copy.new")).unwrap();
        store.keep(Kept::Tokens, &lines()).unwrap();
        assert!(text(&folder, "tokens.copy").contains("earlier"));
        fs::create_dir(file(&folder, "tokens.new")).unwrap();
        let refused = store.keep(Kept::Tokens, &["later".to_owned()]);
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
        assert_eq!(store.kept(Kept::Tokens).unwrap(), lines());

        fs::remove_dir(file(&folder, "tokens.new")).unwrap();
        fs::remove_dir(file(&folder, "tokens.copy.new")).unwrap();
        assert_eq!(store.kept(Kept::Tokens).unwrap(), lines());
        assert_eq!(text(&folder, "tokens.copy"), text(&folder, "tokens"));
    }
}
