use std::path::PathBuf;

use serde::Deserialize;

use crate::units::Size;

/// Where the store lies and how large it may grow.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Config {
    /// The folder. Made if missing.
    pub path: PathBuf,
    /// Everything wharf keeps on disk, at every instant. At least [`Config::LEAST`].
    pub capacity: Size,
}

impl Config {
    /// Below this the index alone would fill the budget.
    pub const LEAST: Size = Size::mib(64);
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::from("wharf-data"),
            capacity: Size::gib(20),
        }
    }
}

/// What may stand in the file, before it is checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    path: PathBuf,
    capacity: Size,
}

impl Default for Written {
    fn default() -> Self {
        let Config { path, capacity } = Config::default();
        Self { path, capacity }
    }
}

impl TryFrom<Written> for Config {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        if written.capacity.bytes() < Config::LEAST.bytes() {
            return Err(format!(
                "storage.capacity is {}, less than the index itself may need; write {} or more",
                written.capacity,
                Config::LEAST
            ));
        }
        if written.path.as_os_str().is_empty() {
            return Err("storage.path is empty; write the folder that wharf may fill".into());
        }
        Ok(Self {
            path: written.path,
            capacity: written.capacity,
        })
    }
}
