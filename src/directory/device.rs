//! A user's devices.
