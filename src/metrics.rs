//! What the operator's Prometheus reads. Every number is counted where it happens; none is derived here.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use xpush_protocol::TransportKind;

use crate::node::Health;

/// The counters of one node.
pub struct Metrics {
    registry: Registry,
    connections: Family<Wire, Gauge>,
    connected: Family<Wire, Counter>,
    publications: Counter,
    routed: Counter,
    append_failures: Counter,
    append_seconds: Histogram,
    deliveries: Counter,
    lags: Counter,
    gaps: Counter,
    inboxes_missed: Counter,
    backends: Family<Backend, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Wire {
    wire: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Backend {
    backend: &'static str,
}

/// One connection, as long as it lives.
pub struct Counted(Arc<Metrics>, TransportKind);

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("xpush");
        let connections = Family::default();
        registry.register("connections", "Connections that are open", connections.clone());
        let connected = Family::default();
        registry.register("connected", "Connections that were accepted", connected.clone());
        let publications = Counter::default();
        registry.register("publications", "Publications that the log took", publications.clone());
        let routed = Counter::default();
        registry.register("routed", "Publications that another node appended for this one", routed.clone());
        let append_failures = Counter::default();
        registry.register(
            "append_failures",
            "Publications that the log could not take",
            append_failures.clone(),
        );
        // 25 microseconds (memory) to 13 seconds (a disk in trouble).
        let append_seconds = Histogram::new(exponential_buckets(25e-6, 2.0, 20));
        let help = "From a publication's arrival until the log has it";
        registry.register_with_unit("append", help, Unit::Seconds, append_seconds.clone());
        let deliveries = Counter::default();
        registry.register("deliveries", "Publications queued for a subscriber's wire", deliveries.clone());
        let lags = Counter::default();
        registry.register("lags", "Times that a subscription fell behind its channel", lags.clone());
        let gaps = Counter::default();
        registry.register(
            "gaps",
            "Times that a subscriber was told that publications are lost",
            gaps.clone(),
        );
        let inboxes_missed = Counter::default();
        registry.register(
            "inboxes_missed",
            "Messages whose members' inboxes were not told, for want of room",
            inboxes_missed.clone(),
        );
        let backends = Family::default();
        let help = "Whether a backend (log, broker, membership) answered when it was asked last: 1 or 0";
        registry.register("backend_up", help, backends.clone());
        Self {
            registry,
            connections,
            connected,
            publications,
            routed,
            append_failures,
            append_seconds,
            deliveries,
            lags,
            gaps,
            inboxes_missed,
            backends,
        }
    }
}

impl Metrics {
    /// Counts a connection for as long as what this gives lives.
    #[must_use]
    pub fn connected(self: &Arc<Self>, kind: TransportKind) -> Counted {
        let wire = Wire { wire: kind.as_str() };
        self.connected.get_or_create(&wire).inc();
        self.connections.get_or_create(&wire).inc();
        Counted(Arc::clone(self), kind)
    }

    pub fn appended(&self, took: Duration) {
        self.publications.inc();
        self.append_seconds.observe(took.as_secs_f64());
    }

    /// Another node appended it: that one counts it among the publications.
    pub fn routed(&self) {
        self.routed.inc();
    }

    /// Notes what the backends said.
    pub fn backends(&self, health: &Health) {
        let Health { log, broker, membership } = health;
        for (backend, checked) in [("log", log), ("broker", broker), ("membership", membership)] {
            self.backends.get_or_create(&Backend { backend }).set(i64::from(checked.is_ok()));
        }
    }

    pub fn append_failed(&self) {
        self.append_failures.inc();
    }

    pub fn delivered(&self, publications: u64) {
        self.deliveries.inc_by(publications);
    }

    pub fn inbox_missed(&self) {
        self.inboxes_missed.inc();
    }

    pub fn lagged(&self) {
        self.lags.inc();
    }

    pub fn gap(&self) {
        self.gaps.inc();
    }

    /// The text that Prometheus reads (OpenMetrics 1.0).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.get_or_create(&Wire { wire: self.1.as_str() }).dec();
    }
}
