//! Media types of manifests and indexes (image spec, "Media Types"; Docker image manifest v2.2).

/// The OCI image index: a list of manifests.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's list of manifests.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What blobs are served as.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// What to accept when asking for a manifest: everything, so that nothing is converted for us.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    */*";

/// Whether the type is that of a list of manifests; parameters are ignored.
pub fn is_index(media_type: &str) -> bool {
    is_one_of(media_type, &[OCI_INDEX, DOCKER_LIST])
}

/// Whether the type is that of a manifest or of a list of them; parameters are ignored.
pub fn is_manifest(media_type: &str) -> bool {
    is_one_of(media_type, &[OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST])
}

/// The type without its parameters.
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Types are compared without regard to case (RFC 9110, section 8.3.1).
fn is_one_of(media_type: &str, types: &[&str]) -> bool {
    types.iter().any(|one| one.eq_ignore_ascii_case(essence(media_type)))
}
