//! Putting an image into a registry: blobs first, then the manifest (distribution spec, "Pushing manifests").

use std::time::Duration;

use url::Url;

use crate::cli::demo::Error;
use crate::cli::demo::image::{Content, Image, TAG};
use crate::cli::demo::process;
use crate::oci::media;
use crate::parent::http::{Call, Client, Reply};

const PATIENCE: Duration = Duration::from_secs(60);

/// Pushes `image` into the registry at `url`.
pub(super) async fn push(url: &str, image: &Image) -> Result<(), Error> {
    let client = process::client(url)?;
    for content in [&image.config, &image.layer] {
        blob(
            &client,
            &format!("{url}/v2/{}/blobs/uploads/", image.repository),
            content,
        )
        .await?;
    }
    let target = format!("{url}/v2/{}/manifests/{TAG}", image.repository);
    let headers = [("content-type", media::OCI_MANIFEST)];
    call(&client, "PUT", &target, &headers, &image.manifest).await?;
    Ok(())
}

/// POST, then PUT with the whole content (distribution spec, end-4a and end-6).
async fn blob(client: &Client, target: &str, content: &Content) -> Result<(), Error> {
    let begun = call(client, "POST", target, &[], &Content::nothing()).await?;
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
    call(
        client,
        "PUT",
        upload.as_str(),
        &[("content-type", media::OCTET_STREAM)],
        content,
    )
    .await?;
    Ok(())
}

async fn call(
    client: &Client,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    content: &Content,
) -> Result<Reply, Error> {
    let what = format!("{method} {url}");
    let call = Call {
        method,
        url,
        headers,
        body: content.bytes.clone(),
        within: PATIENCE,
    };
    let reply = match client.call(call).await {
        Ok(reply) => reply,
        Err(source) => return Err(Error::NoAnswer { what, source }),
    };
    match reply.status {
        201 | 202 => Ok(reply),
        status => Err(Error::Unexpected {
            what,
            reason: format!("answered {status}"),
        }),
    }
}
