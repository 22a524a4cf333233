//! What a run showed, for people and for programs.

use std::fmt;

use serde::Serialize;
use xpush::client::Via;

use super::load::{Outcome, Plan};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    via: String,
    connections: usize,
    connects_per_second: f64,
    published: u64,
    refused: u64,
    expected: u64,
    received: u64,
    lost: u64,
    duplicates: u64,
    out_of_order: u64,
    deliveries_per_second: f64,
    latency_ms: Latency,
    /// Of the server's process, where it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerUsage>,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct ServerUsage {
    cpu_us_per_delivery: Option<f64>,
    cpu_us_per_connect: f64,
    resident_kib_per_connection: f64,
    resident_kib: u64,
}

impl Report {
    pub(super) fn new(workload: &'static str, via: Via, plan: &Plan, outcome: &Outcome) -> Self {
        let Outcome { connecting, published, refused, took, tally, before, connected, after } = outcome;
        let expected = published * (plan.subscribers / plan.channels) as u64;
        let received = tally.received - tally.duplicates;
        let latency = |quantile| tally.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        let per = |amount: f64, count: u64| if count == 0 { 0.0 } else { amount / count as f64 };
        let server = before.zip(*connected).zip(*after).map(|((before, connected), after)| {
            let cpu = (after.cpu - connected.cpu).as_secs_f64() * 1e6;
            let grown = connected.resident_kib.saturating_sub(before.resident_kib);
            ServerUsage {
                cpu_us_per_delivery: (received > 0).then(|| per(cpu, received)),
                cpu_us_per_connect: per(
                    (connected.cpu - before.cpu).as_secs_f64() * 1e6,
                    plan.subscribers as u64,
                ),
                resident_kib_per_connection: per(grown as f64, plan.subscribers as u64),
                resident_kib: after.resident_kib,
            }
        });
        Self {
            workload,
            via: via.to_string(),
            connections: plan.subscribers,
            connects_per_second: plan.subscribers as f64 / connecting.as_secs_f64(),
            published: *published,
            refused: *refused,
            expected,
            received,
            lost: expected.saturating_sub(received),
            duplicates: tally.duplicates,
            out_of_order: tally.out_of_order,
            deliveries_per_second: if took.is_zero() { 0.0 } else { received as f64 / took.as_secs_f64() },
            latency_ms: Latency {
                p50: latency(0.5),
                p90: latency(0.9),
                p99: latency(0.99),
                p999: latency(0.999),
                max: tally.latency_us.max() as f64 / 1000.0,
            },
            server,
        }
    }

    /// Nothing was lost or doubled.
    pub(super) fn is_whole(&self) -> bool {
        self.lost == 0 && self.duplicates == 0 && self.refused == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} over {}: {} connections", self.workload, self.via, self.connections)?;
        writeln!(f, "  connects         {:.0}/s, subscribed", self.connects_per_second)?;
        if self.published > 0 {
            let Latency { p50, p90, p99, p999, max } = self.latency_ms;
            writeln!(f, "  published        {} ({} refused)", self.published, self.refused)?;
            writeln!(
                f,
                "  deliveries       {} of {}: {:.0}/s",
                self.received, self.expected, self.deliveries_per_second
            )?;
            writeln!(f, "  lost             {}", self.lost)?;
            writeln!(f, "  duplicates       {}", self.duplicates)?;
            writeln!(f, "  out of order     {}", self.out_of_order)?;
            writeln!(
                f,
                "  latency ms       p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}"
            )?;
        }
        if let Some(server) = &self.server {
            if let Some(cpu) = server.cpu_us_per_delivery {
                writeln!(f, "  server CPU       {cpu:.2} µs a delivery")?;
            }
            writeln!(f, "  server CPU       {:.0} µs a connect", server.cpu_us_per_connect)?;
            writeln!(f, "  server memory    {:.1} KiB a connection", server.resident_kib_per_connection)?;
            write!(f, "                   {} KiB in all", server.resident_kib)?;
        }
        Ok(())
    }
}
