//! What speaks against the place where a store is to lie.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Config;
use super::space;
use crate::units::Size;

/// Says in whole sentences why content might be lost or seen by others at `storage.path`, or find less room than
/// `storage.capacity`. Nothing of it stops a start. Reads, and changes nothing; a folder that does not exist yet is
/// judged by where it would be made.
pub fn inspect(config: &Config) -> Vec<String> {
    let path = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(&path);
    let mut concerns = Vec::new();
    if there == path
        && let Ok(metadata) = path.metadata()
    {
        concerns.extend(owner(&path, &metadata));
    }
    concerns.extend(kind(there).map(|why| format!("storage.path {} {why}", path.display())));
    concerns.extend(size(there, config));
    concerns
}

fn owner(path: &Path, metadata: &Metadata) -> Vec<String> {
    let mut concerns = Vec::new();
    if metadata.mode() & 0o002 != 0 {
        concerns.push(format!(
            "storage.path {0} may be written to by everybody, who could put other content there; run chmod 0700 {0}",
            path.display()
        ));
    }
    let (user, owner) = (nix::unistd::geteuid().as_raw(), metadata.uid());
    if user != owner {
        concerns.push(format!(
            "storage.path {0} belongs to user {owner} and wharf runs as user {user}; run chown -R {user} {0}",
            path.display()
        ));
    }
    concerns
}

/// By the numbers of statfs(2).
fn kind(path: &Path) -> Option<&'static str> {
    let seen = rustix::fs::statfs(path).ok()?;
    match i128::from(seen.f_type) & 0xffff_ffff {
        0x0102_1994 | 0x8584_58f6 => {
            Some("lies in memory (tmpfs): what is kept is gone when the machine restarts; name a folder on a disk")
        }
        0x4d44 | 0x2011_bab0 => Some(
            "lies on a FAT file system, which keeps no permissions, has no journal and takes no file of 4 GiB; name one on \
             ext4, XFS or Btrfs",
        ),
        0x6969 | 0x517b | 0xff53_4d42 | 0xfe53_4d42 | 0x0102_1997 => Some(
            "lies on a network file system, whose locks and renames are not those of a disk and which fails with the \
             network; name a local folder",
        ),
        0x794c_7630 => {
            Some("lies in the layers of a container: what is kept is gone with the container; mount a volume there")
        }
        _ => None,
    }
}

fn size(path: &Path, config: &Config) -> Option<String> {
    let seen = rustix::fs::statvfs(path).ok()?;
    let all = seen.f_blocks.saturating_mul(seen.f_frsize);
    let kept = space::kept(config.keep_free, all);
    let most = all.saturating_sub(kept) >> 20;
    if all > 0 && Size::mib(most) < Config::LEAST {
        return Some(format!(
            "storage.keep_free leaves {} of the {} of the file system; write less",
            Size::mib(most),
            Size::mib(all >> 20)
        ));
    }
    // Some file systems have no size.
    (all > 0 && config.capacity.bytes() >> 20 > most).then(|| {
        format!(
            "storage.capacity is {}, more than the file system can hold besides storage.keep_free; write {} or less",
            config.capacity,
            Size::mib(most)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(path: &Path, capacity: Size) -> Config {
        Config {
            path: path.to_owned(),
            capacity,
            keep_free: None,
        }
    }

    #[test]
    fn a_folder_that_everybody_may_write_to_is_a_concern_and_a_new_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();

        let said = inspect(&at(&open, Config::LEAST)).join("\n");

        assert!(said.contains("chmod 0700"), "{said}");
        let said = inspect(&at(&folder.path().join("new/er"), Config::LEAST)).join("\n");
        assert!(!said.contains("chmod"), "{said}");
    }

    #[test]
    fn a_floor_that_leaves_nothing_is_a_concern_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = at(folder.path(), Size::gib(20));
        config.keep_free = Some(Size::gib(1 << 30));

        let said = inspect(&config).join("\n");

        assert!(
            said.contains("storage.keep_free") && said.contains("write less"),
            "{said}"
        );
        assert!(!said.contains("storage.capacity"), "{said}");
    }

    #[test]
    fn a_capacity_beyond_the_file_system_is_a_concern() {
        let folder = tempfile::tempdir().unwrap();

        let said = inspect(&at(folder.path(), Size::gib(1 << 30))).join("\n");

        assert!(said.contains("storage.capacity"), "{said}");
    }

    #[test]
    fn memory_is_a_concern() {
        let memory = Path::new("/dev/shm");
        if kind(memory).is_some() {
            let said = inspect(&at(memory, Config::LEAST)).join("\n");
            assert!(said.contains("tmpfs"), "{said}");
        }
        assert_eq!(kind(Path::new("/proc")), None);
    }
}
