//! What a registry wants to see before it answers: the `WWW-Authenticate` header, taken apart.
//!
//! Several challenges may stand in one header and several headers in one answer; scheme and
//! parameter names have any case, and quoted values hold commas (RFC 9110, 11.6.1).

use http::{HeaderMap, header};

/// Longer headers are ignored: no registry has so much to say.
const MOST_BYTES: usize = 8 * 1024;

/// One way of proving who asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Challenge {
    /// Fetch a token from a service and show that.
    Bearer(Bearer),
    /// Show user and password themselves.
    Basic,
}

/// What a token is to be fetched for, and where (distribution token specification).
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Bearer {
    /// Where tokens are given out, as written: may be relative, and is not to be trusted yet.
    pub(super) realm: String,
    pub(super) service: Option<String>,
    /// The scopes, separated by blanks.
    pub(super) scope: Option<String>,
}

impl Challenge {
    /// The best challenge of an answer: Bearer before Basic; what is unknown is passed over.
    pub(super) fn choose(headers: &HeaderMap) -> Option<Self> {
        let all = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse);
        let mut best = None;
        for raw in all {
            match raw.known() {
                Some(bearer @ Self::Bearer(_)) => return Some(bearer),
                Some(Self::Basic) => best = Some(Self::Basic),
                None => {}
            }
        }
        best
    }
}

/// Whether an answer says that the token shown covers too little (RFC 6750, 3.1).
pub(super) fn is_insufficient_scope(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .any(|raw| raw.parameter("error").as_deref() == Some("insufficient_scope"))
}

/// A challenge as it stands in the header.
#[derive(Debug)]
struct Raw {
    /// In lower case.
    scheme: String,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

impl Raw {
    fn parameter(&self, name: &str) -> Option<String> {
        let found = self.parameters.iter().find(|(known, _)| known == name)?;
        Some(found.1.clone())
    }

    fn known(&self) -> Option<Challenge> {
        match self.scheme.as_str() {
            "bearer" => Some(Challenge::Bearer(Bearer {
                realm: self.parameter("realm")?,
                service: self.parameter("service"),
                scope: self.parameter("scope").filter(|scope| !scope.is_empty()),
            })),
            "basic" => Some(Challenge::Basic),
            _ => None,
        }
    }
}

/// Reads `Scheme name="value", name=value, Scheme ...`; stops where it no longer understands.
fn parse(header: &str) -> Vec<Raw> {
    let mut challenges: Vec<Raw> = Vec::new();
    if header.len() > MOST_BYTES {
        return challenges;
    }
    let mut cursor = Cursor { rest: header };
    loop {
        cursor.skip(|c| c == ',' || c.is_ascii_whitespace());
        let word = cursor.token();
        if word.is_empty() {
            return challenges;
        }
        cursor.skip(|c| c == ' ' || c == '\t');
        // A word before `=` is a parameter of the challenge that is open; any other word opens one.
        match (cursor.eat('='), challenges.last_mut()) {
            (true, Some(open)) => {
                cursor.skip(|c| c == ' ' || c == '\t');
                let value = cursor.value();
                open.parameters.push((word.to_ascii_lowercase(), value));
            }
            (true, None) => return challenges,
            (false, _) => challenges.push(Raw {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            }),
        }
    }
}

/// What is left to read of a header.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(unwanted);
    }

    fn eat(&mut self, wanted: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(wanted) else {
            return false;
        };
        self.rest = rest;
        true
    }

    fn token(&mut self) -> &'a str {
        let end = self.rest.find(|c| !is_token(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    /// A quoted string with its escapes undone, or a bare word up to the next comma.
    fn value(&mut self) -> String {
        if !self.eat('"') {
            let end = self.rest.find([',', ' ', '\t']).unwrap_or(self.rest.len());
            let (bare, rest) = self.rest.split_at(end);
            self.rest = rest;
            return bare.to_owned();
        }
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return value;
                }
                _ => value.push(c),
            }
        }
        self.rest = "";
        value
    }
}

/// The characters of a token (RFC 9110, 5.6.2), and those of the bare base64 that `Negotiate` has.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        lines
            .iter()
            .map(|line| (header::WWW_AUTHENTICATE, HeaderValue::from_static(line)))
            .collect()
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }))
    }

    #[test]
    fn the_challenge_of_docker_hub_is_understood() {
        let hub = headers(&[
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
        ]);

        assert_eq!(
            Challenge::choose(&hub),
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/alpine:pull")
            )
        );
    }

    #[test]
    fn commas_inside_quotes_end_no_parameter() {
        let both = headers(&[r#"Bearer realm="http://a/t",scope="repository:a/b:pull,push""#]);

        assert_eq!(
            Challenge::choose(&both),
            bearer("http://a/t", None, Some("repository:a/b:pull,push"))
        );
    }

    #[test]
    fn case_blanks_bare_values_and_escapes_do_not_matter() {
        let odd = headers(&[r#"bEARER  REALM = "http://a/\"t\"" ,Service=plain , scope="""#]);

        assert_eq!(Challenge::choose(&odd), bearer("http://a/\"t\"", Some("plain"), None));
    }

    #[test]
    fn bearer_is_chosen_before_basic_wherever_it_stands() {
        let one_line = headers(&[r#"Basic realm="r", charset="UTF-8", Bearer realm="http://a/t""#]);
        let two_lines = headers(&[r#"Bearer realm="http://a/t""#, r#"Basic realm="r""#]);
        let with_strange = headers(&["Negotiate YWJjZA==", r#"Bearer realm="http://a/t""#]);

        for each in [one_line, two_lines, with_strange] {
            assert_eq!(Challenge::choose(&each), bearer("http://a/t", None, None));
        }
    }

    #[test]
    fn what_cannot_be_understood_is_no_challenge() {
        for line in [
            "",
            ",,,",
            "=",
            "Bearer",
            r#"Bearer service="no realm""#,
            "Digest a=b",
            "\"",
        ] {
            assert_eq!(Challenge::choose(&headers(&[line])), None, "{line}");
        }
    }

    #[test]
    fn basic_needs_no_parameters() {
        assert_eq!(Challenge::choose(&headers(&["Basic"])), Some(Challenge::Basic));
    }

    #[test]
    fn an_overlong_header_is_ignored() {
        let long = format!("Bearer realm=\"{}\"", "a".repeat(MOST_BYTES));
        let mut map = HeaderMap::new();
        map.insert(header::WWW_AUTHENTICATE, long.parse().unwrap());

        assert_eq!(Challenge::choose(&map), None);
    }

    #[test]
    fn too_small_a_scope_is_told_apart_from_no_token() {
        let narrow = headers(&[r#"Bearer realm="http://a/t",error="insufficient_scope""#]);
        let expired = headers(&[r#"Bearer realm="http://a/t",error="invalid_token""#]);

        assert!(is_insufficient_scope(&narrow));
        assert!(!is_insufficient_scope(&expired));
    }
}
