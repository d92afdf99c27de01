//! Downloads that are under way: concurrent pulls of one module share one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

use crate::{error::PullError, reference::Digest};

/// From where, and what. Not by digest alone: a slow registry would hold up everybody who wants
/// the same module from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub(crate) repository: String,
    pub(crate) digest: Digest,
}

/// What is under way.
#[derive(Default)]
pub(crate) struct Downloads {
    running: Mutex<HashMap<Source, Weak<Download>>>,
}

#[derive(Debug, Clone)]
enum State {
    Running(u64),
    Done(Result<(), PullError>),
}

/// One download; it ends when nobody waits for it any more.
struct Download {
    state: watch::Receiver<State>,
    task: AbortHandle,
}

impl Drop for Download {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a download tells how far it is.
pub(crate) struct Report(watch::Sender<State>);

impl Report {
    pub(crate) fn received(&self, bytes: u64) {
        self.0.send_replace(State::Running(bytes));
    }
}

impl Downloads {
    /// Waits for a download of `source`, beginning one with `begin` when there is none.
    /// `None` when it was given up.
    pub(crate) async fn join<F>(
        &self,
        source: Source,
        begin: impl FnOnce(Report) -> F,
        progress: impl Fn(u64),
    ) -> Option<Result<(), PullError>>
    where
        F: Future<Output = Result<(), PullError>> + Send + 'static,
    {
        let download = self.find_or_begin(source, begin);
        let mut state = download.state.clone();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Done(result) => return Some(result),
                State::Running(bytes) => progress(bytes),
            }
            state.changed().await.ok()?;
        }
    }

    fn find_or_begin<F>(&self, source: Source, begin: impl FnOnce(Report) -> F) -> Arc<Download>
    where
        F: Future<Output = Result<(), PullError>> + Send + 'static,
    {
        let mut running = self.running();
        running.retain(|_, download| download.strong_count() > 0);
        if let Some(download) = running.get(&source).and_then(Weak::upgrade) {
            // One that is done is of the past: the file may have been removed since.
            if !matches!(*download.state.borrow(), State::Done(_)) {
                return download;
            }
        }
        let (sender, state) = watch::channel(State::Running(0));
        let done = sender.clone();
        let work = begin(Report(sender));
        let task: JoinHandle<()> = tokio::spawn(async move {
            let result = work.await;
            done.send_replace(State::Done(result));
        });
        let download = Arc::new(Download { state, task: task.abort_handle() });
        running.insert(source, Arc::downgrade(&download));
        download
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Source, Weak<Download>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    fn source() -> Source {
        Source { repository: "r.example/a".into(), digest: Digest::of(b"module") }
    }

    #[tokio::test]
    async fn who_comes_later_joins_and_sees_how_far_it_is() {
        let downloads = Arc::new(Downloads::default());
        let begun = Arc::new(AtomicUsize::new(0));
        let (finish, finished) = oneshot::channel::<()>();
        let finished = Arc::new(Mutex::new(Some(finished)));
        let pull = || {
            let (downloads, begun, finished) = (downloads.clone(), begun.clone(), finished.clone());
            async move {
                let seen = AtomicUsize::new(0);
                let result = downloads
                    .join(
                        source(),
                        |report| async move {
                            begun.fetch_add(1, Ordering::Relaxed);
                            report.received(7);
                            let finished = finished.lock().unwrap().take().unwrap();
                            finished.await.unwrap();
                            Ok(())
                        },
                        |bytes| seen.store(bytes as usize, Ordering::Relaxed),
                    )
                    .await;
                (result.unwrap().is_ok(), seen.into_inner())
            }
        };
        let first = tokio::spawn(pull());
        tokio::task::yield_now().await;
        let second = tokio::spawn(pull());
        tokio::task::yield_now().await;
        finish.send(()).unwrap();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), ((true, 7), (true, 7)));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_download_ends_when_the_last_who_waits_leaves() {
        let downloads = Downloads::default();
        let (alive, ended) = oneshot::channel::<()>();
        let mut alive = Some(alive);
        let mut pull = |wait: u64| {
            let alive = alive.take();
            let join = downloads.join(
                source(),
                |_| async move {
                    let _alive = alive;
                    std::future::pending().await
                },
                |_| {},
            );
            timeout(Duration::from_millis(wait), join)
        };
        let (long, short) = (pull(60), pull(10));
        let (long, short) = tokio::join!(long, short);
        assert!(long.is_err() && short.is_err());
        // Dropped with the task, and not before.
        timeout(Duration::from_secs(10), ended).await.unwrap().unwrap_err();
        assert!(downloads.running().values().all(|download| download.strong_count() == 0));
    }
}
