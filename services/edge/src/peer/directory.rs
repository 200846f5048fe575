//! Where the other edges are: the session service knows, and what it said is kept for a while.

use crate::upstream::CALL;
use plaza_kit::discovery::BalancedChannel;
use plaza_kit::grpc::within;
use plaza_kit::metrics::GrpcCalls;
use plaza_proto::code::Code;
use plaza_proto::session::FindEdgeRequest;
use plaza_proto::session::edge_lease_service_client::EdgeLeaseServiceClient;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The call that asks.
const FIND: &str = "plaza.session.v1.EdgeLeaseService/FindEdge";
/// How long an address is used before it is asked for again.
const FOUND: Duration = Duration::from_secs(30);
/// How long an edge that is gone is not asked for again.
const GONE: Duration = Duration::from_secs(2);
/// Addresses kept.
const EDGES: usize = 1_024;
/// Numbers kept that name no edge; anybody can make them up.
const NAMELESS: usize = 4_096;
/// Questions at once.
const QUESTIONS: usize = 32;

/// Numbers to addresses.
#[derive(Debug)]
pub(super) struct Directory {
    client: EdgeLeaseServiceClient<BalancedChannel>,
    made: GrpcCalls,
    questions: Semaphore,
    table: Mutex<Table>,
}

impl Directory {
    /// An empty one, that asks through this channel.
    pub(super) fn new(channel: BalancedChannel, made: GrpcCalls) -> Self {
        let client = EdgeLeaseServiceClient::new(channel);
        Self { client, made, questions: Semaphore::new(QUESTIONS), table: Mutex::default() }
    }

    /// `host:port` of an edge's peer listener; `None`: there is no such edge. While the session service
    /// cannot be reached, what it said before still counts.
    pub(super) async fn find(&self, number: u32) -> Option<Arc<str>> {
        if let Some(known) = self.table(|table| table.fresh(number, Instant::now())) {
            return known;
        }
        let _turn = self.questions.acquire().await.ok()?;
        // Whoever was first has the answer for all.
        if let Some(known) = self.table(|table| table.fresh(number, Instant::now())) {
            return known;
        }
        let mut client = self.client.clone();
        let call = client.find_edge(within(CALL, FindEdgeRequest { edge_number: number }));
        let found = match self.made.make(FIND, CALL, call).await {
            Ok(answer) => Some(answer.advertise_addr.into()),
            Err(status) if Code::of_status(&status) == Code::NotFound => None,
            Err(_) => self.table(|table| table.last(number)),
        };
        self.table(|table| table.put(number, found.clone(), Instant::now()));
        found
    }

    /// Nobody answers there: it is asked for again.
    pub(super) fn forget(&self, number: u32) {
        self.table(|table| table.found.remove(&number));
    }

    fn table<T>(&self, run: impl FnOnce(&mut Table) -> T) -> T {
        run(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The answers. Those that found somebody cannot be pushed out by those that did not.
#[derive(Debug, Default)]
struct Table {
    found: HashMap<u32, (Arc<str>, Instant)>,
    gone: HashMap<u32, Instant>,
}

impl Table {
    /// An answer that is still good.
    fn fresh(&self, number: u32, now: Instant) -> Option<Option<Arc<str>>> {
        if self.gone.get(&number).is_some_and(|at| now.saturating_duration_since(*at) < GONE) {
            return Some(None);
        }
        let (addr, at) = self.found.get(&number)?;
        (now.saturating_duration_since(*at) < FOUND).then(|| Some(addr.clone()))
    }

    /// The last address, however old.
    fn last(&self, number: u32) -> Option<Arc<str>> {
        self.found.get(&number).map(|(addr, _)| addr.clone())
    }

    fn put(&mut self, number: u32, found: Option<Arc<str>>, now: Instant) {
        match found {
            Some(addr) => {
                self.gone.remove(&number);
                if self.found.len() >= EDGES {
                    self.found.retain(|_, (_, at)| now.saturating_duration_since(*at) < FOUND);
                }
                if self.found.len() < EDGES {
                    self.found.insert(number, (addr, now));
                }
            }
            None => {
                self.found.remove(&number);
                if self.gone.len() >= NAMELESS {
                    self.gone.retain(|_, at| now.saturating_duration_since(*at) < GONE);
                }
                if self.gone.len() < NAMELESS {
                    self.gone.insert(number, now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_good_for_a_while_and_the_last_address_is_kept() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert_eq!(table.fresh(1, now), None);
        table.put(1, Some("a:1".into()), now);
        table.put(2, None, now);
        assert_eq!(table.fresh(1, now), Some(Some("a:1".into())));
        assert_eq!(table.fresh(2, now), Some(None));
        assert_eq!(table.fresh(2, now + GONE), None);
        assert_eq!(table.fresh(1, now + FOUND), None);
        assert_eq!(table.last(1), Some("a:1".into()));
        table.put(1, None, now + FOUND);
        assert_eq!((table.fresh(1, now + FOUND), table.last(1)), (Some(None), None));
    }

    #[test]
    fn invented_numbers_neither_grow_the_table_nor_push_edges_out() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.put(1, Some("a:1".into()), now);
        for number in 10..10_000 {
            table.put(number, None, now);
        }
        assert_eq!(table.gone.len(), NAMELESS);
        assert_eq!(table.fresh(1, now), Some(Some("a:1".into())));
        table.put(10_000, None, now + GONE);
        assert_eq!(table.gone.len(), 1, "room is made of what is old");
    }
}
