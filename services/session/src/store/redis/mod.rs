//! The store of many replicas: Redis, and one script for each call.
//!
//! A script is atomic, knows Redis' own time, and is safe to repeat. Keys are spelt in
//! `lua/keys.lua`, what scripts share is in `lua/common.lua`. Nothing of the client leaves this folder.

mod link;
mod reply;
mod script;
mod target;

use super::{
    Applied, COMMANDS_PER_HEARTBEAT, Filter, ForEdge, Lease, Name, Op, Opening, Outbox, Page, Pulse, Reaped, RecoverBy,
    Registration, SessionStore, StoreError, StoreOptions, Totals,
};
use crate::metrics::SessionMetrics;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use link::Link;
use plaza_kit::admin::Readiness;
use plaza_kit::trace::Server;
use plaza_proto::ids::RoomName;
use plaza_proto::session::{Member, Session};
use reply::{Fields, answer};
use script::Script;
use sha2::{Digest, Sha256};
use std::time::Duration;
use target::Target;

/// Declared as the key of each script, so that a cluster finds the slot of all keys.
const TAG: &str = "{plaza}";

/// Sessions and presences that one step of the reaper clears at most: a few milliseconds of Redis.
const REAP_STEP: usize = 200;

/// Numbers that one registration may try.
const NUMBERS: usize = 8;

/// A URL that we cannot use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

/// Everything in Redis.
#[derive(Debug)]
pub struct RedisStore {
    link: Link,
    options: StoreOptions,
}

impl RedisStore {
    /// A store on the server, the master or the cluster that a URL names. Connects with the first call.
    ///
    /// # Errors
    /// [`BadUrl`] says what kind of URL is taken.
    pub fn new(
        url: &str,
        options: StoreOptions,
        metrics: SessionMetrics,
        readiness: Readiness,
    ) -> Result<Self, BadUrl> {
        let target = Target::parse(url).map_err(BadUrl)?;
        let server = Server::of_urls(url, 6_379);
        Ok(Self { link: Link::new(target, server, options.name_grace, metrics, readiness), options })
    }

    async fn call(&self, script: &'static Script, args: Args) -> Result<Fields, StoreError> {
        self.call_of("", script, args).await
    }

    async fn call_of(&self, incarnation: &str, script: &'static Script, args: Args) -> Result<Fields, StoreError> {
        answer(self.link.call(script, &args.0).await?, incarnation)
    }
}

/// Whether a URL can be used. The message never repeats the URL: it may hold a password.
///
/// # Errors
/// A sentence that says what is taken.
pub fn check_url(url: &str) -> Result<(), String> {
    Target::parse(url).map(|_| ())
}

/// Arguments of a script.
#[derive(Debug, Default)]
struct Args(Vec<Vec<u8>>);

impl Args {
    fn of<const N: usize>(texts: [&str; N]) -> Self {
        Self(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
    }

    fn add(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.push(bytes.as_ref().to_vec());
        self
    }

    fn number(self, number: impl TryInto<u64>) -> Self {
        let number = number.try_into().unwrap_or(u64::MAX);
        self.add(number.to_string())
    }

    fn millis(self, duration: Duration) -> Self {
        self.number(duration.as_millis())
    }

    /// A name's three forms; the two that are part of keys as hashes.
    fn name(self, name: Option<&Name>) -> Self {
        let Some(name) = name else { return self.add("").add("").add("") };
        self.add(&name.display).add(hash(&name.canonical)).add(name.unique.as_deref().map(hash).unwrap_or_default())
    }

    fn op(self, op: Op) -> Self {
        match op {
            Op::Open(Opening { session_id, user_id, protocol, pid, name }) => self
                .add("open")
                .add(session_id)
                .add(user_id)
                .add(protocol)
                .add(pid.unwrap_or_default())
                .name(name.as_ref()),
            Op::Recover { by: RecoverBy::Pid(pid), user_id } => self.add("recover").add(pid).add("").add(user_id),
            Op::Recover { by: RecoverBy::Session(id), user_id } => self.add("recover").add("").add(id).add(user_id),
            Op::Join { session_id, room, position } => {
                self.add("join").add(session_id).add(room.as_str()).add(position)
            }
            Op::Leave { session_id, room } => self.add("leave").add(session_id).add(room.as_str()),
            Op::Rename { session_id, name } => self.add("rename").add(session_id).name(Some(&name)),
            Op::Close { by, generation, recoverable_ms } => {
                let (pid, session_id) = match by {
                    RecoverBy::Pid(pid) => (pid, String::new()),
                    RecoverBy::Session(id) => (String::new(), id),
                };
                self.add("close").add(session_id).number(generation).number(recoverable_ms).add(pid)
            }
            Op::SetPresence { room, user_id, username: Some(username) } => {
                self.add("present").add(room.as_str()).add(user_id).add(username)
            }
            Op::SetPresence { room, user_id, username: None } => self.add("absent").add(room.as_str()).add(user_id),
        }
    }
}

/// 128 bits of a name's hash, 22 characters: what a user typed is no part of a key.
fn hash(text: &str) -> String {
    B64.encode(&Sha256::digest(text.as_bytes())[..16])
}

#[tonic::async_trait]
impl SessionStore for RedisStore {
    async fn register(&self, registration: Registration) -> Result<Lease, StoreError> {
        let mut args = Args::of([&registration.incarnation, &registration.advertise_addr, &registration.replaces])
            .number(registration.edge_number)
            .add(crate::random::boot())
            .millis(self.options.lease)
            .millis(self.options.name_grace)
            .millis(self.options.key_rotation)
            .add(crate::random::key());
        for _ in 0..NUMBERS {
            args = args.number(crate::random::edge_number());
        }
        args = args.add("keys");
        for key in &registration.resume_keys {
            args = args.number(key.generation).add(key.key);
        }
        let mut fields = self.call_of(&registration.incarnation, &script::REGISTER, args).await?;
        let edge_number = u32::try_from(fields.number()?).map_err(|_| StoreError::Broken("edge number".to_owned()))?;
        let boot = fields.text()?;
        Ok(Lease { edge_number, boot, resume_keys: reply::resume_keys(fields.list()?)? })
    }

    async fn apply(&self, incarnation: &str, ops: Vec<Op>) -> Result<Applied, StoreError> {
        let args = ops.into_iter().fold(Args::of([incarnation]), Args::op);
        let mut fields = self.call_of(incarnation, &script::APPLY, args).await?;
        Ok(Applied { outcomes: reply::outcomes(fields.list()?)?, commands: reply::for_edges(fields.list()?)? })
    }

    async fn heartbeat(
        &self,
        incarnation: &str,
        counter: u64,
        connections: Option<u32>,
        done: Vec<String>,
    ) -> Result<Pulse, StoreError> {
        let mut args = Args::of([incarnation])
            .number(counter)
            .add(connections.map(|count| count.to_string()).unwrap_or_default())
            .millis(self.options.lease)
            .millis(self.options.key_rotation)
            .add(crate::random::key())
            .number(COMMANDS_PER_HEARTBEAT);
        // A command's id ends with its number; ids of an earlier boot name nothing that is kept.
        for number in done.iter().filter_map(|id| id.rsplit_once('-')?.1.parse::<u64>().ok()) {
            args = args.number(number);
        }
        let mut fields = self.call_of(incarnation, &script::HEARTBEAT, args).await?;
        let counter = fields.number()?;
        let mean_connections = u32::try_from(fields.number()?).unwrap_or(u32::MAX);
        let counted_edges = u32::try_from(fields.number()?).unwrap_or(u32::MAX);
        let boot = fields.text()?;
        let resume_keys = reply::resume_keys(fields.list()?)?;
        let commands = reply::commands(&boot, fields.list()?)?;
        Ok(Pulse { commands, mean_connections, counted_edges, counter, boot, resume_keys })
    }

    async fn find_edge(&self, edge_number: u32) -> Result<String, StoreError> {
        self.call(&script::FIND_EDGE, Args::default().number(edge_number)).await?.text()
    }

    async fn get(&self, session_id: &str) -> Result<Session, StoreError> {
        reply::session(self.call(&script::GET, Args::of([session_id])).await?.list()?)
    }

    async fn list(&self, filter: Filter, after: &str, limit: usize) -> Result<Page<Session>, StoreError> {
        let canonical = if filter.canonical.is_empty() { String::new() } else { hash(&filter.canonical) };
        let args = Args::of([&canonical, &filter.edge, after]).number(limit);
        let mut fields = self.call(&script::LIST, args).await?;
        let items = reply::sessions(fields.list()?)?;
        Ok(Page { items, next: Some(fields.text()?).filter(|next| !next.is_empty()) })
    }

    async fn members(&self, room: &RoomName, after: &str, limit: usize) -> Result<(Page<Member>, u32), StoreError> {
        let mut fields = self.call(&script::MEMBERS, Args::of([room.as_str(), after]).number(limit)).await?;
        let count = u32::try_from(fields.number()?).unwrap_or(u32::MAX);
        let items = reply::members(fields.list()?)?;
        Ok((Page { items, next: Some(fields.text()?).filter(|next| !next.is_empty()) }, count))
    }

    async fn count(&self, room: &RoomName) -> Result<u32, StoreError> {
        let mut fields = self.call(&script::MEMBERS, Args::of([room.as_str(), "", "0"])).await?;
        Ok(u32::try_from(fields.number()?).unwrap_or(u32::MAX))
    }

    async fn set_username(&self, session_id: &str, name: Name) -> Result<(Session, Option<ForEdge>), StoreError> {
        let args = Args::of([session_id]).name(Some(&name));
        let mut fields = self.call(&script::SET_USERNAME, args).await?;
        Ok((reply::session(fields.list()?)?, reply::for_edge(fields.value()?)?))
    }

    async fn close(&self, session_id: &str, reason: &str) -> Result<Option<ForEdge>, StoreError> {
        reply::for_edge(self.call(&script::CLOSE, Args::of([session_id, reason])).await?.value()?)
    }

    async fn outbox(&self, replica: &str, limit: usize, hold: Duration) -> Result<Outbox, StoreError> {
        let mut fields = self.call(&script::OUTBOX, Args::of([replica]).number(limit).millis(hold)).await?;
        let boot = fields.text()?;
        let cut = fields.number()?;
        Ok(Outbox { boot, cut, entries: reply::outbox_entries(fields.list()?)? })
    }

    async fn confirm(&self, ids: Vec<String>) -> Result<(), StoreError> {
        self.call(&script::CONFIRM, ids.into_iter().fold(Args::default(), Args::add)).await.map(|_| ())
    }

    async fn reap(&self) -> Result<Reaped, StoreError> {
        let args = Args::default().millis(self.options.recovery_window).number(REAP_STEP);
        let mut fields = self.call(&script::REAP, args).await?;
        Ok(Reaped {
            edges: fields.number()?,
            sessions: fields.number()?,
            presences: fields.number()?,
            more: fields.number()? > 0,
        })
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let mut fields = self.call(&script::TOTALS, Args::default()).await?;
        Ok(Totals { sessions: fields.number()?, leases: fields.number()?, outbox: fields.number()? })
    }
}
