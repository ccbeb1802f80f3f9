//! A few lines that exist nowhere else and belong to no repository, like tokens: written whole, and kept twice.
//!
//! ```text
//! wharfkept <version> <generation> <lines> LF
//! <crc32c of the text: 8 hexadecimal digits> <text> LF
//! ...
//! ```
//!
//! Both files are written at each change, one after the other, so that a whole one is there at every instant. The later
//! generation counts; what is damaged in both is left out, never taken from an earlier one: a right that was taken away must not
//! come back.

use std::fs;
use std::io::Write;
use std::path::Path;

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
}

impl Kept {
    pub(super) const ALL: [Self; 3] = [Self::Tokens, Self::Keys, Self::Words];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Keys => "keys",
            Self::Words => "words",
        }
    }
}

/// One of the two files, as it was found.
#[derive(Debug, Default, Eq, PartialEq)]
struct Copy {
    generation: u64,
    lines: Vec<String>,
    /// Nothing is missing and nothing is damaged.
    is_whole: bool,
}

impl Store {
    /// The lines that were kept last. What cannot be read is set aside, and said in the log. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`]: a newer wharf wrote them.
    pub fn kept(&self, kept: Kept) -> Result<Vec<String>, Error> {
        Ok(self.shared.read_kept(kept)?.lines)
    }

    /// Keeps these lines in the place of those before: when this returns, they survive a power cut. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]: the disk refused; those before are kept.
    pub fn keep(&self, kept: Kept, lines: &[String]) -> Result<(), Error> {
        let _turn = self.shared.keeping.lock();
        let generation = self.shared.read_kept(kept)?.generation + 1;
        let text = written(generation, lines);
        for path in self.shared.layout.kept(kept) {
            self.shared.layout.put(&path, text.as_bytes())?;
        }
        Ok(())
    }
}

impl Shared {
    fn read_kept(&self, kept: Kept) -> Result<Copy, Error> {
        let mut best: Option<Copy> = None;
        for path in self.layout.kept(kept) {
            let Some(copy) = self.read_copy(&path)? else { continue };
            let is_better = |best: &Copy| (copy.generation, copy.is_whole) > (best.generation, best.is_whole);
            if best.as_ref().is_none_or(is_better) {
                best = Some(copy);
            }
        }
        let best = best.unwrap_or_default();
        if best.generation > 0 && !best.is_whole {
            tracing::error!(
                kept = kept.name(),
                lines = best.lines.len(),
                "both copies are damaged; what is whole of them is used"
            );
        }
        Ok(best)
    }

    /// `None` if it is not there, or nothing can be made of it.
    fn read_copy(&self, path: &Path) -> Result<Option<Copy>, Error> {
        let bytes = match read_file(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::error!(path = %path.display(), %error, "what is kept twice cannot be read here");
                }
                return Ok(None);
            }
        };
        match read(&bytes) {
            Ok(copy) => Ok(Some(copy)),
            Err(Some(found)) => Err(Error::Newer {
                path: path.to_owned(),
                found: found.into(),
                known: VERSION.into(),
            }),
            Err(None) => {
                if !self.layout.takes_nothing() {
                    self.layout.set_aside(path)?;
                }
                Ok(None)
            }
        }
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
    let mut text = format!("{MAGIC} {VERSION} {generation} {}\n", lines.len());
    for line in lines {
        text += &format!("{:08x} {line}\n", crc32c::crc32c(line.as_bytes()));
    }
    text
}

/// `Err`: the version, if it is of a newer wharf; `None` if it is nothing that any wrote.
fn read(bytes: &[u8]) -> Result<Copy, Option<u32>> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let mut words = head.split(' ');
    let (Some(MAGIC), Some(version)) = (words.next(), words.next().and_then(|word| word.parse().ok())) else {
        return Err(None);
    };
    if version > VERSION {
        return Err(Some(version));
    }
    let (Some(generation), Some(count)) = (
        words.next().and_then(|word| word.parse().ok()),
        words.next().and_then(|word| word.parse::<usize>().ok()),
    ) else {
        return Err(None);
    };
    let intact: Vec<String> = lines.filter_map(checked).map(str::to_owned).collect();
    Ok(Copy {
        generation,
        is_whole: intact.len() == count,
        lines: intact,
    })
}

fn checked(line: &str) -> Option<&str> {
    let (sum, text) = line.split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    (sum == crc32c::crc32c(text.as_bytes())).then_some(text)
}

impl layout::Layout {
    /// Puts a file with these bytes in the place of what is there, durably and at once.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            self.set_aside(path)?;
        }
        let new = path.with_extension("new");
        let written = layout::open_private(&new, true).and_then(|mut file| {
            file.write_all(bytes)?;
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
    use super::*;

    fn lines() -> Vec<String> {
        ["one", "", "three with blanks"].map(str::to_owned).to_vec()
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let copy = read(written(7, &lines()).as_bytes()).unwrap();

        assert_eq!((copy.generation, copy.is_whole, copy.lines), (7, true, lines()));
    }

    #[test]
    fn a_flipped_bit_takes_its_line_alone_and_is_noticed() {
        let text = written(7, &lines()).into_bytes();
        let head = text.iter().position(|byte| *byte == b'\n').unwrap();
        for bit in (head + 1) * 8..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The case of a hexadecimal digit says nothing.
            if damaged.eq_ignore_ascii_case(&text) {
                continue;
            }
            let copy = read(&damaged).unwrap();
            assert!(!copy.is_whole && !copy.lines.is_empty(), "bit {bit}");
            assert!(copy.lines.iter().all(|line| lines().contains(line)), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_rubbish() {
        assert_eq!(read(b"wharfkept 2 1 0\n"), Err(Some(2)));
        for rubbish in [
            &b""[..],
            b"\xff\xfe",
            b"wharfkept",
            b"wharfkept x 1 0\n",
            b"other 1 1 0\n",
        ] {
            assert_eq!(read(rubbish), Err(None));
        }
    }
}
