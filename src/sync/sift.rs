//! Which of the rules that choose something by its name take it, now that it is known what it is.

use super::Shared;
use super::closure::{Closure, Want};
use super::config::Rule;
use super::selection::Wanted;
use crate::fetch::Error;
use crate::oci::{Digest, Manifest};
use crate::parent::Class;

/// What is left of what is wanted.
pub(super) struct Sifted {
    /// The rules that take it, by their places.
    pub(super) rules: Vec<usize>,
    /// All that it needs for them; nothing, if none does and nobody names it.
    pub(super) closure: Closure,
}

impl Shared {
    /// Asks the rules that choose it by its name whether they take what has this digest. Without `asking` by what lies here.
    ///
    /// # Errors
    ///
    /// Why a manifest could not be had.
    pub(super) async fn sift(
        &self,
        wanted: &Wanted,
        rules: &[Rule],
        digest: &Digest,
        asking: Option<Class>,
    ) -> Result<Sifted, Error> {
        let repository = &wanted.repository;
        let mut chosen = wanted.rules.clone();
        if chosen.iter().any(|place| !rules[*place].artifact_types.is_empty())
            && let Some(held) = self.manifest(repository, digest, asking).await?
            && let Ok(manifest) = Manifest::parse(held.bytes())
        {
            chosen.retain(|place| rules[*place].takes_type(&manifest));
        }
        let mut takers = Vec::new();
        for place in chosen {
            let rule = &rules[place];
            let is_small = match rule.max_size {
                None => true,
                Some(most) => self.closure(repository, digest, &want_of(rule), asking).await?.bytes() <= most.bytes(),
            };
            takers.extend(is_small.then_some(place));
        }
        let of_rules = takers.iter().map(|place| want_of(&rules[*place]));
        let want = of_rules.chain(wanted.is_named.then(Want::default));
        let closure = match want.reduce(|one, other| one.or(&other)) {
            Some(want) => self.closure(repository, digest, &want, asking).await?,
            None => Closure::default(),
        };
        Ok(Sifted { rules: takers, closure })
    }
}

fn want_of(rule: &Rule) -> Want {
    Want {
        platforms: rule.platforms.clone(),
        referrers: rule.referrers,
    }
}
