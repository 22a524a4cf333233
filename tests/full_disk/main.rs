//! A disk that fills up costs nothing that was acknowledged, and what is kept on it goes on when there is room again.
//!
//! A test runs itself once more in a mount namespace of its own, where it may mount a small disk. That goes when the
//! process does, however it ends.
#![cfg(all(feature = "embedded", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod directory;
mod log;

use std::{path::PathBuf, process::Command, time::Duration};

/// Set in the process that has a disk of its own.
const DISK: &str = "XPUSH_FULL_DISK";

/// What is freed later.
const BALLAST_BYTES: usize = 16 * 1024 * 1024;

const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that no compression makes fewer.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mix = |x: u64| (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (0..).map(move |i| (mix(mix(i + (seed << 32))) >> 56) as u8)
}

fn on_a_disk_of<F: Future<Output = ()>>(size: &str, test: &str, body: impl FnOnce(PathBuf) -> F) {
    if let Ok(disk) = std::env::var(DISK) {
        tokio::runtime::Runtime::new().unwrap().block_on(body(disk.into()));
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@""#;
    let status = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh", size])
        .args([disk.path(), &std::env::current_exe().unwrap()])
        .args(["--exact", test, "--nocapture"])
        .env(DISK, disk.path())
        .status()
        .unwrap();
    assert!(status.success());
}
