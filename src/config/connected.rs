//! The environment of an Azure connected registry, so that a node can stand in its place as it is.

use toml::Value;

use super::Remark;
use crate::parent::connection_string::{ConnectionString, VARIABLE, expanded};

/// What a variable says.
pub(super) struct Said {
    pub(super) key: &'static str,
    pub(super) variable: &'static str,
    pub(super) value: Value,
    /// It holds where the file says nothing.
    pub(super) is_default: bool,
}

/// What its variables say. With its connection string its defaults hold too, as there are no others who would say them.
pub(super) fn settings(environment: &[(String, String)]) -> Result<Vec<Said>, Remark> {
    let value = |name: &str| {
        let found = environment.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let mut said: Vec<Said> = Vec::new();
    let mut say = |key, variable, text: String, is_default| {
        said.push(Said {
            key,
            variable,
            value: Value::String(text),
            is_default,
        });
    };
    let string = value(VARIABLE);
    if let Some(text) = &string {
        let read = ConnectionString::read(text).map_err(|error| Remark::new(VARIABLE, error.to_string()))?;
        let gateway = value(GATEWAY).unwrap_or(read.gateway);
        let gateway = expanded(&gateway, value);
        say("node.name", VARIABLE, read.name, false);
        say("parent.url", VARIABLE, format!("{}://{gateway}", read.protocol), false);
        say("parent.username", VARIABLE, read.token, false);
        // Its password is taken out of it where passwords are read.
        say("parent.password_env", VARIABLE, VARIABLE.to_owned(), false);
        say("listen.address", VARIABLE, "0.0.0.0:8080".to_owned(), true);
        say("storage.path", VARIABLE, "/var/acr/data".to_owned(), true);
        if std::path::Path::new(CERTIFICATES).is_dir() {
            say("listen.certs_dir", VARIABLE, CERTIFICATES.to_owned(), true);
        }
    }
    for (variable, key) in [
        ("ACR_REGISTRY_LOGIN_SERVER", "listen.login_server"),
        ("ACR_REGISTRY_DATA_VOLUME", "storage.path"),
        ("ACR_REGISTRY_CERTIFICATE_VOLUME", "listen.certs_dir"),
    ] {
        if let Some(text) = value(variable) {
            say(key, variable, text, false);
        }
    }
    Ok(said)
}

const GATEWAY: &str = "ACR_PARENT_GATEWAY_ENDPOINT";
const CERTIFICATES: &str = "/var/acr/certs";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(environment: &[(&str, &str)]) -> Vec<(String, String)> {
        let environment: Vec<(String, String)> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let said = settings(&environment).unwrap().into_iter();
        said.map(|said| (said.key.to_owned(), said.value.as_str().unwrap().to_owned()))
            .collect()
    }

    const STRING: &str = "ConnectedRegistryName=l4;SyncTokenName=l4-sync;SyncTokenPassword==s3cret=;ParentGatewayEndpoint=$IOTEDGE_PARENTHOSTNAME:8000;ParentEndpointProtocol=https";

    #[test]
    fn a_connection_string_says_name_parent_and_login_and_the_rest_is_as_there() {
        let said = said(&[(VARIABLE, STRING), ("IOTEDGE_PARENTHOSTNAME", "l5.example")]);
        let has = |key: &str, value: &str| said.contains(&(key.to_owned(), value.to_owned()));

        assert!(has("node.name", "l4") && has("parent.username", "l4-sync"), "{said:?}");
        assert!(has("parent.url", "https://l5.example:8000"), "{said:?}");
        assert!(
            has("storage.path", "/var/acr/data") && has("listen.address", "0.0.0.0:8080"),
            "{said:?}"
        );
        assert!(!format!("{said:?}").contains("s3cret"));
    }

    #[test]
    fn its_other_variables_say_more_and_win() {
        let said = said(&[
            (VARIABLE, STRING),
            ("ACR_PARENT_GATEWAY_ENDPOINT", "${HOST}"),
            ("HOST", "10.0.0.1:8080"),
            ("ACR_REGISTRY_LOGIN_SERVER", "192.168.0.100:8080"),
            ("ACR_REGISTRY_DATA_VOLUME", "/data"),
        ]);
        let last = |key: &str| {
            said.iter()
                .rev()
                .find(|(other, _)| other == key)
                .map(|(_, value)| value.clone())
        };

        assert_eq!(last("parent.url").as_deref(), Some("https://10.0.0.1:8080"));
        assert_eq!(last("listen.login_server").as_deref(), Some("192.168.0.100:8080"));
        assert_eq!(last("storage.path").as_deref(), Some("/data"));
    }

    #[test]
    fn without_them_nothing_is_said() {
        assert_eq!(said(&[("PATH", "/bin"), ("ACR_REGISTRY_LOGIN_SERVER", "")]), []);
        assert!(settings(&[(VARIABLE.to_owned(), "x".to_owned())]).is_err());
    }
}
