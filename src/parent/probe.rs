//! Probing an upstream that is not asked: by itself at growing intervals, and at once for who waits for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::breaker::Sign;
use super::gate::{Class, Prober};
use super::shared::Shared;
use crate::units::Clock;

/// Between two probes, however many wait for one.
const GAP: Duration = Duration::from_millis(250);

/// Lets someone probe, if that is needed and nobody does. It ends with the last who could ask.
pub(super) fn watch(shared: &Arc<Shared>) {
    if let Some(prober) = shared.gate.wants_probing() {
        tokio::spawn(probe(Arc::downgrade(shared), prober, shared.clock.clone()));
    }
}

async fn probe(shared: Weak<Shared>, mut prober: Prober, clock: Clock) {
    let gate = Arc::clone(&prober.gate);
    let mut gap = Duration::ZERO;
    while let Some(due) = prober.next() {
        tokio::time::sleep(gap).await;
        let mut turns = gate.hours.subscribe();
        // Outside the window only somebody who waits is a reason.
        let is_open = gate.hours.closed(Class::Synchronisation).is_none();
        tokio::select! {
            () = tokio::time::sleep(due.saturating_duration_since(clock.now())), if is_open => {}
            () = gate.wanted.notified() => {}
            _ = turns.changed() => continue,
        }
        let Some(shared) = shared.upgrade() else { return };
        gate.probed(once(&shared).await);
        gap = GAP;
    }
}

/// `GET /v2/` (end-1), within the time that a connection has.
async fn once(shared: &Shared) -> Sign {
    let limit = shared.connect_timeout;
    match tokio::time::timeout(limit, shared.knock()).await {
        Ok(sign) => sign,
        Err(_) => Sign::Away(shared.timed_out(limit)),
    }
}
