//! Two futures of one task, each polled only when something woke *it*. A `select!` polls all of its branches whatever the
//! task was woken for: each delivery would look at the wire's reading side too, with its timers, locks and wakers, and
//! that is as much work as the delivery.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// A future that is left alone until it is woken.
pub(super) struct Apart<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
    /// Of the task, as the bell has it: it is the same one at nearly every poll.
    task: Waker,
}

/// What a future's wakers ring.
struct Bell {
    rung: AtomicBool,
    task: Mutex<Waker>,
}

impl<F: Future> Apart<F> {
    pub(super) fn new(future: F) -> Self {
        // It has to be polled once, to be woken by anything.
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) });
        let (waker, task) = (Waker::from(Arc::clone(&bell)), Waker::noop().clone());
        Self { future: Box::pin(future), bell, waker, task }
    }
}

impl<F: Future> Future for Apart<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Before the look at the bell: who rings it after the look finds this task.
        if !self.task.will_wake(cx.waker()) {
            self.task.clone_from(cx.waker());
            *self.bell.task.lock().unwrap_or_else(PoisonError::into_inner) = cx.waker().clone();
        }
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Self { future, waker, .. } = &mut *self;
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever rang before has woken the task, which has not looked since.
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicU32, Ordering},
        task::Poll,
    };

    use tokio::sync::Notify;

    use super::Apart;

    #[tokio::test]
    async fn a_future_is_polled_when_it_is_woken_and_not_when_its_neighbour_is() {
        let (polls, hers, his) = (AtomicU32::new(0), Notify::new(), Notify::new());
        let mut counted = Apart::new(async {
            let mut woken = std::pin::pin!(hers.notified());
            poll_fn(|cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                woken.as_mut().poll(cx)
            })
            .await;
        });
        let mut other = Apart::new(async {
            for _ in 0..10 {
                his.notified().await;
            }
        });
        for _ in 0..10 {
            his.notify_one();
            tokio::select! {
                () = &mut counted => panic!("nobody woke it"),
                () = &mut other => {}
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        hers.notify_one();
        counted.await;
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_is_ready_at_once_is_ready_at_once() {
        assert!(matches!(futures_util::poll!(&mut Apart::new(async { 1 })), Poll::Ready(1)));
    }
}
