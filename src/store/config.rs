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
    /// What the file system keeps free whatever the capacity, as others write to it too. `None`: the smaller of 1 GiB and
    /// a twentieth of the file system. Nothing: it may be filled.
    pub keep_free: Option<Size>,
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
            keep_free: None,
        }
    }
}

/// What may stand in the file, before it is checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    path: PathBuf,
    capacity: Size,
    keep_free: Option<Size>,
}

impl Default for Written {
    fn default() -> Self {
        let Config {
            path,
            capacity,
            keep_free,
        } = Config::default();
        Self {
            path,
            capacity,
            keep_free,
        }
    }
}

impl TryFrom<Written> for Config {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        if written.capacity.bytes() < Config::LEAST.bytes() {
            return Err(format!(
                "capacity is {}, less than the index itself may need; write {} or more",
                written.capacity,
                Config::LEAST
            ));
        }
        if written.path.as_os_str().is_empty() {
            return Err("path is empty; write the folder that wharf may fill".into());
        }
        Ok(Self {
            path: written.path,
            capacity: written.capacity,
            keep_free: written.keep_free,
        })
    }
}
