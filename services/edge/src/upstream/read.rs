//! Reads of the room log and of rosters: unary calls with a deadline, one at a time for the same thing.

use super::{CALL, Context, Outcome};
use crate::bridge::ConnKey;
use crate::trace::{READ, TRACER};
use plaza_kit::discovery::BalancedChannel;
use plaza_kit::grpc::within;
use plaza_kit::metrics::GrpcCalls;
use plaza_kit::trace::layer::ClientSpan;
use plaza_kit::trace::{Server, Span, SpanContext, SpanKind};
use plaza_proto::code::Code;
use plaza_proto::fanout::fanout_service_client::FanoutServiceClient;
use plaza_proto::fanout::read_request::From as ReadFrom;
use plaza_proto::fanout::{ReadRequest, ReadResponse, TailsRequest};
use plaza_proto::ids::RoomName;
use plaza_proto::session::ListMembersRequest;
use plaza_proto::session::session_service_client::SessionServiceClient;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Semaphore;

const TAILS: &str = "plaza.fanout.v1.FanoutService/Tails";
const MEMBERS: &str = "plaza.session.v1.SessionService/ListMembers";

/// Calls at once; more wait.
const CALLS: usize = 64;

/// What is read. Equal keys share one call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadKey {
    /// The room.
    pub room: RoomName,
    /// Events before this sequence rather than after it.
    pub before: bool,
    /// The sequence.
    pub seq: u64,
    /// An answer that ends below is no answer.
    pub at_least: u64,
    /// Most events.
    pub limit: u32,
}

/// Reads for the hub.
#[derive(Debug)]
pub struct Reader {
    fanout: BalancedChannel,
    /// What `fanout` leads to, for spans.
    server: Server,
    session: BalancedChannel,
    /// What `session` leads to.
    session_server: Server,
    context: Context,
    calls: Arc<Semaphore>,
    flying: HashSet<ReadKey>,
}

impl Reader {
    /// Reads through these channels, each with the server that it leads to.
    pub fn new(fanout: (BalancedChannel, Server), session: (BalancedChannel, Server), context: Context) -> Self {
        let ((fanout, server), (session, session_server)) = (fanout, session);
        let calls = Arc::new(Semaphore::new(CALLS));
        Self { fanout, server, session, session_server, context, calls, flying: HashSet::new() }
    }

    /// Reads; [`Outcome::Read`] follows, once for all who asked meanwhile. `span` gives the call's span, if
    /// it is sampled.
    pub fn read(&mut self, key: &ReadKey, span: impl FnOnce() -> Option<Span>) {
        if !self.flying.insert(key.clone()) {
            return;
        }
        let (key, client, calls) = (key.clone(), FanoutServiceClient::new(self.fanout.clone()), self.calls.clone());
        let (context, span) = (self.context.clone(), span().map(|span| (span, self.server.clone())));
        self.context.shutdown.spawn("read", async move {
            let _permit = calls.acquire().await;
            let result = read(client, &context.metrics.made, &key, span).await;
            let _gone = context.outcomes.send(Outcome::Read(key, result.map(Arc::new))).await;
        });
    }

    /// The hub has seen the outcome of this key: the next one that asks begins anew.
    pub fn landed(&mut self, key: &ReadKey) {
        self.flying.remove(key);
    }

    /// Asks for the tails of at most 100 rooms; [`Outcome::Tails`] follows, with `tag`.
    pub fn tails(&self, rooms: Vec<String>, tag: u64) {
        let mut client = FanoutServiceClient::new(self.fanout.clone());
        let (calls, context) = (self.calls.clone(), self.context.clone());
        self.context.shutdown.spawn("tails", async move {
            let _permit = calls.acquire().await;
            let call = client.tails(within(CALL, TailsRequest { rooms }));
            let result = context.metrics.made.make(TAILS, CALL, call).await;
            let result = result.map_err(|status| Code::of_status(&status));
            let _gone = context.outcomes.send(Outcome::Tails(tag, result)).await;
        });
    }

    /// Asks who is in a room; [`Outcome::Members`] follows. `wanted_by` is the request's context, if it is sampled.
    pub fn members(&self, to: ConnKey, id: u32, room: RoomName, wanted_by: Option<SpanContext>) {
        let mut client = SessionServiceClient::new(self.session.clone());
        let (calls, context) = (self.calls.clone(), self.context.clone());
        let span = wanted_by.and_then(|context| TRACER.gather(MEMBERS, SpanKind::Client, &[context]));
        let span = span.map(|span| (span, self.session_server.clone()));
        self.context.shutdown.spawn("members", async move {
            let _permit = calls.acquire().await;
            let request =
                ListMembersRequest { room: room.as_str().to_owned(), page_size: 200, page_token: String::new() };
            let mut request = within(CALL, request);
            let span = span.map(|(span, server)| ClientSpan::begin(MEMBERS, &server, span, &mut request));
            let result = context.metrics.made.make_traced(span, MEMBERS, CALL, client.list_members(request)).await;
            let result = result.map_err(|status| Code::of_status(&status));
            let _gone = context.outcomes.send(Outcome::Members { to, id, room, result }).await;
        });
    }
}

async fn read(
    mut client: FanoutServiceClient<BalancedChannel>,
    made: &GrpcCalls,
    key: &ReadKey,
    span: Option<(Span, Server)>,
) -> Result<ReadResponse, Code> {
    let from = if key.before { ReadFrom::BeforeSeq(key.seq) } else { ReadFrom::AfterSeq(key.seq) };
    let request = ReadRequest {
        room: key.room.as_str().to_owned(),
        from: Some(from),
        at_least_seq: key.at_least,
        limit: key.limit,
        max_bytes: 0,
    };
    let mut request = within(CALL, request);
    let span = span.map(|(span, server)| ClientSpan::begin(READ, &server, span, &mut request));
    made.make_traced(span, READ, CALL, client.read(request)).await.map_err(|status| Code::of_status(&status))
}
