//! Logins: a refresh token that is good for one use, and the access tokens that come of it.
