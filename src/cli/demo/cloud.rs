//! The cloud: this very program as a registry of its own, and its request log as a witness.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::cli::demo::Error;
use crate::cli::demo::endpoint::Endpoint;
use crate::cli::demo::process::{self, Process};
use crate::cli::demo::trust::{Doors, written};

/// The registry at the top. Stopped, it keeps its content and its address.
#[derive(Debug)]
pub(super) struct Cloud {
    address: SocketAddr,
    admin: SocketAddr,
    folder: PathBuf,
    doors: Doors,
    process: Option<Process>,
}

/// One request in the request log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct Logged {
    pub(super) method: String,
    pub(super) path: String,
    /// Of the answer's body.
    pub(super) bytes: u64,
}

/// What it is, for whoever wonders.
pub(super) const KIND: &str = "mode: registry, without a parent";

/// The log is written soon after a reply; longer than this no line has ever been late.
const QUIET: Duration = Duration::from_millis(400);

impl Cloud {
    /// Starts it with an empty store below `folder`.
    ///
    /// # Errors
    ///
    /// Those of [`Process`].
    pub(super) async fn new(
        address: SocketAddr,
        admin: SocketAddr,
        folder: PathBuf,
        doors: Doors,
    ) -> Result<Self, Error> {
        let mut cloud = Self {
            address,
            admin,
            folder,
            doors,
            process: None,
        };
        let settings = cloud.folder.join("wharf.toml");
        fs::write(&settings, cloud.settings()).map_err(|source| Error::Io {
            action: "writing",
            path: settings,
            source,
        })?;
        cloud.start().await?;
        Ok(cloud)
    }

    /// Starts it again, unless it runs.
    pub(super) async fn start(&mut self) -> Result<(), Error> {
        if self.process.is_some() {
            return Ok(());
        }
        let command = process::wharf(&self.folder.join("wharf.toml"))?;
        let mut process = Process::spawn("the cloud", command, self.folder.join("log"))?;
        process.ready(&format!("http://{}/healthz", self.admin)).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops it: nobody listens on its address when this returns.
    pub(super) fn stop(&mut self) {
        self.process = None;
    }

    /// # Errors
    ///
    /// [`Error::Ended`]: it has ended by itself.
    pub(super) fn alive(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::alive)
    }

    /// As we ask it.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.doors.ours
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("requests.log")
    }

    /// Every request for content that it has logged, once no more lines come.
    ///
    /// The question whether a registry is there at all, `GET /v2/`, is none for content.
    pub(super) async fn requests(&self) -> Result<Vec<Logged>, Error> {
        let mut seen = self.logged()?;
        loop {
            tokio::time::sleep(QUIET).await;
            let now = self.logged()?;
            if now.len() == seen.len() {
                return Ok(now);
            }
            seen = now;
        }
    }

    fn logged(&self) -> Result<Vec<Logged>, Error> {
        let path = self.log();
        let read = fs::read_to_string(&path);
        let text = read.map_err(|source| Error::Io {
            action: "reading",
            path,
            source,
        })?;
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        Ok(lines.filter(|logged: &Logged| logged.path != "/v2/").collect())
    }

    fn settings(&self) -> String {
        let Self {
            address,
            admin,
            folder,
            doors,
            ..
        } = self;
        let Doors { listen, sections, .. } = doors;
        let path = |name: &str| written(&folder.join(name));
        format!(
            "mode = \"registry\"\n\n\
             [node]\nname = \"cloud\"\n\n\
             [listen]\naddress = \"{address}\"\n{listen}\n\
             [admin]\naddress = \"{admin}\"\n\n\
             [storage]\npath = {}\ncapacity = \"2GiB\"\n\n\
             [log]\nformat = \"json\"\nrequests = {}\n{sections}",
            path("data"),
            path("requests.log"),
        )
    }
}
