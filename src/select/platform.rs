//! Platforms: what an image is built for.

use std::fmt;
use std::str::FromStr;

use crate::units::written_as_text;

/// Platforms as clients write them: `linux/amd64`, `linux/arm/v7`, `linux/*`.
///
/// `arm64` and `arm64/v8` are the same, and `arm` alone is `arm/v7`, as containerd has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: String,
}

/// Why a text is no platform. The operator's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no platform; write OS/ARCHITECTURE, like linux/amd64, linux/arm/v7 or linux/*")]
pub struct PlatformError(String);

impl Platform {
    /// Whether it names the platform of an entry of an index (image spec, "Image Index": `platform`).
    pub fn names(&self, os: &str, architecture: &str, variant: &str) -> bool {
        let is = |wanted: &str, there: &str| wanted == "*" || wanted == there;
        let variant = settled(architecture, variant);
        is(&self.os, os) && is(&self.architecture, architecture) && is(&self.variant, variant)
    }
}

/// The variant that is meant where none is named.
fn settled<'a>(architecture: &str, variant: &'a str) -> &'a str {
    match (architecture, variant) {
        ("arm64", "") => "v8",
        ("arm", "") => "v7",
        _ => variant,
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte))
        };
        let (os, architecture, variant) = match parts[..] {
            // All variants of all architectures.
            [os, "*"] => (os, "*", "*"),
            [os, architecture] => (os, architecture, settled(architecture, "")),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return Err(PlatformError(text.to_owned())),
        };
        if !parts.iter().all(is_word) {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_str() {
            "" => Ok(()),
            "*" if self.architecture == "*" => Ok(()),
            variant if variant == settled(&self.architecture, "") => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

written_as_text!(Platform);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_names_what_clients_mean_by_it() {
        for (text, there, names) in [
            ("linux/amd64", ("linux", "amd64", ""), true),
            ("linux/amd64", ("linux", "amd64", "v3"), false),
            ("linux/amd64", ("windows", "amd64", ""), false),
            ("linux/arm64", ("linux", "arm64", "v8"), true),
            ("linux/arm64/v8", ("linux", "arm64", ""), true),
            ("linux/arm", ("linux", "arm", "v7"), true),
            ("linux/arm", ("linux", "arm", "v6"), false),
            ("linux/arm/v6", ("linux", "arm", "v6"), true),
            ("linux/arm/*", ("linux", "arm", "v6"), true),
            ("linux/*", ("linux", "s390x", ""), true),
            ("linux/*", ("linux", "arm", "v6"), true),
        ] {
            let platform: Platform = text.parse().unwrap();
            let (os, architecture, variant) = there;
            assert_eq!(platform.names(os, architecture, variant), names, "{text} {there:?}");
        }
    }

    #[test]
    fn platforms_are_written_as_they_are_read_and_nothing_else_is_one() {
        for text in ["linux/amd64", "linux/arm/v6", "linux/*", "linux/arm64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }
}
