//! The specifications' words, as types that cannot hold a wrong value: digest, name, reference,
//! media type, manifest, range, error code.
//!
//! Sources: OCI distribution spec and image spec; RFC 9110 for ranges. What parses here may be
//! used in a path, a query, a header or a file name as it stands.

pub use code::Code;
pub use content_range::ContentRange;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError};
pub use error_body::{error_body, first_error};
pub use hasher::Hasher;
pub use manifest::{Manifest, ManifestError};
pub use name::{Name, NameError};
pub use range::{Ranges, Resolved};
pub use reference::{Reference, ReferenceError};
pub use registry::{Registry, RegistryError};
pub use repository::Repository;
pub use session::{SessionId, SessionIdError};
pub use tag::{Tag, TagError};

pub mod media;
pub mod shape;

mod code;
mod content_range;
mod descriptor;
mod digest;
mod error_body;
mod hasher;
mod manifest;
mod name;
mod range;
mod reference;
mod registry;
mod repository;
mod session;
mod tag;
