//! The black-box tests: the real program against a parent that lies, counted at that parent.
//!
//! Each module below is one theme. The modules of `support` are the stage: the parent, the node, the client.

#![allow(
    clippy::disallowed_methods,
    reason = "a test outside the program has no clock but the real one"
)]
#![allow(
    unreachable_pub,
    reason = "nothing is reachable from outside a test binary; `pub` says what a file offers to the others"
)]

// The stage.
mod support;

// The stage is what it claims to be: what it counts, sends and breaks.
mod fixture;
