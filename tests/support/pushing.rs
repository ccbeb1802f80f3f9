//! Pushing as clients do it, step by step.

use bytes::Bytes;

use crate::support::client::{Client, Reply, Request};
use crate::support::content::{Image, Manifest, digest_like, sha256};

/// A registry that is pushed to.
#[derive(Clone)]
pub struct Pusher {
    client: Client,
    repository: String,
}

impl Pusher {
    pub fn of(client: Client, repository: &str) -> Self {
        Self {
            client,
            repository: repository.to_owned(),
        }
    }

    pub async fn send(&self, request: Request) -> Reply {
        self.client.send(request).await
    }

    /// `POST .../blobs/uploads/` with this query.
    pub async fn begin(&self, query: &str) -> Reply {
        let target = format!("/v2/{}/blobs/uploads/{query}", self.repository);
        self.send(Request::new("POST", &target).header("Content-Length", "0"))
            .await
    }

    /// Opens an upload; its location.
    pub async fn open(&self) -> String {
        let begun = self.begin("").await;
        assert_eq!(begun.status, 202, "{begun}");
        begun.header("location").to_owned()
    }

    pub async fn patch(&self, location: &str, range: Option<&str>, bytes: &[u8]) -> Reply {
        let mut request = Request::new("PATCH", location).body(bytes);
        if let Some(range) = range {
            request = request.header("Content-Range", range);
        }
        self.send(request).await
    }

    /// `PUT` with the rest of the content.
    pub async fn finish(&self, location: &str, digest: &str, rest: &[u8]) -> Reply {
        let mark = if location.contains('?') { '&' } else { '?' };
        let put = Request::new("PUT", &format!("{location}{mark}digest={digest}")).body(rest);
        let put = if rest.is_empty() {
            put.header("Content-Length", "0")
        } else {
            put
        };
        self.send(put).await
    }

    /// A blob in two requests; its digest.
    pub async fn blob(&self, bytes: &[u8]) -> String {
        self.blob_as(&sha256(bytes), bytes).await
    }

    pub async fn blob_as(&self, digest: &str, bytes: &[u8]) -> String {
        let location = self.open().await;
        let put = self.finish(&location, digest, bytes).await;
        assert_eq!(put.status, 201, "{put}");
        digest.to_owned()
    }

    pub async fn put_manifest(&self, reference: &str, manifest: &Manifest) -> Reply {
        let target = format!("/v2/{}/manifests/{reference}", self.repository);
        let put = Request::new("PUT", &target).header("Content-Type", &manifest.media_type);
        self.send(put.body(&manifest.bytes)).await
    }

    pub async fn manifest(&self, reference: &str, manifest: &Manifest) {
        let put = self.put_manifest(reference, manifest).await;
        assert_eq!(put.status, 201, "{put}");
    }

    /// Config and layers.
    pub async fn blobs_of(&self, image: &Image) {
        for bytes in image.layers.iter().chain([&image.config]) {
            self.blob_as(&digest_like(&image.manifest.digest, bytes), bytes).await;
        }
    }

    /// All of an image, the tag last.
    pub async fn image(&self, tag: &str, image: &Image) {
        self.blobs_of(image).await;
        self.manifest(tag, &image.manifest).await;
    }

    pub async fn delete(&self, rest: &str) -> Reply {
        let target = format!("/v2/{}/{rest}", self.repository);
        self.send(Request::new("DELETE", &target)).await
    }

    pub async fn get(&self, rest: &str) -> Reply {
        self.client.get(&format!("/v2/{}/{rest}", self.repository)).await
    }

    pub async fn head(&self, rest: &str) -> Reply {
        self.client.head(&format!("/v2/{}/{rest}", self.repository)).await
    }

    /// All of an image is here, to the byte.
    pub async fn assert_has(&self, reference: &str, image: &Image) {
        self.get(&format!("manifests/{reference}"))
            .await
            .assert_is(&image.manifest.bytes);
        let blobs: Vec<&Bytes> = image.layers.iter().chain([&image.config]).collect();
        for bytes in blobs {
            let digest = digest_like(&image.manifest.digest, bytes);
            self.get(&format!("blobs/{digest}")).await.assert_is(bytes);
        }
    }

    pub async fn tags(&self) -> Vec<String> {
        let list = self.get("tags/list?n=1000000").await;
        assert_eq!(list.status, 200, "{list}");
        serde_json::from_value(list.json()["tags"].clone()).expect("a list of tags")
    }

    /// The digests of what refers to `digest`.
    pub async fn referrers(&self, digest: &str) -> Vec<String> {
        let list = self.get(&format!("referrers/{digest}")).await;
        assert_eq!(list.status, 200, "{list}");
        let entries = list.json()["manifests"].as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| entry["digest"].as_str().map(str::to_owned))
            .collect()
    }
}
