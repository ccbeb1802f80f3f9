//! Probing an upstream that is not asked: by itself at growing intervals, and at once for who waits for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::breaker::Sign;
use super::shared::Shared;

/// Between two probes, however many wait for one.
const GAP: Duration = Duration::from_millis(250);

/// Lets someone probe, if that is needed and nobody does. It ends with the last who could ask.
pub(super) fn watch(shared: &Arc<Shared>) {
    if shared.gate.wants_probing() {
        tokio::spawn(probe(Arc::downgrade(shared)));
    }
}

async fn probe(shared: Weak<Shared>) {
    let Some((gate, clock)) = shared
        .upgrade()
        .map(|shared| (shared.gate.clone(), shared.clock.clone()))
    else {
        return;
    };
    let mut gap = Duration::ZERO;
    while let Some(due) = gate.next_probe() {
        tokio::time::sleep(gap).await;
        tokio::select! {
            () = tokio::time::sleep(due.saturating_duration_since(clock.now())) => {}
            () = gate.wanted.notified() => {}
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
