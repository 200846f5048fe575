//! The control runtime: one task, the hub, owns every room, membership and session of this edge. It
//! answers the shards' requests and hands them what the feed brings.
//!
//! | module | job |
//! |---|---|
//! | `hub` | the task: its loop, and who is told what |
//! | `conns` | connections as the hub knows them |
//! | `room` | a room: its sequencer, its members by shard and variant, its users |
//! | `requests` | what connections want |
//! | `joins` | memberships that begin |
//! | `replay` | what a member missed, gathered from ring and store |
//! | `recovery` | sessions that continue here, with all their rooms |
//! | `alone` | sessions that continue while the session service is away |
//! | `ticket` | signed names of sessions, for Plaza's own protocol |
//! | `offsets` | which events a Socket.IO client may continue from |
//! | `encode` | events as frames |
//! | `deliver` | what a sequencer asks for; events to shards |
//! | `presence` | who is in which room, told to the session service |
//! | `shed` | how many leave an edge that has more than its share |
//! | `watch` | beats, echo, tail checks, commands |

use crate::bridge::Outlet;
use crate::bridge::requests::{RequestReceiver, RequestSender, channel as queue};
use crate::config::Config;
use crate::feed::EventFeed;
use crate::metrics::HubMetrics;
use crate::upstream::publish::stream::{self, Route};
use crate::upstream::read::Reader;
use crate::upstream::registration::Registration;
use crate::upstream::session::SessionLink;
use crate::upstream::{Context, OUTCOMES};
use plaza_kit::admin::Readiness;
use plaza_kit::shutdown::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

mod alone;
mod conns;
mod deliver;
mod encode;
mod hub;
mod joins;
mod offsets;
mod presence;
mod recovery;
mod replay;
mod requests;
mod room;
mod shed;
mod ticket;
mod watch;

/// Requests that may wait for the hub.
const REQUESTS: usize = 8_192;

/// The way from the shards to the hub. A shard that finds it full answers with
/// [`plaza_proto::code::Code::Busy`], but keeps an [`crate::bridge::Op::Close`] and offers it again: nothing
/// else cleans up after a connection.
pub fn channel() -> (RequestSender, RequestReceiver) {
    queue(REQUESTS)
}

/// What the hub connects.
#[expect(missing_debug_implementations, reason = "the feed and the outlets are trait objects")]
pub struct Ends {
    /// From the shards.
    pub requests: RequestReceiver,
    /// To the shards, by number.
    pub outlets: Vec<Box<dyn Outlet>>,
    /// From the store.
    pub feed: Box<dyn EventFeed>,
    /// To the store.
    pub publish: Route,
}

/// How much the hub has not finished: wishes that it has not read, and publishes without a result. Clones
/// are the same.
#[derive(Clone, Debug, Default)]
pub struct Unfinished(Arc<AtomicUsize>);

impl Unfinished {
    /// The number after the hub's last round.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }
}

/// Starts the hub and its clients of the services. They run until `upstream` begins its shutdown, which
/// is after the drain of the sockets. What is left to do by then, the answer tells.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn start(
    config: &Config,
    advertise_addr: String,
    registration: Registration,
    ends: Ends,
    metrics: HubMetrics,
    readiness: &Readiness,
    upstream: &Shutdown,
) -> Unfinished {
    let unfinished = Unfinished::default();
    let (outcomes, news) = mpsc::channel(OUTCOMES);
    let context = Context { outcomes, shutdown: upstream.clone(), metrics: metrics.upstream.clone() };
    let (session, fanout) = (config.session.channel(upstream), config.fanout.channel(upstream));
    let Ends { requests, outlets, feed, publish } = ends;
    match publish {
        Route::Endpoints => {
            let endpoints = config.fanout.endpoints(upstream);
            upstream.spawn("publish streams", stream::keep(config.fanout.clone(), endpoints, context.clone()));
        }
        Route::Local(service) => {
            upstream.spawn("publishing", stream::here(service, context.clone()));
        }
    }
    let hub = hub::run(hub::HubParts {
        requests,
        outlets,
        feed,
        outcomes: news,
        reader: Reader::new((fanout, config.fanout.server()), (session, config.session.server()), context.clone()),
        fanout: config.fanout.server(),
        session: SessionLink::start(
            config.name.clone(),
            advertise_addr,
            &config.session,
            registration.clone(),
            context,
        ),
        registration,
        recovery_window: config.recovery_window,
        shed_excess: config.shed_excess,
        feed_cache_bytes: config.feed_cache_bytes,
        metrics,
        readiness: readiness.clone(),
        unfinished: unfinished.clone(),
    });
    let end = upstream.token();
    upstream.spawn("hub", async move {
        tokio::select! {
            () = hub => {}
            () = end.cancelled() => {}
        }
    });
    unfinished
}
