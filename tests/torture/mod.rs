//! Rough and long: cuts, kills, power cuts, churn, corruption, crowds, and all of it at once.
//!
//! Sizes are those that a change's check has time for. With `WHARF_TORTURE=full` they are those that are promised;
//! `make torture` says so. What is drawn is drawn from a seed, which a failed test shows and `WHARF_SEED` sets.

/// What is brought before anyone asks, cut and killed again and again.
mod ahead;
/// Far more content than there is room for.
mod churn;
/// A parent that sends a wrong byte now and then.
mod corruption;
/// Many clients at once, some of them slow or gone.
mod crowd;
/// A transfer that is cut again and again.
mod cuts;
/// A parent that is there for two seconds and away for two.
mod flaps;
/// Killed in the middle of a pull.
mod kills;
/// The power fails.
mod power;
/// Stopped, short of memory, and wrong in itself.
mod process;
/// Many push at once, and the node is killed.
mod pushers;
/// Everything at once, for long.
mod soak;
/// Clients that ask for what nobody has, or in ways nobody should.
mod strangers;
/// What a parent tells of changes, lost and restarted.
mod told;
/// What was pushed on its way up, while all goes to pieces.
mod writeback;
/// The node is killed, or its power fails, while it pays.
mod writeback_power;

/// The way to the parent, counted and cut.
mod link;
/// A client that is cheap and judges what it got.
mod pull;
/// A process looked at from outside, again and again.
mod watch;

use std::io::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::content::random;
use crate::support::upstream::Upstream;

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

/// `usual`, or `full` where all that is promised is to be tried.
pub fn sized<T>(usual: T, full: T) -> T {
    static FULL: OnceLock<bool> = OnceLock::new();
    if *FULL.get_or_init(|| std::env::var("WHARF_TORTURE").as_deref() == Ok("full")) {
        full
    } else {
        usual
    }
}

/// A line for who watches a long run, past the capture of output; of a short one it is seen if it fails.
pub fn progress(line: &str) {
    if sized(true, false) {
        println!("{line}");
    } else {
        let _ = writeln!(std::io::stderr(), "  {line}");
    }
}

/// Chance that can be repeated.
pub struct Dice(StdRng);

impl Dice {
    pub fn new() -> Self {
        let given = std::env::var("WHARF_SEED").ok();
        let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("WHARF_SEED is a number"));
        // Captured, so it is seen only where a test fails.
        println!("WHARF_SEED={seed} draws the same again");
        Self(StdRng::seed_from_u64(seed))
    }

    /// Dice for one of several that draw side by side.
    pub fn another(&mut self) -> Self {
        Self(StdRng::seed_from_u64(self.0.r#gen()))
    }

    /// At least 0 and below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.gen_range(0..end)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Between 1 and `most`, each order of magnitude as likely as the other.
    pub fn size(&mut self, most: usize) -> usize {
        let exponent = self.0.gen_range(0.0..=(most as f64).ln());
        (exponent.exp() as usize).clamp(1, most)
    }

    pub fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Objects cut from one piece of random bytes: any number of them, none like another, at the memory of one.
pub struct Quarry(Bytes);

impl Quarry {
    /// Of objects of up to `most` bytes.
    pub fn new(most: usize) -> Self {
        Self(random(most + 8 * MIB))
    }

    pub fn cut(&self, dice: &mut Dice, size: usize) -> Bytes {
        let at = dice.below(self.0.len() - size);
        self.0.slice(at..at + size)
    }

    /// Objects of these sizes, given to the parent.
    pub fn objects(
        &self,
        dice: &mut Dice,
        parent: &Upstream,
        repository: &str,
        sizes: impl IntoIterator<Item = usize>,
    ) -> Vec<Object> {
        let cut = |size| Object::at(parent, repository, self.cut(dice, size));
        sizes.into_iter().map(cut).collect()
    }
}

/// A blob that the parent has.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Bytes,
    pub digest: String,
    pub target: String,
}

impl Object {
    pub fn at(parent: &Upstream, repository: &str, bytes: Bytes) -> Self {
        let digest = parent.blob(repository, &bytes);
        Self {
            target: crate::support::client::blob(repository, &digest),
            bytes,
            digest,
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}
