//! An app's API keys: several, so that one can be rotated while the other works.
