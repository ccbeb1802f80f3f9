//! The status page: one document, no script, no request elsewhere.

use std::fmt::Write;

use crate::queue::Listing;
use crate::status::Readiness;
use crate::units::Size;

/// Items that are listed.
const SHOWN: usize = 20;

const STYLE: &str = "
:root { color-scheme: light dark; --quiet: light-dark(#5c6670, #9aa4ae); --line: light-dark(#d9dee3, #30363d); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 0; } p { margin: .25rem 0; color: var(--quiet); }
table { border-collapse: collapse; table-layout: fixed; width: 100%; margin-top: 1.5rem; }
th, td { text-align: left; padding: .5rem .25rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; color: var(--quiet); } .up { color: light-dark(#1a7f37, #3fb950); } .down { color: light-dark(#b35900, #d29922); }
";

/// The page for a moment.
pub(super) fn render(readiness: &Readiness, queue: Option<&Listing>) -> String {
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
    if !readiness.upstreams.is_empty() {
        page.push_str("<table><tr><th>Registry above</th><th>Last asked</th></tr>");
    }
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
    if !readiness.upstreams.is_empty() {
        page.push_str("</table>");
    }
    // A mirror owes nothing, unless it was a registry before.
    if let Some(queue) =
        queue.filter(|queue| readiness.mode == "registry" && queue.parent.is_some() || !queue.items.is_empty())
    {
        render_queue(&mut page, queue);
    }
    page.push_str("<p><a href=\"/metrics\">metrics</a> &middot; <a href=\"/readyz\">readiness</a></p></body></html>");
    page
}

/// What waits for the parent, the oldest first.
fn render_queue(page: &mut String, queue: &Listing) {
    let waiting = match queue.items.len() {
        0 => "nothing waits".to_owned(),
        1 => "1 waits".to_owned(),
        many => format!("{many} wait"),
    };
    let parent = queue.parent.as_deref().unwrap_or("a parent that is not configured");
    let _ = write!(
        page,
        "<h2>On the way up</h2><p>{waiting} for {}; {} of {} on the disk may exist nowhere else</p>",
        escape(parent),
        Size::of(queue.bytes),
        Size::of(queue.capacity)
    );
    if queue.items.is_empty() {
        return;
    }
    page.push_str("<table><tr><th>Push or delete</th><th>State</th></tr>");
    for item in queue.items.iter().take(SHOWN) {
        let name = match item.tags.first() {
            Some(tag) => format!("{}:{tag}", item.repository),
            None => format!(
                "{}@{}",
                item.repository,
                item.reference.get(..19).unwrap_or(&item.reference)
            ),
        };
        let name = if item.what == "delete" {
            format!("delete {}: {}", item.repository, item.reference)
        } else {
            name
        };
        let class = if matches!(item.state, "parked" | "held") {
            "down"
        } else {
            ""
        };
        let reason = item
            .reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(": {reason}"));
        let sent = item.blob.as_ref().map_or_else(String::new, |blob| {
            format!(", {} of {} of a blob", Size::of(blob.sent), Size::of(blob.size))
        });
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"{class}\">{}{}</td></tr>",
            escape(&name),
            item.state,
            escape(&(sent + &reason))
        );
    }
    page.push_str("</table>");
    if let Some(more) = queue.items.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = write!(page, "<p>and {more} more: <a href=\"/api/queue\">all of them</a></p>");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
