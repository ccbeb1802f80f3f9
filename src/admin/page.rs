//! The status page: one document, no script, no request elsewhere.

use std::fmt::Write;

use crate::status::Readiness;

const STYLE: &str = "
:root { color-scheme: light dark; --quiet: light-dark(#5c6670, #9aa4ae); --line: light-dark(#d9dee3, #30363d); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } p { margin: .25rem 0; color: var(--quiet); }
table { border-collapse: collapse; width: 100%; margin-top: 1.5rem; }
th, td { text-align: left; padding: .5rem .25rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; color: var(--quiet); } .up { color: light-dark(#1a7f37, #3fb950); } .down { color: light-dark(#b35900, #d29922); }
";

/// The page for a moment.
pub(super) fn render(readiness: &Readiness) -> String {
    let node = escape(&readiness.node);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>{node} - wharf</title><style>{STYLE}</style></head><body><h1>{node}</h1>"
    );
    let state = if readiness.reasons.is_empty() {
        "everything is as it should be".to_owned()
    } else {
        escape(&readiness.reasons.join("; "))
    };
    let _ = write!(page, "<p>wharf {}, {}: {state}</p>", readiness.version, readiness.mode);
    page.push_str("<table><tr><th>Registry above</th><th>Last asked</th></tr>");
    for upstream in &readiness.upstreams {
        let (class, word) = if upstream.up {
            ("up", "answered")
        } else {
            ("down", "no answer")
        };
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"{class}\">{word}</td></tr>",
            escape(&upstream.name)
        );
    }
    page.push_str(
        "</table><p><a href=\"/metrics\">metrics</a> &middot; <a href=\"/readyz\">readiness</a></p></body></html>",
    );
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
