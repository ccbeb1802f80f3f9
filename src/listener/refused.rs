use prometheus::{IntCounter, IntCounterVec};

/// Counts what the limits of the registry port refuse. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Refused {
    counters: [IntCounter; Limit::ALL.len()],
}

/// The closed set of the label `limit`, as far as the registry port goes: the settings that are named like this.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// A head too large.
    HeadSize,
    /// Too many fields.
    HeadFields,
    /// A head that did not come in time.
    HeaderTimeout,
    /// A handshake that did not end in time.
    HandshakeTimeout,
    /// A client that takes too little.
    MinRate,
    /// Connections that had to wait.
    Connections,
    /// Connections of one address.
    PerAddress,
    /// Streams of HTTP/2 beyond the requests in work.
    Streams,
    /// A body that nobody asked for and that is too large, or too slow, to be read.
    Body,
}

impl Limit {
    const ALL: [Self; 9] = [
        Self::HeadSize,
        Self::HeadFields,
        Self::HeaderTimeout,
        Self::HandshakeTimeout,
        Self::MinRate,
        Self::Connections,
        Self::PerAddress,
        Self::Streams,
        Self::Body,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::HeadSize => "head_size",
            Self::HeadFields => "head_fields",
            Self::HeaderTimeout => "header_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::MinRate => "min_rate",
            Self::Connections => "connections",
            Self::PerAddress => "connections_per_address",
            Self::Streams => "http2_streams",
            Self::Body => "request_body",
        }
    }
}

impl Refused {
    /// `refused` has the one label `limit`.
    pub fn new(refused: &IntCounterVec) -> Self {
        let counter = |limit: Limit| refused.with_label_values(&[limit.as_str()]);
        Self {
            counters: Limit::ALL.map(counter),
        }
    }

    pub(super) fn count(&self, limit: Limit) {
        // The counters stand in the order of the variants.
        self.counters[limit as usize].inc();
    }
}
