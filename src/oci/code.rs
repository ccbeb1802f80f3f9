//! The code in an error's body.

use std::fmt;

/// What went wrong, in the words of the distribution spec, "Error Codes"; the last five are those
/// that the distribution project has beside them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Code {
    /// The registry does not know the blob.
    BlobUnknown,
    /// The upload cannot go on.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// The digest does not match the content, or is none.
    DigestInvalid,
    /// The manifest points at content that is not there.
    ManifestBlobUnknown,
    /// The manifest is not valid.
    ManifestInvalid,
    /// The registry does not know the manifest.
    ManifestUnknown,
    /// The name is no repository name.
    NameInvalid,
    /// The registry does not know the repository.
    NameUnknown,
    /// The length is not the one announced.
    SizeInvalid,
    /// Credentials are needed.
    Unauthorized,
    /// The credentials do not suffice.
    Denied,
    /// This is not done here.
    Unsupported,
    /// Too much was asked in too short a time.
    TooManyRequests,
    /// What is needed is out of reach; may pass.
    Unavailable,
    /// Something else.
    Unknown,
    /// The tag is no tag.
    TagInvalid,
    /// The number of results asked for is no number.
    PaginationNumberInvalid,
    /// The range is not within the content.
    RangeInvalid,
}

impl Code {
    /// The code as it stands in the body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
            Self::TagInvalid => "TAG_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_as_the_specification_spells_them() {
        assert_eq!(Code::BlobUnknown.as_str(), "BLOB_UNKNOWN");
        assert_eq!(Code::TooManyRequests.to_string(), "TOOMANYREQUESTS");
        assert_eq!(Code::PaginationNumberInvalid.as_str(), "PAGINATION_NUMBER_INVALID");
    }
}
