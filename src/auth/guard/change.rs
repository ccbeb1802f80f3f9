//! Tokens of a running node: what gives a right is on the disk before it holds, what takes one away holds before.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fail::fail_point;

use super::{Guard, Shared};
use crate::auth::tokens::{Shown, TokenError, Tokens, Told, Wanted};
use crate::store;
use crate::units::{Moment, with_causes};

/// How often a disk that took nothing is tried again.
const AGAIN: Duration = Duration::from_secs(5);

impl Guard {
    /// All tokens, without anything that is secret.
    pub fn tokens(&self) -> Vec<Told> {
        self.shared.source.lock().tokens.list()
    }

    /// Makes a token. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Tokens::create`]; [`TokenError::Store`].
    pub fn create_token(&self, wanted: Wanted) -> Result<Shown, TokenError> {
        let now = self.shared.clock.wall().into();
        if self.shared.source.lock().config.is_written(&wanted.name) {
            return Err(TokenError::InSettings(wanted.name));
        }
        self.give(|tokens| tokens.create(wanted.clone(), now))
    }

    /// Replaces one of its passwords: the old one is good no more, whatever the disk says. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Tokens::rotate`]; [`TokenError::Halfway`].
    pub fn rotate_token(&self, name: &str, which: usize, expires: Option<Moment>) -> Result<Shown, TokenError> {
        self.hold(|tokens| tokens.revoke(name, which))?;
        self.give(|tokens| tokens.rotate(name, which, expires))
            .map_err(|error| match error {
                TokenError::Store(error) => TokenError::Halfway(error),
                other => other,
            })
    }

    /// Lets it in again. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Tokens::enable`]; [`TokenError::Store`].
    pub fn enable_token(&self, name: &str) -> Result<(), TokenError> {
        self.give(|tokens| tokens.enable(name))
    }

    /// Lets it in no more, whatever the disk says. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Tokens::disable`]; [`TokenError::Behind`].
    pub fn disable_token(&self, name: &str) -> Result<(), TokenError> {
        self.take(|tokens| tokens.disable(name))
    }

    /// Takes it away for good, whatever the disk says. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Tokens::delete`]; [`TokenError::Behind`].
    pub fn delete_token(&self, name: &str) -> Result<(), TokenError> {
        self.take(|tokens| tokens.delete(name))
    }

    /// Writes down what the disk did not take at first, for as long as the node runs.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            let this = self.clone();
            let _ = tokio::task::spawn_blocking(move || {
                this.shared.keys.write_down();
                // Why it failed was said once.
                if this.shared.is_behind.load(Ordering::Relaxed) && this.write_down().is_ok() {
                    tracing::info!("the tokens are on the disk, as they hold");
                }
            })
            .await;
        }
    }

    /// What gives a right holds once it is on the disk.
    fn give<T>(&self, mut change: impl FnMut(&mut Tokens) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let _turn = self.shared.writing.lock();
        loop {
            let (mut next, number) = {
                let source = self.shared.source.lock();
                (source.tokens.clone(), source.number)
            };
            let given = change(&mut next)?;
            if let Err(error) = self.shared.keep(&next) {
                // Some of it may be there all the same.
                return Err(TokenError::Store(error));
            }
            let mut source = self.shared.source.lock();
            // Meanwhile something may have been taken away, which must not come back.
            if source.number == number {
                source.tokens = next;
                self.shared.renew(&mut source);
                return Ok(given);
            }
        }
    }

    /// What takes a right away holds at once, and is on the disk when this returns.
    fn take(&self, change: impl FnOnce(&mut Tokens) -> Result<(), TokenError>) -> Result<(), TokenError> {
        self.hold(change)?;
        self.write_down().map_err(TokenError::Behind)
    }

    fn hold(&self, change: impl FnOnce(&mut Tokens) -> Result<(), TokenError>) -> Result<(), TokenError> {
        let mut source = self.shared.source.lock();
        change(&mut source.tokens)?;
        self.shared.renew(&mut source);
        Ok(())
    }

    fn write_down(&self) -> Result<(), store::Error> {
        let _turn = self.shared.writing.lock();
        let tokens = self.shared.source.lock().tokens.clone();
        self.shared.keep(&tokens)
    }
}

impl Shared {
    /// Whoever calls holds `writing`.
    fn keep(&self, tokens: &Tokens) -> Result<(), store::Error> {
        fail_point!("auth.tokens");
        let kept = tokens.keep(&self.store);
        let was_behind = self.is_behind.swap(kept.is_err(), Ordering::Relaxed);
        if let Err(error) = &kept
            && !was_behind
        {
            tracing::error!(
                error = with_causes(error),
                "the tokens cannot be written down; tried again until they can"
            );
        }
        kept
    }
}
