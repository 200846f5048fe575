//! The two gRPC services over a store.

mod check;
mod lease;
mod session;

use crate::control::ControlSender;
use crate::metrics::SessionMetrics;
use crate::outbox::News;
use crate::store::{Name, Refusal, SessionStore, StoreError};
use crate::username::Username;
use plaza_kit::telemetry::LogGate;
use plaza_proto::code::Code;
use plaza_proto::session::edge_lease_service_server::EdgeLeaseServiceServer;
use plaza_proto::session::session_service_server::SessionServiceServer;
use std::sync::Arc;
use tonic::service::Routes;
use tonic::{Response, Status};

/// Full names of the services, for health.
pub const SERVICE_NAMES: &[&str] = &["plaza.session.v1.SessionService", "plaza.session.v1.EdgeLeaseService"];

/// Faults of ours: at most this many lines a second.
static FAULTS: LogGate = LogGate::per_second(5);

/// What both services work on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    /// The store.
    pub store: Arc<dyn SessionStore>,
    /// Tells edges at once what their heartbeats repeat.
    pub control: ControlSender,
    /// Wakes this replica's publisher of presence events.
    pub news: Arc<News>,
    /// Counters.
    pub metrics: SessionMetrics,
    /// Whether a name, and what looks like it, has at most one living holder.
    pub unique_usernames: bool,
    /// Length of a lease in milliseconds.
    pub lease_ms: u32,
}

impl Services {
    /// Both services as routes of one listener.
    pub fn routes(&self) -> Routes {
        Routes::new(SessionServiceServer::new(self.clone())).add_service(EdgeLeaseServiceServer::new(self.clone()))
    }

    /// Counts a call by what became of it, and gives its answer.
    fn answer<T>(&self, method: &'static str, result: Result<T, Status>) -> Result<Response<T>, Status> {
        let code = result.as_ref().err().map_or("ok", |status| Code::of_status(status).as_str());
        self.metrics.call(method, code);
        result.map(Response::new)
    }

    /// Normalises a name and, where names are unique, makes its skeleton.
    fn name(&self, typed: &str) -> Result<Name, Refusal> {
        let bad = |error: crate::username::BadUsername| Refusal::new(Code::BadUsername, error.to_string());
        let username = Username::parse(typed).map_err(bad)?;
        let unique = if self.unique_usernames { Some(username.skeleton().map_err(bad)?) } else { None };
        Ok(Name { display: username.display().to_owned(), canonical: username.canonical().to_owned(), unique })
    }
}

fn status(error: &StoreError) -> Status {
    if let StoreError::Broken(why) = error
        && let Some(suppressed) = FAULTS.pass()
    {
        tracing::error!(why, suppressed, "the session store answered wrongly");
    }
    match error {
        // The cause is ours to log, not the caller's to read.
        StoreError::Broken(_) => Code::Internal.status(Code::Internal.english()),
        StoreError::Unavailable(_) => Code::Unavailable.status("the session store cannot be reached now, try again"),
        StoreError::LeaseLost(_) | StoreError::NotFound(_) | StoreError::Refused(_) => error.code().status(error),
    }
}

fn refused(refusal: &Refusal) -> Status {
    refusal.code.status(&refusal.message)
}
