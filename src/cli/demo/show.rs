//! What the demo says: plain lines, aligned; colour only on a terminal.

use std::io::{IsTerminal as _, stdout};
use std::time::Duration;

use crate::cli::demo::cloud;
use crate::cli::demo::image::{Image, REPOSITORY, TAG};
use crate::cli::demo::node::{Arrived, Item, Node};
use crate::cli::demo::plant::Plant;
use crate::cli::demo::pull::Object;
use crate::cli::demo::story::Chapter;

/// The plant, from the top down.
pub(super) fn plant(plant: &Plant<'_>) {
    say!("A plant on loopback, its files in {}\n", plant.folder.path().display());
    say!("  {:<15} {:<23} {}", "cloud", plant.cloud.endpoint().url, cloud::KIND);
    for node in plant.nodes().into_iter().rev() {
        let (name, mode) = (node.name, node.mode);
        say!(
            "  {name:<15} {:<23} mode: {mode}, parent: {}",
            node.endpoint().url,
            node.parent
        );
    }
    if let Some(trust) = &plant.trust {
        say!(
            "\n  TLS by an authority of the plant's own: {}",
            trust.join("ca.crt").display()
        );
    }
}

/// Who may do what.
pub(super) fn accounts(plant: &Plant<'_>) {
    for node in plant.nodes().into_iter().rev() {
        say!(
            "  {:<15} is known to {:<15} and may have plant/* there",
            node.name,
            node.parent
        );
    }
    say!("  {:<15} is known to all and may do everything\n", "demo");
}

/// What was pushed into the cloud.
pub(super) fn image(image: &Image) {
    say!("\nInto the cloud: {REPOSITORY}:{TAG}, this program on an empty base\n");
    for (what, content) in image.contents() {
        say!(
            "  {what:<15} {:>10}   {}",
            size(content.bytes.len() as u64),
            content.digest
        );
    }
}

/// The title of a part of the story.
pub(super) fn heading(text: &str) {
    say!("\n{}\n", paint(BOLD, text));
}

/// What is waited for.
pub(super) fn waiting(plant: &Plant<'_>, span: Duration) {
    let ttl = plant.tag_ttl.as_secs();
    say!(
        "  The cloud is stopped. {} s until tags are older than their tag_ttl of {ttl} s ...\n",
        span.as_secs()
    );
}

/// What was pulled, and what each layer of the network did for it.
pub(super) fn chapter(plant: &Plant<'_>, chapter: &Chapter) {
    let objects = &chapter.pull.objects;
    say!(
        "  {:<15} {:>10} {:>11} {:>11}   answered by",
        "at Level 3",
        "bytes",
        "first byte",
        "whole"
    );
    for object in objects {
        let bytes = object
            .file
            .as_ref()
            .map_or_else(|| "-".to_owned(), |_| size(object.bytes));
        let (first, whole) = (span(object.first_byte), span(object.whole));
        say!(
            "  {:<15} {bytes:>10} {first:>11} {whole:>11}   {}",
            object.what,
            answered_by(object)
        );
    }
    say!(
        "\n  {:<15} {:>10} {:>11} {:>9} {:>6} {:>7} {:>6}",
        "layer",
        "bytes",
        "first byte",
        "requests",
        "hits",
        "misses",
        "stale"
    );
    for (at, node) in plant.nodes().into_iter().enumerate() {
        let counted = chapter.counters[at];
        let first = chapter.first_bytes[at].map_or_else(|| "-".to_owned(), span);
        let bytes = if counted.requests == 0 {
            "-".to_owned()
        } else {
            size(counted.served_bytes)
        };
        say!(
            "  {:<15} {bytes:>10} {first:>11} {:>9} {:>6} {:>7} {:>6}",
            node.name,
            counted.requests,
            counted.hits,
            counted.misses,
            counted.stale
        );
    }
    let (asked, sent) = (
        chapter.cloud.len(),
        chapter.cloud.iter().map(|logged| logged.bytes).sum(),
    );
    let sent = if asked == 0 { "-".to_owned() } else { size(sent) };
    say!("  {:<15} {sent:>10} {:>11} {asked:>9}\n", "cloud", "-");
    for warning in objects.iter().filter_map(|object| object.warning.as_deref()) {
        say!("  Warning: {warning}");
    }
}

/// What waits for the cloud.
pub(super) fn queue(node: &Node, items: &[Item]) {
    for Item {
        number,
        state,
        repository,
        tags,
    } in items
    {
        say!(
            "  {} owes the cloud: {number} {state} {repository}:{}",
            node.name,
            tags.join(",")
        );
    }
    say!("");
}

/// That the way is open again.
pub(super) fn delivered(node: &Node, after: Duration) {
    say!(
        "  The cloud is started. {:.1} s later {} owes it nothing.\n",
        after.as_secs_f64(),
        node.name
    );
}

/// How far up a push has got.
pub(super) fn receipt(node: &Node, layers: &[Arrived]) {
    let has = |layer: &Arrived| {
        format!(
            "{} {}",
            layer.node,
            if layer.has == Some(true) {
                "has it"
            } else {
                "does not have it"
            }
        )
    };
    let layers: Vec<String> = layers.iter().map(has).collect();
    say!("  The receipt, asked for at {}: {}\n", node.name, layers.join(", "));
}

/// One claim with what was seen.
pub(super) fn claim(claim: &str, holds: bool, seen: &str) {
    let word = if holds {
        paint(GREEN, "proved")
    } else {
        paint(RED, "NOT PROVED")
    };
    say!("  {word}: {claim} ({seen})");
}

/// The end of the story.
pub(super) fn proved(claims: usize, witness: &str) {
    say!("\nAll {claims} claims are proved, by the nodes' counters, the cloud's log and {witness}.");
}

/// What to do with a plant that stays up.
pub(super) fn to_try(plant: &Plant<'_>) {
    let (push, lowest) = (plant.l5.address(), plant.l3.address());
    say!("\n{}\n", paint(BOLD, "The plant is up, the cloud too. To try"));
    // Docker and its kin know certificates of authorities by folder.
    let trusting = match &plant.trust {
        Some(folder) => format!("--cert-dir {}", folder.display()),
        None => "--tls-verify=false".to_owned(),
    };
    let auth = plant.folder.path().join("logins.json");
    let auth = auth.display();
    let logins = match &plant.trust {
        Some(_) => format!("--authfile {auth} "),
        None => String::new(),
    };
    for endpoint in [plant.l3.endpoint(), plant.l5.endpoint()] {
        if let Some(account) = &endpoint.account {
            let registry = endpoint.url.trim_start_matches("https://");
            let (name, file) = (account.name, account.password_file.display());
            say!("  docker login -u {name} --password-stdin {registry} < {file}");
            // Podman reads Docker's file of logins too, and does not understand all that Docker keeps there.
            say!("  podman login --authfile {auth} {trusting} -u {name} --password-stdin {registry} < {file}");
        }
    }
    say!("  docker pull {lowest}/{REPOSITORY}:{TAG}");
    say!("  podman pull {logins}{trusting} {lowest}/{REPOSITORY}:{TAG}");
    say!("  skopeo inspect {logins}{trusting} docker://{lowest}/{REPOSITORY}:{TAG}");
    say!("  docker tag IMAGE {push}/plant/NAME && docker push {push}/plant/NAME && docker pull {lowest}/plant/NAME");
    say!("  wharf queue list --admin {}", plant.l5.admin_url());
    say!(
        "  wharf client docker --config {}      or containerd, podman",
        plant.l3.settings().display()
    );
    say!("");
    for node in plant.nodes() {
        print_addresses(node);
    }
    say!(
        "  {:<15} {:<40} log {}",
        "cloud",
        plant.cloud.endpoint().url,
        plant.cloud.log().display()
    );
    say!("\nCtrl-C ends it.");
}

fn print_addresses(node: &Node) {
    let admin = format!("status {}/", node.admin_url());
    say!("  {:<15} {admin:<40} log {}", node.name, node.log().display());
}

/// "l3-operations miss, l4-site miss, ...": those that were asked, the lowest first.
fn answered_by(object: &Object) -> String {
    let entries = object
        .outcomes
        .iter()
        .map(|outcome| format!("{} {}", outcome.node, outcome.how));
    entries.collect::<Vec<_>>().join(", ")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn span(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1000.0)
}

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";

/// Colours `text` by an SGR parameter (ECMA-48), on a terminal that has not declined it (no-color.org).
fn paint(colour: &str, text: &str) -> String {
    let wanted = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_have_one_digit_and_a_unit() {
        assert_eq!(size(412), "412 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(40 << 20), "40.0 MiB");
        assert_eq!(span(Duration::from_micros(1250)), "1.2 ms");
    }
}
