//! The cloud: Debian's docker-registry, and its own log as a witness.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::cli::demo::process::Process;
use crate::cli::demo::{Error, witness};

/// The registry at the top. Stopped, it keeps its content and its address.
#[derive(Debug)]
pub(super) struct Cloud {
    address: SocketAddr,
    folder: PathBuf,
    process: Option<Process>,
}

/// One request in the access log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Logged {
    pub(super) method: String,
    /// Path with query.
    pub(super) target: String,
    /// Of the answer's body.
    pub(super) bytes: u64,
}

pub(super) const PROGRAM: &str = "docker-registry";

/// The log is written right after a reply; longer than this no line has ever been late.
const QUIET: Duration = Duration::from_millis(300);

impl Cloud {
    /// Starts it with an empty store below `folder`.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`]: it is not installed; else those of [`Process`].
    pub(super) async fn new(address: SocketAddr, folder: PathBuf) -> Result<Self, Error> {
        if !witness::is_in_path(PROGRAM) {
            let purpose = "it plays the cloud";
            return Err(Error::Missing {
                program: PROGRAM,
                purpose,
                package: PROGRAM,
            });
        }
        let settings = folder.join("config.yml");
        let written = fs::write(
            &settings,
            Self::settings(address, &folder.join("data").display().to_string()),
        );
        written.map_err(|source| Error::Io {
            action: "writing",
            path: settings,
            source,
        })?;
        let mut cloud = Self {
            address,
            folder,
            process: None,
        };
        cloud.start().await?;
        Ok(cloud)
    }

    /// Starts it again, unless it runs.
    pub(super) async fn start(&mut self) -> Result<(), Error> {
        if self.process.is_some() {
            return Ok(());
        }
        let mut command = Command::new(PROGRAM);
        // Its own environment variables would win over the file.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("REGISTRY_")) {
            command.env_remove(name);
        }
        command.arg("serve").arg(self.folder.join("config.yml"));
        let mut process = Process::spawn("the cloud", command, self.folder.join("log"))?;
        process.ready(&format!("{}/v2/", self.url())).await?;
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

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
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
        let read = fs::read(&path);
        let bytes = read.map_err(|source| Error::Io {
            action: "reading",
            path,
            source,
        })?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text
            .lines()
            .filter_map(Logged::parse)
            .filter(|logged| logged.target != "/v2/")
            .collect())
    }

    fn settings(address: SocketAddr, data: &str) -> String {
        format!(
            "version: 0.1\n\
             log:\n  \
               level: warn\n\
             storage:\n  \
               filesystem:\n    \
                 rootdirectory: {data:?}\n\
             http:\n  \
               addr: \"{address}\"\n"
        )
    }
}

impl Logged {
    /// Reads a line of the Apache combined log format; `None` for any other line.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("] \"")?;
        let (request, answer) = rest.split_once('"')?;
        let mut request = request.split(' ');
        let (method, target, version) = (request.next()?, request.next()?, request.next()?);
        if !version.starts_with("HTTP/") {
            return None;
        }
        let bytes = answer.split_whitespace().nth(1).and_then(|text| text.parse().ok());
        Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            bytes: bytes?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_access_log_are_requests() {
        let line = "127.0.0.1 - - [23/Nov/2026:13:13:08 +0000] \"GET /v2/plant/wharf/manifests/1 HTTP/1.1\" 200 404 \"\" \"wharf\"";
        let logged = Logged::parse(line).unwrap();
        assert_eq!((logged.method.as_str(), logged.bytes), ("GET", 404));
        assert_eq!(logged.target, "/v2/plant/wharf/manifests/1");

        assert_eq!(
            Logged::parse("{\"level\":\"info\",\"msg\":\"[x] \\\"GET\\\" done\"}"),
            None
        );
        assert_eq!(Logged::parse("time=\"2026\" level=warning msg=\"no secret\""), None);
    }
}
