//! Channels that have members: made, changed, gone.
