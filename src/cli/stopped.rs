//! A node that is stopped: its store is opened in its place.

use std::path::PathBuf;

use super::node::{Failure, Port};
use crate::config::{Config, Overrides, environment};
use crate::store::{self, Store};
use crate::units::Size;

/// Which node: by its admin port, or, of one that is stopped, by its store.
#[derive(clap::Args)]
pub(super) struct Which {
    #[command(flatten)]
    pub(super) port: Port,
    /// The folder that holds the store, of a node that is stopped
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What to do if nobody answers at the admin port.
pub(super) const REMEDY: &str = "name its admin port with --admin, or the store of one that is stopped with --data";

impl Which {
    /// The settings and the store of the node that is stopped; `None` if it runs. `command`: for the words of an error.
    ///
    /// # Errors
    ///
    /// There is no store, or a node runs on it.
    pub(super) fn open(&self, command: &str) -> Result<Option<(Config, Store)>, Failure> {
        let is_named = self.port.config.is_some() && self.port.admin.is_none();
        if self.data.is_none() && !is_named {
            return Ok(None);
        }
        let overrides = Overrides {
            data: self.data.clone(),
            ..Overrides::default()
        };
        let (config, _) = Config::load(self.port.config.as_deref(), environment(), &overrides)?;
        let storage = store::Config {
            // Nothing is to leave but what is asked for.
            capacity: Size::of(u64::MAX >> 1),
            keep_free: Some(Size::of(0)),
            ..config.storage.clone()
        };
        if !store::is_at(&storage.path) {
            let words = format!(
                "{} is no store of wharf; name the folder that a node's storage.path names",
                storage.path.display()
            );
            return Err(words.into());
        }
        let opened = Store::open(&storage, store::Metrics::new(&prometheus::Registry::new())?);
        match opened {
            // It is asked as its settings say.
            Err(store::Error::Locked { .. }) if self.data.is_none() => Ok(None),
            Err(store::Error::Locked { .. }) => {
                let words = format!(
                    "a node runs on {}; ask it at its admin port: wharf {command} --admin http://{}",
                    storage.path.display(),
                    config.admin.address
                );
                Err(words.into())
            }
            other => Ok(Some((config, other?))),
        }
    }
}
