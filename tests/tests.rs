//! The black-box tests: the real program against a parent that lies, counted at that parent.
//!
//! Each module below is one theme. The modules of `support` are the stage: the parent, the node, the client.

#![allow(
    clippy::disallowed_methods,
    reason = "a test outside the program has no clock but the real one"
)]
#![allow(clippy::unwrap_used, reason = "what a test unwraps is its own claim")]
#![allow(
    unreachable_pub,
    reason = "nothing is reachable from outside a test binary; `pub` says what a file offers to the others"
)]

// The stage.
mod support;

// The stage is what it claims to be: what it counts, sends and breaks.
mod fixture;

// A client pulls: what it is answered, and what the parent is asked for it.
mod pull;
// What an answer looks like, header by header.
mod answers;
// Parts of blobs, here already or still on their way.
mod range;
// The parent sends wrong bytes, too few, too many.
mod integrity;
// The parent breaks off in the middle, or answers oddly there.
mod resume;
// Many clients, one transfer.
mod flights;
// A client pushes: uploads, manifests, deletes.
mod push;
// What uploads may hold.
mod uploads;
// What was pushed, through kills, restarts and damage.
mod promises;
// What was pushed on its way to the parent.
mod writeback;
// Kills, losses, refusals, a full queue on that way.
mod writeback_faults;
// Parents that are slow, break off, lie, or forget.
mod writeback_transfers;
// What comes before what, and under which tag where both moved it.
mod writeback_order;
// Another mode, another parent.
mod writeback_changes;
// The conformance program of the specification.
mod conformance;
// What was pushed here beside what the parent has.
mod beside;
// What a registry lists.
mod lists;
// Failing disks, kills and races under pushes.
mod mishaps;
// Which registry a name means.
mod naming;
// Who may have what, whoever brought it.
mod permission;
// What is here before anyone asks.
mod sync;
// What is selected, by what it is and by what files name; and what is so no longer.
mod selection;
// Whether the parent lets us have it still.
mod vouching;
// Who asks, and how that is known.
mod identities;
// What each may do, against a model of it.
mod access;
// What one client does, and that no other is kept from anything by it.
mod neighbours;
// Operators, what is put on record, proxies in front.
mod operators;
// Certificates of operators and of clients, commands over TLS, logins over HTTP/2.
mod certificates;
// What changes while the node runs.
mod reload;
// How old a tag may be.
mod freshness;
// How long an answer may take, however slow the parent is.
mod budget;
// Tags, referrers, catalog.
mod discovery;
// What is refused, and how.
mod refusals;
// Where a request ends, and where an answer.
mod framing;
// Requests that hide behind others, behind each early answer; clients that dawdle.
mod smuggling;
// What changes above is known below as it happens.
mod feed;
// How a node stands, and those below.
mod status;
// How much of a line is taken, and by whom first.
mod bandwidth;
// When what nobody waits for crosses the line to the parent.
mod windows;
// What is too much, and that one less is not.
mod limits;
// Slow clients, and odd ones.
mod wire;
// Three nodes in a row.
mod chain;
// TLS and HTTP/2, downwards and upwards.
mod tls;
// The parent fails, is away, wants rest, is slow.
mod faults;
// Credentials upwards, redirects.
mod tokens;
// Logins upwards: OAuth2, helpers, refusals that last, token services elsewhere.
mod logins;
// The way up: names, TLS, certificates, proxies, redirects.
mod ways;
// Disk: budget, eviction, crashes, other people's files.
mod store;
// Killed at each point of a commit and of an eviction.
mod crashes;
// A disk that is full, turns read-only or fails.
mod disk;
// A disk that others fill: what stays free, and who makes way.
mod floor;
// A disk that is read-only, before the start and after it.
mod readonly;
// A disk that is slow.
mod stalls;
// What others do to the files: damage, junk, removal.
mod damage;
// Cuts, kills, power cuts, churn, corruption and crowds, at a size for every change or in full.
mod torture;
// What is wrong with a parent that answers, told to operators and clients.
mod troubles;
// Metrics, health, logs, secrets.
mod outside;
// Docker, containerd, Podman and their like, each in a network of its own.
mod clients;
// The plant that shows and proves all this to a newcomer.
mod demo;
// Start, limits, stop.
mod running;
// The wall clock is not set, or jumps.
mod clock;
// The settings, checked and printed.
mod settings;
// The floors of the house: imports go down.
mod house;
// The document about these tests names what is there.
mod documents;
