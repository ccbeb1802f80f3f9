use serde::Deserialize;

use crate::store::Held;
use crate::units::Size;

/// How much is taken from a parent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Limits {
    /// Bytes of a manifest.
    pub manifest: Size,
    /// Arrays and objects within each other in a manifest.
    pub json_depth: usize,
    /// Layers and manifests that a manifest lists.
    pub descriptors: usize,
    /// Bytes of a blob.
    pub blob: Size,
    /// Bytes of all pages of a list together.
    pub list: Size,
    /// Pages of a list.
    pub list_pages: usize,
    /// Attempts in a row that bring nothing, until a transfer is given up.
    pub attempts: u32,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    manifest: Size,
    json_depth: usize,
    descriptors: usize,
    blob: Size,
    list: Size,
    list_pages: usize,
    attempts: u32,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            manifest: Size::mib(4),
            json_depth: 32,
            descriptors: 2048,
            blob: Size::gib(16),
            list: Size::mib(16),
            list_pages: 1000,
            attempts: 8,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Written::default().try_into().expect("the defaults are allowed")
    }
}

impl TryFrom<Written> for Limits {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        if !(64 << 10..=Held::MOST).contains(&written.manifest.bytes()) {
            return Err("limits.manifest is not between 64KiB and 16MiB; the specification asks for 4MiB; write that");
        }
        if written.json_depth < 8 || written.descriptors < 128 {
            return Err(
                "limits.json_depth is below 8 or limits.descriptors below 128; images have that; write 32 and 2048",
            );
        }
        if written.blob.bytes() < 1 << 20 || written.list.bytes() < 64 << 10 || written.list_pages == 0 {
            return Err(
                "limits.blob is below 1MiB, limits.list below 64KiB or limits.list_pages 0, and hardly any image could be pulled; write 16GiB, 16MiB and 1000",
            );
        }
        if written.list.bytes() > 64 << 20 {
            return Err("limits.list is above 64MiB, and lists are held in memory; write 64MiB or less");
        }
        if !(1..=16).contains(&written.attempts) {
            return Err("limits.attempts is not between 1 and 16; each waits longer than the one before; write 8");
        }
        Ok(Self {
            manifest: written.manifest,
            json_depth: written.json_depth,
            descriptors: written.descriptors,
            blob: written.blob,
            list: written.list,
            list_pages: written.list_pages,
            attempts: written.attempts,
        })
    }
}
