//! The connection: waited for, with every call bounded in time, and a breaker that lets one call
//! probe while the others fail at once.

use super::super::StoreError;
use super::Script;
use crate::TRACER;
use crate::metrics::SessionMetrics;
use plaza_kit::admin::Readiness;
use plaza_kit::trace::SpanKind;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, RedisError, ServerErrorKind, Value};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for one answer on a connection.
const RESPONSE: Duration = Duration::from_millis(500);
/// Longest wait for a connection, and for a call with everything.
const CALL: Duration = Duration::from_secs(1);
/// While Redis is away, one call in this time tries it; the others fail at once.
const PROBE: Duration = Duration::from_millis(250);

/// One server, or a Service that leads to one.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    state: Mutex<State>,
    metrics: SessionMetrics,
    readiness: Readiness,
}

#[derive(Debug)]
struct State {
    manager: Option<ConnectionManager>,
    away: bool,
    /// It has answered once.
    seen: bool,
    next_probe: Instant,
}

impl Link {
    pub(super) fn new(client: Client, metrics: SessionMetrics, readiness: Readiness) -> Self {
        let state = Mutex::new(State { manager: None, away: false, seen: false, next_probe: Instant::now() });
        readiness.expect("redis");
        Self { client, state, metrics, readiness }
    }

    /// Runs a script.
    pub(super) async fn call(&self, script: &'static Script, args: &[Vec<u8>]) -> Result<Value, StoreError> {
        let mut manager = self.admit().inspect_err(|_| self.metrics.store_call(script.name, "skipped", None))?;
        let begin = Instant::now();
        let mut span = TRACER.here(script.name, SpanKind::Client);
        if let Some(span) = &mut span {
            span.set("db.system.name", "redis");
            span.set("db.operation.name", "EVALSHA");
            span.set("db.stored_procedure.name", script.name);
        }
        let mut invocation = script.code.prepare_invoke();
        invocation.key(super::TAG);
        for arg in args {
            invocation.arg(arg.as_slice());
        }
        let answer = match tokio::time::timeout(CALL, invocation.invoke_async::<Value>(&mut manager)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {CALL:?}"))),
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

    fn admit(&self) -> Result<ConnectionManager, StoreError> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.away {
            if now < state.next_probe {
                return Err(StoreError::Unavailable("it was away a moment ago".to_owned()));
            }
            state.next_probe = now + PROBE;
        }
        if let Some(manager) = &state.manager {
            return Ok(manager.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE))
            .set_connection_timeout(Some(CALL))
            .set_min_delay(Duration::from_millis(100))
            .set_max_delay(Duration::from_secs(1))
            .set_number_of_retries(1);
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        state.manager = Some(manager.clone());
        Ok(manager)
    }

    /// What an error means for the call, and for the connection.
    fn failure(&self, error: &RedisError) -> StoreError {
        let kind = error.kind();
        // A demoted or loading server keeps its connections: only a new one may lead elsewhere.
        if matches!(
            kind,
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading)
        ) {
            self.lock().manager = None;
            return StoreError::Unavailable(error.to_string());
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

    fn set_away(&self, error: &str) {
        let changed = {
            let mut state = self.lock();
            state.next_probe = Instant::now() + PROBE;
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
