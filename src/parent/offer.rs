//! Whether an upstream takes pushes. A node says so by itself; another registry is offered an upload, which is cancelled at
//! once (distribution spec, end-4a and end-14).

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Method, Response};
use url::Url;

use super::authority::Want;
use super::error::Error;
use super::gate::Load;
use super::kind::Kind;
use super::shared::Shared;
use super::via::Hops;
use super::wire;
use crate::oci::Repository;

impl Shared {
    /// Finds out whether it takes pushes, and remembers it.
    ///
    /// It is shown what it was last shown for a pull. If that is not enough nothing is known: rights change with the repository
    /// and the credentials, and no pull must suffer from the question.
    pub(super) async fn sound_out(&self, repository: &Repository) -> Result<(), Error> {
        if self.greet().await?.0 == Kind::Wharf {
            return Ok(());
        }
        let name = repository.name.as_str();
        let mut headers = HeaderMap::new();
        headers.insert(header::VIA, self.via(&Hops::default()));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        if let Ok(Some(shown)) = self.authority.remembered(&self.wire, Want::pull(name)).await {
            headers.insert(header::AUTHORIZATION, shown.header.clone());
        }
        let mut url = self.url.clone();
        url.set_path(&format!("{}v2/{name}/blobs/uploads/", self.url.path()));
        let response = self.wire.send(&Method::POST, &url, &headers, Load::Question).await?;
        let status = response.status().as_u16();
        match status {
            405 | 501 => self.memory.declines(true),
            // Who wants to know more is not closed.
            202 | 401 | 403 => self.memory.declines(false),
            _ => {}
        }
        let location = location(&url, &response);
        wire::drain(response).await;
        // What is not cancelled takes a while to be thrown away there.
        if let Some(location) = location.filter(|location| status == 202 && self.wire.is_home(location)) {
            let cancelled = self.wire.send(&Method::DELETE, &location, &headers, Load::Question);
            wire::drain(cancelled.await?).await;
        }
        Ok(())
    }
}

fn location(base: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    base.join(location).ok()
}
