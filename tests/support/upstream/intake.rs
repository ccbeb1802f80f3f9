//! A request from its head to its answer: where its body goes while it comes, and what the script does to it.

use std::sync::Arc;

use super::Shared;
use super::fault::{Cut, Fault};
use super::ledger::Seen;
use super::registry::Reply;
use super::writing::Sink;

/// One request under way. Dropped before it is carried out, its body broke off.
pub struct Intake {
    shared: Arc<Shared>,
    seen: Seen,
    pub fault: Fault,
    sink: Sink,
    refusal: Option<Reply>,
}

impl Intake {
    pub fn of(shared: &Arc<Shared>, seen: &Seen) -> Self {
        let (mut refusal, fault) = shared.judge(seen);
        let mut sink = Sink::Nowhere;
        if refusal.is_none() {
            match shared.registry.lock().admit(seen) {
                Ok(found) => sink = found,
                Err(reply) => refusal = Some(reply),
            }
        }
        Self {
            shared: Arc::clone(shared),
            seen: seen.clone(),
            fault,
            sink,
            refusal,
        }
    }

    /// Whether it is answered before its body is read.
    pub fn is_hasty(&self) -> bool {
        self.fault.unread && self.refusal.is_some()
    }

    /// Waits while the script has it that nothing is read.
    pub async fn may_read(&self) {
        if let Some((at, gate)) = &self.fault.pause
            && *at <= self.seen.received_bytes()
        {
            gate.passed().await;
        }
    }

    /// Takes a piece of the body, or as much of it as comes before the connection is to end.
    pub async fn take(&mut self, mut piece: &[u8]) -> Result<(), Cut> {
        while !piece.is_empty() {
            self.may_read().await;
            let (count, cut) = self.fault.arriving(self.seen.received_bytes(), piece.len());
            self.put(&piece[..count]);
            piece = &piece[count..];
            if let Some(cut) = cut {
                return Err(cut);
            }
        }
        Ok(())
    }

    fn put(&mut self, piece: &[u8]) {
        self.seen.add_received(piece.len());
        match &mut self.sink {
            Sink::Nowhere => {}
            Sink::Memory(bytes) => bytes.extend_from_slice(piece),
            Sink::Upload { id, .. } => self.shared.registry.lock().uploads.append(id, piece),
        }
    }

    /// The answer, after what was asked for was done.
    pub fn carried_out(&mut self) -> Reply {
        let body = match std::mem::replace(&mut self.sink, Sink::Nowhere) {
            Sink::Memory(bytes) => bytes,
            Sink::Nowhere | Sink::Upload { .. } => Vec::new(),
        };
        let reply = match self.refusal.take() {
            Some(refusal) => refusal,
            None => self.shared.carry_out(&self.seen, &self.fault, body.into()),
        };
        super::spoiled(reply, &self.fault)
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        if let Sink::Upload { id, size } = &self.sink {
            let mut registry = self.shared.registry.lock();
            let broken = registry.manners.broken;
            registry.uploads.broke(id, *size, broken);
        }
    }
}
