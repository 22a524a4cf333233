//! Users are told in their inboxes what others did to them by HTTP.

use xpush_protocol::UserId;

use super::Api;
use crate::directory::Notice;

/// Tells a user. What was done is done, whether he can be told or not.
pub(super) async fn notify(api: &Api, user: &UserId, notice: Notice) {
    api.node.notify(user, &notice).await;
}
