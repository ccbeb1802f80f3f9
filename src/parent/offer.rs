//! Whether an upstream takes pushes. A node says so by itself; another registry is offered an upload, which is cancelled at
//! once (distribution spec, end-4a and end-14).

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Method, Response};

use super::error::Error;
use super::exchange::Exchange;
use super::gate::Load;
use super::kind::Kind;
use super::shared::Shared;
use super::via::Hops;
use super::wire;
use crate::oci::Repository;

impl Shared {
    /// Finds out whether it takes pushes, and remembers it. Whoever is not allowed to push there is no sign: rights change
    /// with the repository and the credentials.
    pub(super) async fn sound_out(&self, repository: &Repository) -> Result<(), Error> {
        if self.greet().await?.0 == Kind::Wharf {
            return Ok(());
        }
        let path = format!("{}v2/{}/blobs/uploads/", self.url.path(), repository.name.as_str());
        let mut url = self.url.clone();
        url.set_path(&path);
        let mut offer = self.exchange_of(Method::POST, url, repository);
        let reply = offer.run().await?;
        let status = reply.response.status().as_u16();
        match status {
            405 | 501 => self.memory.declines(true),
            202 if !reply.is_elsewhere => self.memory.declines(false),
            _ => {}
        }
        let location = location(&offer.url, &reply.response);
        wire::drain(reply.response).await;
        // What is not cancelled takes a while to be thrown away there.
        if let Some(location) = location.filter(|location| status == 202 && self.wire.is_home(location)) {
            (offer.method, offer.url) = (Method::DELETE, location);
            wire::drain(offer.run().await?.response).await;
        }
        Ok(())
    }

    fn exchange_of<'a>(&'a self, method: Method, url: url::Url, repository: &'a Repository) -> Exchange<'a> {
        let mut headers = HeaderMap::new();
        headers.insert(header::VIA, self.via(&Hops::default()));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        Exchange {
            shared: self,
            method,
            url,
            headers,
            load: Load::Question,
            repository: repository.name.as_str(),
        }
    }
}

fn location(base: &url::Url, response: &Response) -> Option<url::Url> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    base.join(location).ok()
}
