//! Shutdown: one token to tell everyone, one tracker to wait for everyone.
//!
//! ```text
//! serve ──begin (signal)──> drain: tracked tasks end ──all ended, or deadline──> last tasks end ──> exit
//! ```
//! Tasks of [`spawn`](Shutdown::spawn) hear [`cancelled`](Shutdown::cancelled) and finish their
//! work. Tasks of [`spawn_last`](Shutdown::spawn_last), such as the admin endpoints, serve through
//! the drain and end when it has ended.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// How long the last tasks may take once the drain has ended.
const LAST_TASKS_GRACE: Duration = Duration::from_millis(500);

/// The handle that every part of a process shares. Clones are the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: CancellationToken,
    drained: CancellationToken,
    tracked: TaskTracker,
    last: TaskTracker,
    /// How many tracked tasks of each name run, for the log line at a missed deadline.
    names: Mutex<BTreeMap<&'static str, usize>>,
}

impl Shutdown {
    /// A shutdown that only [`begin`](Self::begin) begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown that SIGTERM or SIGINT begins; a second signal ends the process at once with
    /// code 130.
    ///
    /// # Errors
    /// The system refuses signal handlers.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let mut signals = Signals::new()?;
        let begun = shutdown.clone();
        shutdown.spawn_last("signals", async move {
            let name = signals.next().await;
            tracing::info!(signal = name, "draining; a second signal ends at once");
            begun.begin();
            tokio::select! {
                _ = signals.next() => std::process::exit(130),
                () = begun.drained().cancelled_owned() => {}
            }
        });
        Ok(shutdown)
    }

    /// Tells everyone to finish. Safe to call more than once.
    pub fn begin(&self) {
        self.0.begun.cancel();
    }

    /// Waits until the shutdown begins. Cancel safe.
    pub async fn cancelled(&self) {
        self.0.begun.cancelled().await;
    }

    /// Whether the shutdown has begun.
    pub fn is_begun(&self) -> bool {
        self.0.begun.is_cancelled()
    }

    /// The token that is cancelled when the shutdown begins.
    pub fn token(&self) -> CancellationToken {
        self.0.begun.clone()
    }

    /// The token that is cancelled when every tracked task has ended, or the deadline of
    /// [`wait`](Self::wait) has passed.
    pub fn drained(&self) -> CancellationToken {
        self.0.drained.clone()
    }

    /// Runs a task that [`wait`](Self::wait) waits for. The name says what runs, for logs.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let running = Running::new(Arc::clone(&self.0), name);
        let span = tracing::debug_span!("task", name).or_current();
        let task = async move {
            let _running = running;
            future.await
        };
        self.0.tracked.spawn(task.instrument(span))
    }

    /// Runs a task that serves through the drain: it should end when [`drained`](Self::drained) is
    /// cancelled, and is dropped with the runtime when it does not.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn_last<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let span = tracing::debug_span!("task", name).or_current();
        self.0.last.spawn(future.instrument(span))
    }

    /// Waits until every tracked task has ended, for at most `deadline`; true when all have. Does
    /// not begin the shutdown: call it after [`cancelled`](Self::cancelled).
    pub async fn wait(&self, deadline: Duration) -> bool {
        self.0.tracked.close();
        let ended = tokio::time::timeout(deadline, self.0.tracked.wait()).await.is_ok();
        if !ended {
            let names: Vec<_> = self.0.lock_names().iter().map(|(name, count)| format!("{name}={count}")).collect();
            tracing::warn!(tasks = names.join(" "), ?deadline, "tasks still run at the deadline of the drain");
        }
        self.0.drained.cancel();
        self.0.last.close();
        // What does not end by itself is dropped with the runtime.
        let _ = tokio::time::timeout(LAST_TASKS_GRACE, self.0.last.wait()).await;
        ended
    }
}

impl Inner {
    fn lock_names(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a task by name for as long as it lives.
struct Running {
    inner: Arc<Inner>,
    name: &'static str,
}

impl Running {
    fn new(inner: Arc<Inner>, name: &'static str) -> Self {
        *inner.lock_names().entry(name).or_default() += 1;
        Self { inner, name }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut names = self.inner.lock_names();
        if let Some(count) = names.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(self.name);
            }
        }
    }
}

/// The signals that end a process.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    #[allow(clippy::unnecessary_wraps, reason = "one signature on every platform")]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) -> &'static str {
        // Without a handler the platform's own Ctrl-C stays in force.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wait_ends_when_every_tracked_task_has_ended() {
        let shutdown = Shutdown::new();
        let told = shutdown.clone();
        shutdown.spawn("worker", async move { told.cancelled().await });
        shutdown.begin();
        assert!(shutdown.is_begun());
        assert!(shutdown.wait(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn wait_gives_up_at_the_deadline_and_says_so() {
        let shutdown = Shutdown::new();
        shutdown.spawn("stubborn", std::future::pending::<()>());
        shutdown.begin();
        assert!(!shutdown.wait(Duration::from_millis(20)).await);
        assert_eq!(shutdown.0.lock_names().get("stubborn"), Some(&1));
    }

    #[tokio::test]
    async fn last_tasks_outlive_the_drain() {
        let shutdown = Shutdown::new();
        let (drain, drained) = (shutdown.clone(), shutdown.drained());
        let last = shutdown.spawn_last("admin", async move { drained.cancelled_owned().await });
        shutdown.spawn("worker", async move { drain.cancelled().await });
        assert!(!last.is_finished());
        shutdown.begin();
        assert!(shutdown.wait(Duration::from_secs(5)).await);
        last.await.unwrap();
    }
}
