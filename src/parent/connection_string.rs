//! What a connected registry of Azure is told about itself and its parent in one text.
//!
//! `ConnectedRegistryName=<name>;SyncTokenName=<token>;SyncTokenPassword=<password>;ParentGatewayEndpoint=<host[:port]>;`
//! `ParentEndpointProtocol=<http|https>`, in any order. A value may have `=` in it.

use std::fmt;

use crate::units::Secret;

/// The variable that holds it.
pub const VARIABLE: &str = "ACR_REGISTRY_CONNECTION_STRING";

/// Taken apart; what it does not say is empty.
#[derive(Clone, Debug, Default)]
pub struct ConnectionString {
    /// Of the node.
    pub name: String,
    /// As whom it asks its parent.
    pub token: String,
    /// And with which password.
    pub password: Option<Secret>,
    /// Host and perhaps port of the parent, as written.
    pub gateway: String,
    /// `http` or `https`.
    pub protocol: String,
}

/// Why a text is none. Never holds any of its values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// A part without `=`; which one, counted from 1.
    NoValue(usize),
    /// A part that begins with no key; which one, counted from 1.
    NoKey(usize),
    /// A key that nobody knows.
    Unknown(String),
    /// A key that has to be there.
    Missing(&'static str),
    /// Neither http nor https.
    Protocol,
}

impl ConnectionString {
    /// Takes a text apart.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn read(text: &str) -> Result<Self, Malformed> {
        let mut read = Self {
            protocol: "https".to_owned(),
            ..Self::default()
        };
        let parts = text.split(';').map(str::trim).enumerate();
        for (index, part) in parts.filter(|(_, part)| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or(Malformed::NoValue(index + 1))?;
            match key.trim().to_ascii_lowercase().as_str() {
                "connectedregistryname" => value.clone_into(&mut read.name),
                "synctokenname" => value.clone_into(&mut read.token),
                "synctokenpassword" => read.password = Some(Secret::new(value)),
                "parentgatewayendpoint" => value.clone_into(&mut read.gateway),
                "parentendpointprotocol" => read.protocol = value.to_ascii_lowercase(),
                // Half of a password may stand where a key should.
                other if other.len() <= 24 && other.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                    return Err(Malformed::Unknown(key.trim().to_owned()));
                }
                _ => return Err(Malformed::NoKey(index + 1)),
            }
        }
        for (key, is_missing) in [
            ("ConnectedRegistryName", read.name.is_empty()),
            ("SyncTokenName", read.token.is_empty()),
            ("SyncTokenPassword", read.password.is_none()),
            ("ParentGatewayEndpoint", read.gateway.is_empty()),
        ] {
            if is_missing {
                return Err(Malformed::Missing(key));
            }
        }
        match read.protocol.as_str() {
            "http" | "https" => Ok(read),
            _ => Err(Malformed::Protocol),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue(number) => write!(f, "has no = in part {number}; write KEY=VALUE;KEY=VALUE"),
            Self::NoKey(number) => write!(
                f,
                "has no key in part {number}; write KEY=VALUE;KEY=VALUE, and no ; in a value"
            ),
            Self::Unknown(key) => write!(
                f,
                "has a key {key:?}; there are ConnectedRegistryName, SyncTokenName, SyncTokenPassword, ParentGatewayEndpoint and ParentEndpointProtocol"
            ),
            Self::Missing(key) => write!(
                f,
                "lacks {key}; add it, as az acr connected-registry get-settings prints it"
            ),
            Self::Protocol => f.write_str("has a ParentEndpointProtocol that is neither http nor https"),
        }
    }
}

/// Puts values in the place of `$NAME` and `${NAME}`; of what is not there, the text stays.
pub fn expanded(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let (name, after) = match behind.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, after)) => (name, after),
            None => {
                let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                let end = behind.find(|letter| !is_of_name(letter)).unwrap_or(behind.len());
                behind.split_at(end)
            }
        };
        match value(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[at..rest.len() - after.len()]),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ConnectedRegistryName=l4;SyncTokenName=l4-sync;SyncTokenPassword==a=b==;ParentGatewayEndpoint=$IOTEDGE_PARENTHOSTNAME:8000;ParentEndpointProtocol=https";

    #[test]
    fn a_password_may_have_any_equals_signs_and_the_order_does_not_matter() {
        let mut parts: Vec<&str> = TEXT.split(';').collect();
        for _ in 0..parts.len() {
            parts.rotate_left(1);
            let read = ConnectionString::read(&parts.join(";")).unwrap();

            assert_eq!((read.name.as_str(), read.token.as_str()), ("l4", "l4-sync"));
            assert_eq!(read.password.unwrap().expose(), "=a=b==");
            assert_eq!(
                (read.gateway.as_str(), read.protocol.as_str()),
                ("$IOTEDGE_PARENTHOSTNAME:8000", "https")
            );
        }
        let spelled = TEXT.replace("ConnectedRegistryName", "connectedRegistryNAME");
        assert_eq!(ConnectionString::read(&spelled).unwrap().name, "l4");
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_secret_is() {
        for (text, words) in [
            (TEXT.replace("SyncTokenName", "SyncTokenNames"), "\"SyncTokenNames\""),
            (TEXT.replace("SyncTokenPassword==a=b==;", ""), "lacks SyncTokenPassword"),
            (TEXT.replace("=https", "=ftp"), "neither http nor https"),
            (format!("{TEXT};secret"), "part 6"),
            (format!("{TEXT};a=b=c1"), "\"a\""),
            (format!("{TEXT};s3cret:x=y"), "part 6"),
            (String::new(), "lacks ConnectedRegistryName"),
        ] {
            let error = ConnectionString::read(&text).unwrap_err().to_string();
            assert!(
                error.contains(words) && !error.contains("a=b") && !error.contains("s3cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn variables_are_put_in_and_unknown_ones_stay() {
        let value = |name: &str| (name == "HOST").then(|| "l5.example".to_owned());

        for (text, expanded_text) in [
            ("$HOST:8000", "l5.example:8000"),
            ("${HOST}:8000", "l5.example:8000"),
            ("a-$HOST-${HOST}", "a-l5.example-l5.example"),
            ("$NONE:1", "$NONE:1"),
            ("${NONE}:1", "${NONE}:1"),
            ("$", "$"),
            ("plain", "plain"),
            ("${HOST", "${HOST"),
        ] {
            assert_eq!(expanded(text, value), expanded_text);
        }
    }
}
