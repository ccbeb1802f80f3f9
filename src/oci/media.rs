//! Media types of manifests and indexes (image spec, "Media Types"; Docker image manifest v2.2).

/// The OCI image index: a list of manifests.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's list of manifests.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// How an OCI image is run.
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// How a Docker image is.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
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

/// Whether the type is that of an image's manifest; parameters are ignored.
pub fn is_image(media_type: &str) -> bool {
    is_one_of(media_type, &[OCI_MANIFEST, DOCKER_MANIFEST])
}

/// Whether the type is that of a manifest or of a list of them; parameters are ignored.
pub fn is_manifest(media_type: &str) -> bool {
    is_one_of(media_type, &[OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST])
}

/// Whether the type is that of the configuration of an image that runs in a container; parameters are ignored.
pub fn is_image_config(media_type: &str) -> bool {
    is_one_of(media_type, &[OCI_CONFIG, DOCKER_CONFIG])
}

/// The type without its parameters.
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Types are compared without regard to case (RFC 9110, section 8.3.1).
fn is_one_of(media_type: &str, types: &[&str]) -> bool {
    types.iter().any(|one| one.eq_ignore_ascii_case(essence(media_type)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_change_what_a_type_is() {
        assert!(is_index("Application/vnd.oci.image.index.v1+JSON; charset=utf-8"));
        assert!(is_manifest("application/vnd.docker.distribution.manifest.v2+json;x=y"));
        assert!(!is_index(OCI_MANIFEST));
        assert!(!is_manifest(OCTET_STREAM));
        assert!(!is_manifest(""));
        assert!(!is_manifest(
            "application/vnd.docker.distribution.manifest.v1+prettyjws"
        ));
    }

    #[test]
    fn every_manifest_type_is_accepted_from_a_parent() {
        let accepted: Vec<_> = ACCEPT.split(", ").collect();

        assert_eq!(accepted, [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"]);
    }
}
