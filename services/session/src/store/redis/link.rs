//! The connection: waited for, with every call bounded in time, and a breaker that lets one call
//! probe while the others fail at once.

use super::super::StoreError;
use super::script::{self, By, Script};
use super::target::{Connection, Target};
use crate::TRACER;
use crate::metrics::SessionMetrics;
use plaza_kit::admin::Readiness;
use plaza_kit::trace::{Server, SpanKind};
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for a call with everything.
const CALL: Duration = Duration::from_secs(1);
/// While Redis is away, one call in this time tries it; the others fail at once.
const PROBE: Duration = Duration::from_millis(250);

/// How a script is called, unless the server has to learn it.
const OPERATION: &str = "EVALSHA";

/// The store's Redis, wherever it is just now.
#[derive(Debug)]
pub(super) struct Link {
    target: Target,
    /// What the URL names, for spans.
    server: Option<Server>,
    /// How long claims of names wait for those who held them at a server that is gone.
    name_grace: Duration,
    state: Mutex<State>,
    metrics: SessionMetrics,
    readiness: Readiness,
}

#[derive(Debug)]
struct State {
    connection: Option<Connection>,
    away: bool,
    /// It has answered once.
    seen: bool,
    next_probe: Instant,
    /// Scripts that the server knew.
    known: HashSet<&'static str>,
}

impl Link {
    pub(super) fn new(
        target: Target,
        server: Option<Server>,
        name_grace: Duration,
        metrics: SessionMetrics,
        readiness: Readiness,
    ) -> Self {
        let (next_probe, known) = (Instant::now(), HashSet::new());
        let state = Mutex::new(State { connection: None, away: false, seen: false, next_probe, known });
        readiness.expect("redis");
        Self { target, server, name_grace, state, metrics, readiness }
    }

    /// Runs a script.
    pub(super) async fn call(&self, script: &'static Script, args: &[Vec<u8>]) -> Result<Value, StoreError> {
        self.admit().inspect_err(|_| self.metrics.store_call(script.name, "skipped", None))?;
        let begin = Instant::now();
        let mut span = TRACER.here(OPERATION, SpanKind::Client);
        if let Some(span) = &mut span {
            span.rename(format!("{OPERATION} {}", script.name));
            span.set("db.system.name", "redis");
            span.set("db.namespace", self.target.database().to_string());
            span.set("db.operation.name", OPERATION);
            span.set("db.stored_procedure.name", script.name);
            if let Some(server) = &self.server {
                span.call_to(server);
            }
        }
        let answer = match tokio::time::timeout(CALL, self.run(script, args)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => {
                self.give_up();
                Err(StoreError::Unavailable(format!("no answer within {CALL:?}")))
            }
        };
        let result = match &answer {
            Err(StoreError::Unavailable(why)) => {
                self.set_away(why);
                "unavailable"
            }
            Err(_) => "failed",
            Ok(_) => {
                self.set_here();
                "ok"
            }
        };
        if let Some(span) = &mut span
            && answer.is_err()
        {
            span.fail(result);
        }
        self.metrics.store_call(script.name, result, Some(begin.elapsed()));
        answer
    }

    fn admit(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.away {
            if now < state.next_probe {
                return Err(StoreError::Unavailable("it was away a moment ago".to_owned()));
            }
            state.next_probe = now + PROBE;
        }
        Ok(())
    }

    async fn run(&self, script: &'static Script, args: &[Vec<u8>]) -> Result<Value, RedisError> {
        // Asked before the call: while this one finds the server without the script, another may teach it.
        let (kept, knew) = {
            let state = self.lock();
            (state.connection.clone(), state.known.contains(script.name))
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let made = self.target.connect().await?;
                self.lock().connection.insert(made).clone()
            }
        };
        let answer = match connection.run(script, super::TAG, args, By::Hash).await {
            Err(error) if script::is_unknown(&error) => {
                if knew && self.has_forgotten(script) {
                    let grace = self.name_grace.as_millis().to_string().into_bytes();
                    connection.run(&script::DOUBT, super::TAG, &[grace], By::Text).await?;
                }
                connection.run(script, super::TAG, args, By::Text).await
            }
            answer => answer,
        };
        if answer.is_ok() {
            self.lock().known.insert(script.name);
        }
        answer
    }

    /// A server that knew the script and does not know it now is another one, or was started anew: it may have
    /// lost what was written last. Told once, whichever script shows it.
    fn has_forgotten(&self, script: &Script) -> bool {
        let mut state = self.lock();
        let forgotten = state.known.contains(script.name);
        if forgotten {
            state.known.clear();
        }
        forgotten
    }

    /// What an error means for the call, and for the connection.
    fn failure(&self, error: &RedisError) -> StoreError {
        let kind = error.kind();
        // A demoted or loading server keeps its connections: only a new one may lead elsewhere.
        if matches!(
            kind,
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading)
        ) {
            self.give_up();
            return StoreError::Unavailable(error.to_string());
        }
        if error.is_timeout() {
            self.give_up();
        }
        let refused_for_good = matches!(
            kind,
            ErrorKind::Server(
                ServerErrorKind::ResponseError
                    | ServerErrorKind::NoPerm
                    | ServerErrorKind::NoScript
                    | ServerErrorKind::CrossSlot
            ) | ErrorKind::Parse
                | ErrorKind::UnexpectedReturnType
        );
        if refused_for_good {
            StoreError::Broken(error.to_string())
        } else {
            StoreError::Unavailable(error.to_string())
        }
    }

    /// The next call makes a new connection. One that does not answer may be open on this side alone, and would
    /// stay so for as long as the kernel sends its bytes again.
    fn give_up(&self) {
        self.lock().connection = None;
    }

    fn set_away(&self, error: &str) {
        let changed = {
            let mut state = self.lock();
            state.next_probe = Instant::now() + PROBE;
            // Its server may be one no more.
            state.connection.take_if(|connection| !connection.renews_itself());
            !std::mem::replace(&mut state.away, true)
        };
        if changed {
            tracing::warn!(error, "redis does not answer: waiting for it");
            self.readiness.set_degraded("redis", Some(error.to_owned()));
        }
    }

    fn set_here(&self) {
        let (back, first) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.away), !std::mem::replace(&mut state.seen, true))
        };
        if back || first {
            tracing::info!(again = !first, "redis answers");
            self.readiness.set_degraded("redis", None);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
