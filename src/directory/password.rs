//! Passwords: hashed with argon2id, a few at a time, so that a flood of logins leaves the messages their CPU.
