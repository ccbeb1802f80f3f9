//! Putting an image into a registry: blobs first, then the manifest (distribution spec, "Pushing manifests").

use url::Url;

use crate::cli::demo::Error;
use crate::cli::demo::endpoint::Endpoint;
use crate::cli::demo::image::{Content, Image, TAG};
use crate::oci::media;
use crate::parent::http::{Client, Reply};

/// Pushes `image` into the registry `at`.
///
/// # Errors
///
/// [`Error::NoAnswer`], [`Error::Unexpected`].
pub(super) async fn push(at: &Endpoint, image: &Image) -> Result<(), Error> {
    let pusher = Pusher {
        at,
        client: at.client()?,
    };
    let base = format!("{}/v2/{}", at.url, image.repository);
    for content in [&image.config, &image.layer] {
        pusher.blob(&format!("{base}/blobs/uploads/"), content).await?;
    }
    let headers = [("content-type", media::OCI_MANIFEST)];
    let target = format!("{base}/manifests/{TAG}");
    pusher.call("PUT", &target, &headers, &image.manifest).await?;
    Ok(())
}

struct Pusher<'a> {
    at: &'a Endpoint,
    client: Client,
}

impl Pusher<'_> {
    /// POST, then PUT with the whole content (distribution spec, end-4a and end-6).
    async fn blob(&self, target: &str, content: &Content) -> Result<(), Error> {
        let begun = self.call("POST", target, &[], &Content::nothing()).await?;
        let unexpected = || Error::Unexpected {
            what: target.to_owned(),
            reason: "no upload location in the answer".to_owned(),
        };
        let location = begun.header("location").ok_or_else(unexpected)?;
        let base = Url::parse(target).map_err(|_| unexpected())?;
        let mut upload = base.join(location).map_err(|_| unexpected())?;
        upload
            .query_pairs_mut()
            .append_pair("digest", &content.digest.to_string());
        let headers = [("content-type", media::OCTET_STREAM)];
        self.call("PUT", upload.as_str(), &headers, content).await?;
        Ok(())
    }

    async fn call(&self, method: &str, url: &str, headers: &[(&str, &str)], content: &Content) -> Result<Reply, Error> {
        let body = content.bytes.clone();
        let reply = self.at.call(&self.client, method, url, headers, body).await?;
        match reply.status {
            201 | 202 => Ok(reply),
            status => Err(Error::Unexpected {
                what: format!("{method} {url}"),
                reason: format!("answered {status}"),
            }),
        }
    }
}
