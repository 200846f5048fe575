//! `EdgeLeaseService`: leases of edges, and what they hold.

use super::{Services, check, refused, status};
use crate::store::{Op, Outcome, Refusal, ResumeKey};
use plaza_kit::chaos::{self, Step};
use plaza_proto::code::Code;
use plaza_proto::fanout::Rejected;
use plaza_proto::session as pb;
use plaza_proto::session::edge_lease_service_server::EdgeLeaseService;
use plaza_proto::session::op_result::Result as Body;
use tonic::{Request, Response, Status};

/// Most operations of one call.
const MAX_OPS: usize = 64;
/// Most ids that one heartbeat confirms.
const MAX_DONE: usize = 1_000;

#[tonic::async_trait]
impl EdgeLeaseService for Services {
    async fn register(&self, request: Request<pb::RegisterRequest>) -> Result<Response<pb::RegisterResponse>, Status> {
        self.answer("Register", self.begin_lease(request.into_inner()).await)
    }

    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyResponse>, Status> {
        self.answer("Apply", self.apply_all(request.into_inner()).await)
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        self.answer("Heartbeat", self.renew(request.into_inner()).await)
    }

    async fn find_edge(&self, request: Request<pb::FindEdgeRequest>) -> Result<Response<pb::FindEdgeResponse>, Status> {
        let found = self.store.find_edge(request.into_inner().edge_number).await;
        let answer = found.map(|advertise_addr| pb::FindEdgeResponse { advertise_addr });
        self.answer("FindEdge", answer.map_err(|error| status(&error)))
    }
}

impl Services {
    async fn begin_lease(&self, request: pb::RegisterRequest) -> Result<pb::RegisterResponse, Status> {
        let registration = check::registration(request).map_err(|refusal| refused(&refusal))?;
        let incarnation = registration.incarnation.clone();
        let lease = self.store.register(registration).await.map_err(|error| status(&error))?;
        tracing::info!(incarnation, edge_number = lease.edge_number, "edge registered");
        Ok(pb::RegisterResponse {
            edge_number: lease.edge_number,
            resume_keys: keys(lease.resume_keys),
            lease_ms: self.lease_ms,
            boot: lease.boot,
        })
    }

    async fn apply_all(&self, request: pb::ApplyRequest) -> Result<pb::ApplyResponse, Status> {
        check::incarnation(&request.incarnation).map_err(|refusal| refused(&refusal))?;
        let count = request.ops.len();
        if !(1..=MAX_OPS).contains(&count) {
            return Err(Code::BadRequest.status(format!("{count} operations; 1 to {MAX_OPS} a call are allowed")));
        }
        // What is refused here takes no part; the others keep their order.
        let checked: Vec<Result<Op, Refusal>> = request.ops.into_iter().map(|op| self.op(op)).collect();
        let ops: Vec<Op> = checked.iter().filter_map(|op| op.as_ref().ok().cloned()).collect();
        let presence = ops.iter().any(|op| matches!(op, Op::SetPresence { .. }));
        let releases = ops.iter().any(|op| matches!(op, Op::Close { .. }));
        chaos::step(Step::Writing);
        let applied = self.store.apply(&request.incarnation, ops).await.map_err(|error| status(&error))?;
        chaos::step(Step::Written);
        if releases {
            chaos::step(Step::Released);
        }
        if presence {
            self.news.tell();
        }
        for command in applied.commands {
            self.control.send(command);
        }
        let mut outcomes = applied.outcomes.into_iter();
        let results: Option<Vec<pb::OpResult>> = checked
            .into_iter()
            .map(|op| match op {
                Ok(_) => outcomes.next().map(result),
                Err(refusal) => Some(result(Outcome::Refused(refusal))),
            })
            .collect();
        let results = results.ok_or_else(|| Code::Internal.status("an operation has no result"))?;
        Ok(pb::ApplyResponse { results })
    }

    async fn renew(&self, request: pb::HeartbeatRequest) -> Result<pb::HeartbeatResponse, Status> {
        check::incarnation(&request.incarnation).map_err(|refusal| refused(&refusal))?;
        if request.done_command_ids.len() > MAX_DONE {
            let count = request.done_command_ids.len();
            return Err(Code::BadRequest.status(format!("{count} command ids; at most {MAX_DONE} are allowed")));
        }
        let connections = (!request.draining).then_some(request.connections);
        let pulse = self
            .store
            .heartbeat(&request.incarnation, request.counter, connections, request.done_command_ids)
            .await
            .map_err(|error| status(&error))?;
        chaos::step(Step::Renewed);
        Ok(pb::HeartbeatResponse {
            commands: pulse.commands,
            mean_connections: pulse.mean_connections,
            counted_edges: pulse.counted_edges,
            counter: pulse.counter,
            boot: pulse.boot,
            resume_keys: keys(pulse.resume_keys),
        })
    }
}

fn keys(keys: Vec<ResumeKey>) -> Vec<pb::ResumeKey> {
    keys.into_iter().map(|key| pb::ResumeKey { generation: key.generation, key: key.key.to_vec() }).collect()
}

fn result(outcome: Outcome) -> pb::OpResult {
    let (result, positions) = match outcome {
        Outcome::Session(session) => (Body::Session(session), Vec::new()),
        Outcome::Recovered(session, positions) => (Body::Session(session), positions),
        Outcome::Done => (Body::Done(pb::Done {}), Vec::new()),
        Outcome::Refused(refusal) => {
            let code = refusal.code.as_str().to_owned();
            (Body::Rejected(Rejected { code, message: refusal.message }), Vec::new())
        }
    };
    let positions = positions.into_iter().map(|(room, position)| pb::RoomPosition { room, position }).collect();
    pb::OpResult { result: Some(result), positions }
}
