//! A message that waits for its log gets to its subscribers, whatever its publisher does meanwhile.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::{sync::Semaphore, time::timeout};
use xpush::{
    log::{Capacity, Extent, Log, LogError, Memory, Page, Pending, Query},
    publication::Draft,
    webhook::Dial,
};
use xpush_protocol::{
    AppId, ChannelName, ClientFrame, Codec, Connect, EventName, Json, MessageId, Publish, ServerFrame,
    Subscribe,
};
use xpush_transports::{Connection as _, Lane, Outgoing, Reader as _, Writer as _};

use super::{
    harness::{PATIENCE, TestNode, channel, draft},
    outage::Held,
};

/// A log that takes as long as it is let.
struct Slow {
    inner: Arc<Memory>,
    go: Arc<Semaphore>,
}

impl Log for Slow {
    fn append<'a>(
        &'a self,
        channel: &'a ChannelName,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Pending, LogError>> {
        let (inner, go, channel) = (Arc::clone(&self.inner), Arc::clone(&self.go), channel.clone());
        let pending: Pending = Box::pin(async move {
            go.acquire().await.unwrap().forget();
            inner.append(&channel, draft).await?.await
        });
        Box::pin(async { Ok(pending) })
    }

    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>> {
        self.inner.read(channel, query)
    }

    fn redact<'a>(&'a self, channel: &'a ChannelName, offset: u64) -> BoxFuture<'a, Result<bool, LogError>> {
        self.inner.redact(channel, offset)
    }

    fn extent<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        self.inner.extent(channel)
    }
}

/// A node on such a log, and what lets the log go on.
fn slow() -> (TestNode, Arc<Semaphore>) {
    let inner = Arc::new(Memory::new([].into(), Capacity { channels: 10, bytes: 1 << 20 }));
    let go = Arc::new(Semaphore::new(0));
    (TestNode::on(Arc::new(Slow { inner, go: Arc::clone(&go) })), go)
}

#[tokio::test]
async fn a_publisher_that_waits_for_a_webhook_holds_up_nothing_that_it_published() {
    let (node, go) = slow();
    let webhook = serde_json::json!({
        "id": "door", "url": "https://hooks.example/", "events": ["before.subscribe"], "timeout_ms": 30_000,
        "secret": "a-secret-of-the-tests",
    });
    let policy = serde_json::json!({ "webhooks": [webhook] });
    let directory = &node.node.directory;
    directory.update_app(&AppId::default(), None, None, policy.as_object().cloned()).await.unwrap();
    node.node.webhooks.load(directory).await.unwrap();
    let held = Held::new();
    node.node.webhooks.dial_by(Arc::clone(&held) as Arc<dyn Dial>);
    let mut listener = node.client().await;
    held.go.add_permits(1);
    listener.subscribe("room:a").await;
    timeout(PATIENCE, held.called.acquire()).await.expect("a call in time").unwrap().forget();

    let (_, mut reader, mut writer) = node.dial().await.split();
    let text = |frame: ClientFrame| Outgoing { bytes: Codec::Json.encode(&frame), lane: Lane::Control };
    let name = || channel("room:a");
    let publish = Publish {
        id: 2,
        channel: name(),
        message_id: None,
        event: EventName::default(),
        data: Some(Json::from_value(&1).unwrap()),
        binary: None,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    };
    let subscribe = Subscribe { id: 3, channel: name(), cursor: None, last: None };
    let mut commands = vec![
        text(ClientFrame::Connect(Connect { id: 1, ..Connect::default() })),
        text(ClientFrame::Publish(publish)),
        text(ClientFrame::Subscribe(subscribe)),
    ];
    writer.write(&mut commands).await.unwrap();
    let mut next = async || {
        let frame = timeout(PATIENCE, reader.read()).await.expect("an answer in time").unwrap();
        Codec::Json.decode::<ServerFrame>(&frame).unwrap()
    };
    assert!(matches!(next().await, ServerFrame::Connected(_)));
    timeout(PATIENCE, held.called.acquire()).await.expect("a call in time").unwrap().forget();
    go.add_permits(1);
    assert_eq!(listener.publication().await, (1, "1".to_owned()));
    assert!(matches!(next().await, ServerFrame::Published(published) if published.id == 2));
    held.go.add_permits(1);
    assert!(matches!(next().await, ServerFrame::Subscribed(subscribed) if subscribed.id == 3));
}

#[tokio::test]
async fn a_message_whose_publisher_is_gone_reaches_its_subscribers() {
    let (node, go) = slow();
    let mut listener = node.client().await;
    listener.subscribe("room:a").await;
    let publishing = node.node.publish(&channel("room:a"), draft(MessageId::random())).await.unwrap();
    drop(publishing);
    go.add_permits(1);
    let (offset, _) = timeout(PATIENCE, listener.publication()).await.unwrap();
    assert_eq!(offset, 1);
}
