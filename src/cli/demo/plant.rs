//! The plant: a cloud and three layers below it, each knowing only its parent.

use std::time::Duration;

use crate::cli::demo::cloud::Cloud;
use crate::cli::demo::folder::Folder;
use crate::cli::demo::node::{Node, Plan};
use crate::cli::demo::{Error, ports};
use crate::units::Span;

/// Everything that runs. Dropping it ends all of it.
#[derive(Debug)]
pub(super) struct Plant<'a> {
    pub(super) folder: &'a Folder,
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
    pub(super) async fn start(folder: &'a Folder) -> Result<Self, Error> {
        let [address, admin] = ports::free([5030, 5031])?;
        let cloud = Cloud::new(address, admin, folder.within("cloud")?).await?;
        let node = async |name, mode, parent, parent_url, port| {
            let folder = folder.within(name)?;
            let [address, admin] = ports::free([port, port + 1])?;
            Node::start(Plan {
                name,
                parent,
                parent_url,
                address,
                admin,
                folder,
                tag_ttl: TAG_TTL,
                mode,
            })
            .await
        };
        let l5 = node("l5-enterprise", "registry", "cloud", cloud.url(), 5020).await?;
        let l4 = node("l4-site", "mirror", l5.name, l5.url(), 5010).await?;
        let l3 = node("l3-operations", "mirror", l4.name, l4.url(), 5000).await?;
        Ok(Self {
            folder,
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
