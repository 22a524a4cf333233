//! Groups of users that one of them keeps for itself.
