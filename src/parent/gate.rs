//! The gate that every request to a parent passes, with the class of what it is for.
//!
//! Nothing is held back yet. What is counted here is what limits and windows will act on.

use prometheus::IntGauge;

use super::metrics::Series;

/// What a request is for; the first goes before the others.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// A client waits for it.
    Interactive,
    /// A push that is owed to the parent.
    WriteBack,
    /// Fetching before anyone asks.
    Synchronisation,
}

impl Class {
    /// All of them, the first first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::WriteBack, Self::Synchronisation];

    /// As in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::WriteBack => "write_back",
            Self::Synchronisation => "synchronisation",
        }
    }
}

/// One upstream's gate.
#[derive(Debug)]
pub(super) struct Gate {
    /// In the order of [`Class::ALL`].
    inside: [IntGauge; 3],
}

impl Gate {
    pub(super) fn new(series: &Series) -> Self {
        Self {
            inside: Class::ALL.map(|class| series.inside(class)),
        }
    }

    /// Waits until a request of this class may be sent. The pass is held until the answer's body
    /// has been read.
    pub(super) async fn pass(&self, class: Class) -> Pass {
        let inside = self.inside[class as usize].clone();
        inside.inc();
        Pass { inside }
    }
}

/// The right to one request; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    inside: IntGauge,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.inside.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metrics;
    use super::*;

    #[tokio::test]
    async fn a_pass_is_counted_by_class_until_it_is_dropped() {
        let registry = prometheus::Registry::new();
        let series = Metrics::new(&registry).of("quay.io");
        let gate = Gate::new(&series);

        let pass = gate.pass(Class::Synchronisation).await;
        assert_eq!(series.inside(Class::Synchronisation).get(), 1);
        assert_eq!(series.inside(Class::Interactive).get(), 0);

        drop(pass);
        assert_eq!(series.inside(Class::Synchronisation).get(), 0);
    }
}
