//! The plant: a cloud and three layers below it, each knowing only its parent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::demo::cloud::Cloud;
use crate::cli::demo::endpoint::Endpoint;
use crate::cli::demo::folder::Folder;
use crate::cli::demo::node::{Node, Plan};
use crate::cli::demo::trust::{Doors, Trust};
use crate::cli::demo::{Error, ports};
use crate::units::Span;

/// Everything that runs. Dropping it ends all of it.
#[derive(Debug)]
pub(super) struct Plant<'a> {
    pub(super) folder: &'a Folder,
    /// Where the plant's own authority lies, if it has one.
    pub(super) trust: Option<PathBuf>,
    pub(super) cloud: Cloud,
    pub(super) l5: Node,
    pub(super) l4: Node,
    pub(super) l3: Node,
    pub(super) tag_ttl: Duration,
}

/// Long enough that a second pull finds the tag fresh on a slow machine, short enough to wait for its end.
const TAG_TTL: Span = Span::seconds(10);

/// How often it is looked whether all still run.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

impl<'a> Plant<'a> {
    /// Starts the cloud, then the layers from the top down. The lowest has wharf's default ports where they are free.
    pub(super) async fn start(folder: &'a Folder, tls: bool) -> Result<Self, Error> {
        let trust = match tls {
            true => Some(Trust::new(folder.within("trust")?)?),
            false => None,
        };
        let doors = |name, address, folder: &Path, below| match &trust {
            Some(trust) => trust.guard(name, address, folder, below),
            None => Ok(Doors::open(address)),
        };
        let [address, admin] = ports::free([5030, 5031])?;
        let within = folder.within("cloud")?;
        let below = Some(("l5-enterprise", "\"pull\", \"push\""));
        let doors_of_cloud = doors("cloud", address, &within, below)?;
        let above = doors_of_cloud.below.clone();
        let cloud = Cloud::new(address, admin, within, doors_of_cloud).await?;
        let node = async |name, mode, parent, above: &Endpoint, port, below: Option<&'static str>| {
            let folder = folder.within(name)?;
            let [address, admin] = ports::free([port, port + 1])?;
            let doors = doors(name, address, &folder, below.map(|below| (below, "\"pull\"")))?;
            Node::start(Plan {
                name,
                parent,
                above: above.clone(),
                address,
                admin,
                folder,
                doors,
                tag_ttl: TAG_TTL,
                mode,
            })
            .await
        };
        let l5 = node("l5-enterprise", "registry", "cloud", &above, 5020, Some("l4-site")).await?;
        let l4 = node("l4-site", "mirror", l5.name, l5.below(), 5010, Some("l3-operations")).await?;
        let l3 = node("l3-operations", "mirror", l4.name, l4.below(), 5000, None).await?;
        Ok(Self {
            folder,
            trust: trust.map(|trust| trust.folder().to_owned()),
            cloud,
            l5,
            l4,
            l3,
            tag_ttl: TAG_TTL.duration(),
        })
    }

    /// From the lowest to the highest.
    pub(super) fn nodes(&self) -> [&Node; 3] {
        [&self.l3, &self.l4, &self.l5]
    }

    /// Waits until a part of the plant ends, which none does by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`], always.
    pub(super) async fn ended(&mut self) -> Result<(), Error> {
        loop {
            self.cloud.alive()?;
            for node in [&mut self.l5, &mut self.l4, &mut self.l3] {
                node.alive()?;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }
}
