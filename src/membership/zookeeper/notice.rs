//! What goes on being wrong is said once, not at every retry.

use tracing::{info, warn};

/// One thing that may be wrong for a while.
#[derive(Default)]
pub(super) struct Notice {
    said: Option<String>,
}

impl Notice {
    /// Says it, unless it was the last thing said.
    pub(super) fn wrong(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            warn!("{text}");
            self.said = Some(text);
        }
    }

    /// Says that it is over, if it was said that it is wrong.
    pub(super) fn right(&mut self, text: &str) {
        if self.said.take().is_some() {
            info!("{text}");
        }
    }
}
