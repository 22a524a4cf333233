//! Users: who they are, and what of it others may see.
