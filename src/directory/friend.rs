//! Friends and blocks: what two users are to each other.
