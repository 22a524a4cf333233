//! Members of a channel, and what their roles let them do.
