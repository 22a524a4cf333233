//! Users that are deleted: the directory forgets them, and the log of their inbox with it.

use std::sync::Arc;

use futures_util::future::try_join_all;
use xpush_protocol::{ErrorCode, UserId};

use super::{Node, inbox::inbox_of};
use crate::{
    log::{From, Query},
    session::Refusal,
};

/// Notices that are taken away at once. An inbox keeps a thousand.
const NOTICES_AT_ONCE: usize = 64;
/// Bytes of them that are read at once.
const NOTICES_BYTES: usize = 1 << 20;

impl Node {
    /// Deletes a user and what is kept of it, also what its inbox was told. If it is refused as something that may be
    /// tried again it may be half done, and nobody is this user any more; done again, it is done.
    pub async fn delete_user(self: &Arc<Self>, user: &UserId, expected: Option<u64>) -> Result<(), Refusal> {
        let (node, user) = (Arc::clone(self), user.clone());
        // Once begun it is finished, even if who asked is gone.
        let task = self.publishing.spawn(async move {
            node.directory.take_leave(&user, expected).await?;
            // It is in no channel any more that its inbox would hear of.
            node.empty_inbox(&user).await?;
            Ok(node.directory.bury(&user).await?)
        });
        let lost =
            |error| Refusal::new(ErrorCode::Internal, format!("the deletion was not finished: {error}"));
        task.await.unwrap_or_else(|error| Err(lost(error)))
    }

    /// Takes away what an inbox holds now. Nobody is told: nobody may read it any more.
    async fn empty_inbox(&self, user: &UserId) -> Result<(), Refusal> {
        let inbox = inbox_of(user);
        let log = self.log(self.policy(&inbox)?);
        let top = log.extent(&inbox).await?.top;
        let mut after = 0;
        while after < top {
            let query = Query { from: From::After(after), limit: NOTICES_AT_ONCE, bytes: NOTICES_BYTES };
            let page = log.read(&inbox, query).await?.publications;
            let Some(last) = page.last() else { break };
            after = last.offset;
            let notices = page.iter().filter(|notice| notice.deletes().is_none());
            try_join_all(notices.map(|notice| log.redact(&inbox, notice.offset))).await?;
        }
        Ok(())
    }
}
