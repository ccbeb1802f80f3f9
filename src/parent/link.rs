//! The next page of a list, from the `Link` header (RFC 8288).

use url::Url;

/// The query of the `rel="next"` that stands in `header`, if it leads to the same path of the same
/// registry. A link elsewhere is none: it could send us, and our credentials, anywhere.
pub(super) fn next(asked: &Url, header: &str) -> Option<String> {
    header
        .split_inclusive('>')
        .zip(header.split('>').skip(1))
        .find_map(|(target, parameters)| {
            let (_, target) = target.rsplit_once('<')?;
            let target = target.strip_suffix('>')?;
            if !is_next(parameters) {
                return None;
            }
            let url = asked.join(target).ok()?;
            let is_same = url.origin() == asked.origin() && url.path() == asked.path();
            is_same.then(|| url.query().map(str::to_owned)).flatten()
        })
}

/// Whether the parameters after a target, up to the next comma, say `rel=next`.
fn is_next(parameters: &str) -> bool {
    let own = parameters.split(',').next().unwrap_or_default();
    own.split(';').any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(header: &str) -> Option<String> {
        let asked = Url::parse("https://r.example/v2/a/b/tags/list?n=2").unwrap();
        next(&asked, header)
    }

    #[test]
    fn the_query_of_the_next_page_is_all_that_is_taken() {
        let query = Some("n=2&last=v2".to_owned());

        assert_eq!(link(r#"</v2/a/b/tags/list?n=2&last=v2>; rel="next""#), query);
        assert_eq!(link("<?n=2&last=v2>;rel=next"), query);
        assert_eq!(
            link(r#"<https://r.example/v2/a/b/tags/list?n=2&last=v2>; title="x"; REL="Next""#),
            query
        );
        assert_eq!(
            link(r#"</v2/a/b/tags/list?n=2>; rel="prev", <?n=2&last=v2>; rel="next""#),
            query
        );
    }

    #[test]
    fn a_link_to_elsewhere_is_none() {
        for header in [
            r#"<http://evil.example/v2/a/b/tags/list?n=2>; rel="next""#,
            r#"<http://r.example/v2/a/b/tags/list?n=2>; rel="next""#,
            r#"<//evil.example/v2/a/b/tags/list?n=2>; rel="next""#,
            r#"</v2/other/tags/list?n=2>; rel="next""#,
            r#"<?n=2>; rel="prev""#,
            r#"<?n=2>"#,
            r#"?n=2; rel="next""#,
            "<",
            ">",
            "",
        ] {
            assert_eq!(link(header), None, "{header}");
        }
    }
}
