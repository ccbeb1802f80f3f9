//! Mistakes in this program that end a piece of work: counted, and said with their place.

use std::panic::{self, PanicHookInfo};

use prometheus::{IntCounter, Registry};

/// Counts every panic of the process from now on, on whichever thread.
///
/// # Errors
///
/// A name that is taken: a mistake in this program.
pub fn count_panics(registry: &Registry) -> prometheus::Result<()> {
    let panics = IntCounter::new(
        "wharf_panics_total",
        "Mistakes in this program that ended a piece of work",
    )?;
    registry.register(Box::new(panics.clone()))?;
    panic::set_hook(Box::new(move |panic| {
        panics.inc();
        say(panic);
    }));
    Ok(())
}

fn say(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = panic.payload_as_str().unwrap_or_default();
    tracing::error!(at, reason, "panicked: a mistake in this program; please report it");
}
