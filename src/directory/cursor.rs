//! How far a member has received and read.
