//! The keys that sign access tokens, shared by all nodes.
