//! What is said of broken files, word for word.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use tempfile::TempDir;

use super::{CANARY, check_in, wharf, without_place, written};

/// What is wrong, the file, and all that is told of it.
const BROKEN: [(&str, &str, &str); 42] = [
    (
        "names of operators, and nobody who vouches for them",
        r#"
[admin]
certificates = ["ops.plant.example"]
"#,
        r#"
wharf.toml:2:16: admin.certificates: stands without client_ca_file, which says whose are good; write both
  |
2 | certificates = ["ops.plant.example"]
  |                ^^^^^^^^^^^^^^^^^^^^^
"#,
    ),
    (
        "a section that is not closed",
        r#"
mode = "mirror"
[listen
address = "0.0.0.0:5000"
"#,
        r#"
wharf.toml:2:8: not TOML: unclosed table, expected `]`; a section begins with [name] or [[upstream]], alone on its line
  |
2 | [listen
  |        ^
"#,
    ),
    (
        "a text that is not closed",
        r#"
[node]
name = "l4
"#,
        r#"
wharf.toml:2:11: not TOML: invalid basic string, expected `"`; a setting is key = "value", with the value in double quotes, alone on its line
  |
2 | name = "l4
  |           ^
"#,
    ),
    (
        "a text without quotes, twice",
        r#"
[storage]
path = /srv
capacity = 5GiB
"#,
        r#"
wharf.toml:2:8: not TOML: string values must be quoted, expected literal string; put the value into double quotes
  |
2 | path = /srv
  |        ^^^^
wharf.toml:3:12: not TOML: string values must be quoted, expected literal string; put the value into double quotes
  |
3 | capacity = 5GiB
  |            ^^^^
"#,
    ),
    (
        "a password of two lines",
        r#"
[parent]
url = "https://l5.example"
username = "l4"
password_file = "lines"
"#,
        r#"
wharf.toml:4:17: parent.password_file: lines has more than one line; write the password alone into it
"#,
    ),
    (
        "two identities of one name",
        r#"
[[identity]]
name = "line-1"
certificates = ["CN=line-1"]
[[identity]]
name = "line-1"
certificates = ["CN=line-2"]
[[permission]]
identities = ["*"]
repositories = ["*"]
actions = ["pull"]
"#,
        r#"
wharf.toml:5:8: identity[1].name: line-1 is the name of identity[0] too; write another one, or leave one of the two out
  |
5 | name = "line-1"
  |        ^^^^^^^^
"#,
    ),
    (
        "a certificate of two identities, in other letters",
        r#"
[[identity]]
name = "line-1"
certificates = ["CN=line-1", "Line-1.plant.example"]
[[identity]]
name = "line-2"
certificates = ["line-1.plant.example"]
[[permission]]
identities = ["*"]
repositories = ["*"]
actions = ["pull"]
"#,
        r#"
wharf.toml:6:16: identity[1].certificates: "line-1.plant.example" is said to be line-1 already, and a certificate is one identity's; leave it out there or here
  |
6 | certificates = ["line-1.plant.example"]
  |                ^^^^^^^^^^^^^^^^^^^^^^^^
"#,
    ),
    (
        "what is read last, beside what is not even there",
        r#"
[parent]
url = "https://l5.example"
ca_file = "nowhere.pem"
[log]
requests = "/nowhere/requests.log"
"#,
        r#"
wharf.toml:3:11: parent.ca_file: nowhere.pem cannot be read: No such file or directory (os error 2); name a PEM file of certificate authorities
  |
3 | ca_file = "nowhere.pem"
  |           ^^^^^^^^^^^^^
wharf.toml:5:12: log.requests: the folder /nowhere is not there; make it, or write "stdout" or "off"
  |
5 | requests = "/nowhere/requests.log"
  |            ^^^^^^^^^^^^^^^^^^^^^^^
"#,
    ),
    (
        "a key that stands twice",
        r#"
[parent]
url = "https://a.example"
url = "https://b.example"
"#,
        r#"
wharf.toml:3:1: not TOML: url stands here for the second time; leave one of the two off
  |
3 | url = "https://b.example"
  | ^^^
"#,
    ),
    (
        "a key that nobody knows",
        r#"
[storage]
capcity = "5GiB"
"#,
        r#"
wharf.toml:2:1: storage.capcity: unknown; did you mean capacity?
  |
2 | capcity = "5GiB"
  | ^^^^^^^
"#,
    ),
    (
        "a key that is like no other",
        r#"
[node]
shelf = "5GiB"
"#,
        r#"
wharf.toml:2:1: node.shelf: unknown; node has name
  |
2 | shelf = "5GiB"
  | ^^^^^
"#,
    ),
    (
        "a key of another section",
        r#"
[parent]
url = "https://l5.example"
hosts = ["l4.example"]
"#,
        r#"
wharf.toml:3:9: parent.hosts: belongs to an [[upstream]], not to [parent]; move it there or leave it off
  |
3 | hosts = ["l4.example"]
  |         ^^^^^^^^^^^^^^
"#,
    ),
    (
        "a section that nobody knows",
        r#"
[listener]
address = "0.0.0.0:5000"
"#,
        r#"
wharf.toml:1:2: listener: unknown; did you mean listen?
  |
1 | [listener]
  |  ^^^^^^^^
"#,
    ),
    (
        "a section with one bracket too few",
        r#"
[upstream]
name = "quay.io"
"#,
        r#"
wharf.toml:1:1: upstream: is one of any number; write [[upstream]], with two brackets, before each
  |
1 | [upstream]
  | ^^^^^^^^^^
"#,
    ),
    (
        "a section with one bracket too many",
        r#"
[[listen]]
address = "0.0.0.0:5000"
"#,
        r#"
wharf.toml:1:1: listen: is a list, and a section is wanted; write [listen] on a line of its own
  |
1 | [[listen]]
  | ^^^^^^^^^^
"#,
    ),
    (
        "a number where a span is meant",
        r#"
[freshness]
tag_ttl = 60
"#,
        r#"
wharf.toml:2:11: freshness.tag_ttl: 60 has no unit; write it with ms, s, m, h or d, in quotes: "60s"
  |
2 | tag_ttl = 60
  |           ^^
"#,
    ),
    (
        "a span without, and with a wrong unit",
        r#"
[freshness]
tag_ttl = "60"
absent_ttl = "1min"
"#,
        r#"
wharf.toml:2:11: freshness.tag_ttl: 60 has no unit; write it with ms, s, m, h or d, in quotes: "60s"
  |
2 | tag_ttl = "60"
  |           ^^^^
wharf.toml:3:14: freshness.absent_ttl: not a span of time; write a whole number with ms, s, m, h or d, like 60s, or as ISO 8601 has it, like PT4H
  |
3 | absent_ttl = "1min"
  |              ^^^^^^
"#,
    ),
    (
        "a size that is none",
        r#"
[storage]
capacity = "5 lemons"
"#,
        r#"
wharf.toml:2:12: storage.capacity: not a size; write a whole number of bytes or one with KiB, MiB, GiB, TiB, KB, MB, GB or TB, like 20GiB
  |
2 | capacity = "5 lemons"
  |            ^^^^^^^^^^
"#,
    ),
    (
        "a size that is too small",
        r#"
[storage]
capacity = "1MiB"
"#,
        r#"
wharf.toml:2:12: storage.capacity: is 1MiB, less than the index itself may need; write 64MiB or more
  |
2 | capacity = "1MiB"
  |            ^^^^^^
"#,
    ),
    (
        "values of the wrong type",
        r#"
[listen]
connections = "many"
idle_timeout = true
[parent]
url = "https://l5.example"
allow = "library/*"
deny = ["a", 5]
"#,
        r#"
wharf.toml:2:15: listen.connections: is text, and a whole number is wanted; write 0 or more, without quotes
  |
2 | connections = "many"
  |               ^^^^^^
wharf.toml:3:16: listen.idle_timeout: is true, and text is wanted; write one value in quotes
  |
3 | idle_timeout = true
  |                ^^^^
wharf.toml:6:9: parent.allow: is text, and a list is wanted; write ["library/*"], in brackets
  |
6 | allow = "library/*"
  |         ^^^^^^^^^^^
wharf.toml:7:14: parent.deny[1]: is the number 5, and text is wanted; write "5", in quotes
  |
7 | deny = ["a", 5]
  |              ^
"#,
    ),
    (
        "a word that is none of the known ones",
        r#"
[log]
format = "jso"
level = "warning"
"#,
        r#"
wharf.toml:2:10: log.format: "jso" is not known; did you mean "json"?
  |
2 | format = "jso"
  |          ^^^^^
wharf.toml:3:9: log.level: "warning" is not known; did you mean "warn"?
  |
3 | level = "warning"
  |         ^^^^^^^^^
"#,
    ),
    (
        "a node with a space",
        r#"
[node]
name = "level 4"
"#,
        r#"
wharf.toml:2:8: node.name: is "level 4"; write up to 63 letters, digits, dots, dashes or underscores, like l4-site
  |
2 | name = "level 4"
  |        ^^^^^^^^^
"#,
    ),
    (
        "an address with a name in it",
        r#"
[listen]
address = "gateway:5000"
[admin]
address = ":5001"
"#,
        r#"
wharf.toml:2:11: listen.address: "gateway:5000" is not an IP address and a port; write 0.0.0.0:5000 for all networks, [::]:5000 with IPv6, or 127.0.0.1:5000 for this machine alone
  |
2 | address = "gateway:5000"
  |           ^^^^^^^^^^^^^^
wharf.toml:4:11: admin.address: ":5001" has no address; write 127.0.0.1:5001 for this machine alone, or 0.0.0.0:5001 for all networks
  |
4 | address = ":5001"
  |           ^^^^^^^
"#,
    ),
    (
        "a URL without its scheme",
        r#"
[parent]
url = "l5.example:5000"
"#,
        r#"
wharf.toml:2:7: parent.url: is not a URL; write https://HOST[:PORT], or http:// without encryption
  |
2 | url = "l5.example:5000"
  |       ^^^^^^^^^^^^^^^^^
"#,
    ),
    (
        "a URL with a password in it",
        r#"
[parent]
url = "https://l4:canary-5ecre7@l5.example"
"#,
        r#"
wharf.toml:2:7: parent.url: names a user; write username and password_file instead
"#,
    ),
    (
        "a password in the file",
        r#"
[parent]
url = "https://l5.example"
username = "l4"
password = "canary-5ecre7"
"#,
        r#"
wharf.toml:4:12: parent.password: stands in the file, where everyone reads it; put it into a file of its own and name that in password_file, or name a variable in password_env
"#,
    ),
    (
        "a user without a password",
        r#"
[parent]
url = "https://l5.example"
username = "l4"
"#,
        r#"
wharf.toml:3:12: parent.username: stands without a password; add password_file or password_env
  |
3 | username = "l4"
  |            ^^^^
"#,
    ),
    (
        "a password file that others may read",
        r#"
[parent]
url = "https://l5.example"
username = "l4"
password_file = "open"
"#,
        r#"
wharf.toml:4:17: parent.password_file: open may be read by others than its owner (mode 644); run chmod 600 on it; only a secret that a container platform mounts, read-only for all (444), may be open to others
"#,
    ),
    (
        "files that are not there",
        r#"
[listen]
cert_file = "no.pem"
key_file = "no.key"
"#,
        r#"
wharf.toml:2:13: listen.cert_file: no.pem holds no usable certificate: I/O error: No such file or directory (os error 2); name a PEM file that this user may read
  |
2 | cert_file = "no.pem"
  |             ^^^^^^^^
"#,
    ),
    (
        "an authority that is none",
        r#"
[parent]
url = "https://l5.example"
ca_file = "open"
"#,
        r#"
wharf.toml:3:11: parent.ca_file: open holds no certificate; it must have one in PEM form; name a PEM file of certificate authorities
  |
3 | ca_file = "open"
  |           ^^^^^^
"#,
    ),
    (
        "a certificate without its key",
        r#"
[listen]
cert_file = "a.pem"
"#,
        r#"
wharf.toml:2:13: listen.cert_file: stands without key_file; write both, or neither for plain HTTP
  |
2 | cert_file = "a.pem"
  |             ^^^^^^^
"#,
    ),
    (
        "a pattern that is none",
        r#"
[parent]
url = "https://l5.example"
allow = ["library/[a"]
"#,
        r#"
wharf.toml:3:9: parent.allow: "library/[a" is not a pattern; write one like library/* or plant/**, and close what is opened by [ or {
  |
3 | allow = ["library/[a"]
  |         ^^^^^^^^^^^^^^
"#,
    ),
    (
        "a parent without URL",
        r#"
[parent]
username = "l4"
"#,
        r#"
wharf.toml:1:2: parent.url: is missing; write for example url = "https://l5.plant.example:5000"
  |
1 | [parent]
  |  ^^^^^^
"#,
    ),
    (
        "upstreams that cannot be told apart",
        r#"
[[upstream]]
name = "quay.io"
aliases = ["q"]
hosts = ["q.example"]
[[upstream]]
name = "q"
hosts = ["Q.example"]
"#,
        r#"
wharf.toml:1:1: warning: upstream[0]: has no url, so it is asked of the parent, and the parent is Docker Hub, which knows no other registry; add its url
  |
1 | [[upstream]]
  | ^^^^^^^^^^^^
wharf.toml:5:1: warning: upstream[1]: has no url, so it is asked of the parent, and the parent is Docker Hub, which knows no other registry; add its url
  |
5 | [[upstream]]
  | ^^^^^^^^^^^^
wharf.toml:6:8: upstream[1].name: "q" is taken already, by upstream[0]; every name, alias and host means one registry: write another
  |
6 | name = "q"
  |        ^^^
wharf.toml:7:10: upstream[1].hosts[0]: "q.example" is taken already, by upstream[0]; every name, alias and host means one registry: write another
  |
7 | hosts = ["Q.example"]
  |          ^^^^^^^^^^^
"#,
    ),
    (
        "two upstreams of one name",
        r#"
[[upstream]]
name = "quay.io"
[[upstream]]
name = "Quay.io:443"
"#,
        r#"
wharf.toml:1:1: warning: upstream[0]: has no url, so it is asked of the parent, and the parent is Docker Hub, which knows no other registry; add its url
  |
1 | [[upstream]]
  | ^^^^^^^^^^^^
wharf.toml:3:1: warning: upstream[1]: has no url, so it is asked of the parent, and the parent is Docker Hub, which knows no other registry; add its url
  |
3 | [[upstream]]
  | ^^^^^^^^^^^^
wharf.toml:4:8: upstream[1].name: "quay.io" is taken already, by upstream[0]; every name, alias and host means one registry: write another
  |
4 | name = "Quay.io:443"
  |        ^^^^^^^^^^^^^
"#,
    ),
    (
        "an upstream with the keys of a URL and none",
        r#"
[[upstream]]
name = "quay.io"
ca_file = "open"
"#,
        r#"
wharf.toml:3:11: upstream[0].ca_file: stands without url; without one the upstream is reached through the parent, whose settings hold: add url or leave off ca_file
  |
3 | ca_file = "open"
  |           ^^^^^^
"#,
    ),
    (
        "one address for two purposes",
        r#"
[listen]
address = "0.0.0.0:5001"
"#,
        r#"
wharf.toml:2:11: listen.address: 0.0.0.0:5001 is listened on twice, here and for admin.address; write another port
  |
2 | address = "0.0.0.0:5001"
  |           ^^^^^^^^^^^^^^
"#,
    ),
    (
        "a parent that is the node itself",
        r#"
[listen]
address = "0.0.0.0:5000"
[parent]
url = "http://localhost:5000"
"#,
        r#"
wharf.toml:4:7: parent.url: is this node itself, which listens on 0.0.0.0:5000 (listen.address); write the registry one layer up
  |
4 | url = "http://localhost:5000"
  |       ^^^^^^^^^^^^^^^^^^^^^^^
"#,
    ),
    (
        "an answer later than clients wait",
        r#"
[freshness]
answer_within = "60s"
"#,
        r#"
wharf.toml:2:17: freshness.answer_within: is above 25s, and containerd gives up at 30s; write 25s or less
  |
2 | answer_within = "60s"
  |                 ^^^^^
"#,
    ),
    (
        "a log where no folder is",
        r#"
[log]
requests = "no/such/log"
"#,
        r#"
wharf.toml:2:12: log.requests: the folder no/such is not there; make it, or write "stdout" or "off"
  |
2 | requests = "no/such/log"
  |            ^^^^^^^^^^^^^
"#,
    ),
    (
        "a store that is a file",
        r#"
[storage]
path = "open"
"#,
        r#"
wharf.toml:2:8: storage.path: open is not a folder; name one, or one that does not exist yet
  |
2 | path = "open"
  |        ^^^^^^
"#,
    ),
    (
        "a fault in each section",
        r#"
mode = "mirorr"
[node]
name = ""
[listen]
adress = "0.0.0.0:5000"
[storage]
capacity = "20G"
[parent]
url = "https://l5.example/v2/"
[[upstream]]
name = "quay.io"
url = "quay.io"
[freshness]
stale_after = "0s"
[log]
level = 3
"#,
        r#"
wharf.toml:1:8: mode: "mirorr" is not known; did you mean "mirror"?
  |
1 | mode = "mirorr"
  |        ^^^^^^^^
wharf.toml:3:8: node.name: is ""; write up to 63 letters, digits, dots, dashes or underscores, like l4-site
  |
3 | name = ""
  |        ^^
wharf.toml:5:1: listen.adress: unknown; did you mean address?
  |
5 | adress = "0.0.0.0:5000"
  | ^^^^^^
wharf.toml:7:12: storage.capacity: not a size; write a whole number of bytes or one with KiB, MiB, GiB, TiB, KB, MB, GB or TB, like 20GiB
  |
7 | capacity = "20G"
  |            ^^^^^
wharf.toml:9:7: parent.url: ends in /v2; leave that off, it is added
  |
9 | url = "https://l5.example/v2/"
  |       ^^^^^^^^^^^^^^^^^^^^^^^^
wharf.toml:12:7: upstream[0].url: is not a URL; write https://HOST[:PORT], or http:// without encryption
   |
12 | url = "quay.io"
   |       ^^^^^^^^^
wharf.toml:14:15: freshness.stale_after: is 0, so no parent could ever answer; write for example 2s
   |
14 | stale_after = "0s"
   |               ^^^^
wharf.toml:16:9: log.level: is the number 3, and text is wanted; write "3", in quotes
   |
16 | level = 3
   |         ^
"#,
    ),
];

#[test]
fn all_that_is_wrong_in_a_file_is_told_with_place_key_reason_and_remedy() {
    let folder = folder();
    std::fs::set_permissions(
        written(folder.path(), "open", "canary-5ecre7\n"),
        PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    std::fs::set_permissions(
        written(folder.path(), "lines", "canary-5ecre7\nanother\n"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();

    for (what, text, expected) in BROKEN {
        written(folder.path(), "wharf.toml", text.trim_start());
        let output = check_in(folder.path()).output().unwrap();

        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(without_place(&told), expected.trim_start_matches('\n'), "{what}");
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert!(output.stdout.is_empty(), "{what}");
        assert!(!told.contains(CANARY), "{what}: {told}");
    }
}

#[test]
fn a_node_with_wrong_settings_ends_with_the_same_words_and_code_as_the_check() {
    let folder = folder();
    written(folder.path(), "wharf.toml", "[storage]\ncapcity = \"5GiB\"\n");

    let output = wharf(folder.path(), &["serve", "--config", "wharf.toml"])
        .output()
        .unwrap();

    let checked = check_in(folder.path()).output().unwrap();
    assert_eq!(output.stderr, checked.stderr);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_a_variable_or_a_flag_said_is_told_by_its_name() {
    let folder = folder();
    written(folder.path(), "wharf.toml", "[storage]\ncapacity = \"1GiB\"\n");
    let cases: [(&[&str], (&str, &str), &str); 7] = [
        (
            &[],
            ("WHARF__STORAGE__CAPACITY", "5 lemons"),
            "WHARF__STORAGE__CAPACITY: storage.capacity: not a size; write a whole number of bytes or one with KiB, MiB, GiB, TiB, KB, MB, GB or TB, like 20GiB\n",
        ),
        (
            &[],
            ("WHARF__STORAGE__CAPCITY", "5GiB"),
            "WHARF__STORAGE__CAPCITY: storage.capcity: unknown; did you mean capacity?\n",
        ),
        (
            &[],
            ("WHARF__STORE__CAPACITY", "5GiB"),
            "WHARF__STORE__CAPACITY: store: unknown; did you mean storage?\n",
        ),
        (
            &[],
            ("WHARF__MODE__X", "5"),
            "WHARF__MODE__X: mode: is a section, and text is wanted; write one value in quotes\n",
        ),
        (
            &[],
            ("WHARF__UPSTREAM__0__URL", "https://quay.io"),
            "WHARF__UPSTREAM__0__URL: upstream: is one of any number; write [[upstream]], with two brackets, before each\n",
        ),
        (
            &["--parent", "l5.example"],
            ("UNRELATED", ""),
            "--parent: parent.url: is not a URL; write https://HOST[:PORT], or http:// without encryption\n",
        ),
        (
            &["--capacity", "7 lemons"],
            ("WHARF__STORAGE__CAPACITY", "5 lemons"),
            "--capacity: storage.capacity: not a size; write a whole number of bytes or one with KiB, MiB, GiB, TiB, KB, MB, GB or TB, like 20GiB\n",
        ),
    ];

    for (flags, (name, value), expected) in cases {
        let mut serve = wharf(folder.path(), &["serve", "--config", "wharf.toml"]);
        let output = serve.args(flags).env(name, value).output().unwrap();

        assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
        assert_eq!(output.status.code(), Some(2), "{expected}");
    }
}

#[test]
fn a_variable_that_looks_like_a_number_may_be_a_text_and_the_other_way_round() {
    let folder = folder();
    written(folder.path(), "wharf.toml", "");

    let mut check = check_in(folder.path());
    check
        .env("WHARF__NODE__NAME", "4")
        .env("WHARF__STORAGE__CAPACITY", "1073741824");
    let output = check.env("WHARF__LISTEN__CONNECTIONS", "9").output().unwrap();

    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in ["name = \"4\"", "capacity = \"1GiB\"", "connections = 9"] {
        assert!(printed.contains(line), "{line} is not in {printed}");
    }
}

#[test]
fn a_variable_that_is_no_text_is_passed_over() {
    let folder = folder();
    written(folder.path(), "wharf.toml", "");

    let mut check = check_in(folder.path());
    let output = check.env("LATIN", OsStr::from_bytes(b"caf\xe9")).output().unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_that_is_no_text_and_one_that_is_not_there_are_named() {
    let folder = folder();
    std::fs::write(folder.path().join("wharf.toml"), b"[node]\nname = \"caf\xe9\"\n").unwrap();
    let latin = check_in(folder.path()).output().unwrap();
    std::fs::remove_file(folder.path().join("wharf.toml")).unwrap();
    let missing = check_in(folder.path()).output().unwrap();

    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told(&latin).starts_with("wharf.toml:2:12: is not UTF-8 from here on; save"),
        "{}",
        told(&latin)
    );
    assert!(
        told(&missing).starts_with("wharf.toml: cannot be read: No such file"),
        "{}",
        told(&missing)
    );
    assert_eq!([latin.status.code(), missing.status.code()], [Some(2), Some(2)]);
}

#[test]
fn localhost_is_an_address() {
    let folder = folder();
    written(folder.path(), "wharf.toml", "[listen]\naddress = \"localhost:5000\"\n");

    let output = check_in(folder.path()).output().unwrap();

    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("address = \"127.0.0.1:5000\""), "{printed}");
}

#[test]
fn a_password_file_that_others_may_read_passes_where_nobody_may_write_it() {
    let folder = folder();
    let file = written(folder.path(), "password", "x");
    let text = "[parent]\nurl = \"https://l5.example\"\nusername = \"l4\"\npassword_file = \"password\"\n";
    written(folder.path(), "wharf.toml", text);

    for (mode, passes) in [
        (0o600, true),
        (0o400, true),
        (0o444, true),
        (0o440, true),
        (0o644, false),
        (0o640, false),
        (0o604, false),
        (0o666, false),
    ] {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let output = check_in(folder.path()).output().unwrap();

        assert_eq!(output.status.success(), passes, "{mode:o}");
    }
}

/// A folder that does not lie in memory: secrets there may be open.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
