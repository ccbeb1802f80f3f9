use std::io;

use crate::fetch::Error;

/// Why a body was broken off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The content failed on its way here: the client must not take it for complete.
    #[error("the content failed on its way")]
    Content(#[from] Error),
    /// The content ended before its end.
    #[error("the content ended too soon")]
    Short,
    /// The client went.
    #[error("the client went")]
    Client,
    /// The client took less than a connection is worth.
    #[error("the client took too little for too long")]
    Slow,
    /// The disk.
    #[error("reading stored content")]
    Disk(#[from] io::Error),
}
