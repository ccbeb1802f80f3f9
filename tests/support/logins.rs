//! Who may log in at a node, as an operator says it.

use serde_json::{Value, json};

use crate::support::client::{Client, Reply, Request};
use crate::support::node::Node;

/// A token, with the two passwords that were shown.
#[derive(Clone, Debug)]
pub struct Token {
    pub name: String,
    pub passwords: [String; 2],
}

impl Token {
    pub fn client(&self, node: &Node) -> Client {
        node.client().logged_in(&self.name, &self.passwords[0])
    }
}

impl Node {
    /// Makes a token that may do this: `REPOSITORIES:ACTIONS`.
    pub async fn token(&self, name: &str, permissions: &[&str]) -> Token {
        let permissions: Vec<Value> = permissions
            .iter()
            .map(|permission| {
                let (repositories, actions) = permission.rsplit_once(':').expect("a permission");
                json!({ "repositories": [repositories], "actions": actions.split(',').collect::<Vec<_>>() })
            })
            .collect();
        let body = json!({ "name": name, "permissions": permissions }).to_string();
        let reply = self.admin_post("/api/tokens/create", body.as_bytes()).await;
        assert_eq!(reply.status, 200, "{reply}");
        let told = reply.json();
        let password = |which: &str| told["passwords"][which].as_str().expect("a password").to_owned();
        Token {
            name: name.to_owned(),
            passwords: [password("password1"), password("password2")],
        }
    }

    /// Replaces one of the passwords of a token; the new one.
    pub async fn rotate(&self, name: &str, which: usize) -> String {
        let target = format!("/api/tokens/rotate?name={name}&password={which}");
        let reply = self.admin_post(&target, b"").await;
        assert_eq!(reply.status, 200, "{reply}");
        let password = &reply.json()["passwords"][format!("password{which}")];
        password.as_str().expect("a password").to_owned()
    }

    /// `enable`, `disable`, `delete`.
    pub async fn token_deed(&self, deed: &str, name: &str) {
        let reply = self.admin_post(&format!("/api/tokens/{deed}?name={name}"), b"").await;
        assert_eq!(reply.status, 200, "{reply}");
    }

    pub async fn admin_post(&self, target: &str, body: &[u8]) -> Reply {
        let post = Request::new("POST", target).body(body);
        let post = match body.is_empty() {
            true => post.header("Content-Length", "0"),
            false => post,
        };
        self.admin_send(post).await
    }

    /// Asks for a token with these scopes; what the service says.
    pub async fn ask_for_token(&self, client: &Client, query: &str) -> Reply {
        client.get(&format!("/v2/_wharf/token?service=x&{query}")).await
    }

    /// A client with a token for these scopes.
    pub async fn bearer(&self, token: &Token, scopes: &[&str]) -> Client {
        let query: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
        let reply = self.ask_for_token(&token.client(self), &query.join("&")).await;
        assert_eq!(reply.status, 200, "{reply}");
        let told = reply.json();
        self.client()
            .saying(&format!("Bearer {}", told["token"].as_str().expect("a token")))
    }
}
