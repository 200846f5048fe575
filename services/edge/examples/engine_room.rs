//! The engine alone, to be measured: one shard whose members get each message that one of them sends.
//!
//! ```text
//! cargo run -p plaza-edge --example engine_room     prints its address, then a line a second under load
//! ws://ADDRESS/?room=NAME                           all that a client sends goes to the members of its room
//! join:NAME                                         also joins another room, answered by "joined"
//! ```
//! The hub is one thread beside the shard: it numbers and encodes, and stores nothing.

#![allow(clippy::print_stdout, reason = "the numbers are the program's output")]

use anyhow::Result;
use axum::extract::Request as HttpRequest;
use bytes::Bytes;
use plaza_edge::accept::{HttpLimits, serve, upgrade};
use plaza_edge::bridge::requests::{self, RequestReceiver};
use plaza_edge::bridge::{ConnKey, Control, Delivery, Identity, Op, Outlet, Reply, RoomId, SessionId, Variant};
use plaza_edge::conn::{Action, Cause, Connection, Incoming, Millis, Packet};
use plaza_edge::engine::{Settings, Shard, ShardHandle, SocketOptions};
use plaza_edge::wire::websocket::{Opcode, frame};
use plaza_proto::code::Locale;
use plaza_proto::event::Event;
use plaza_proto::event::event::Content;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A member: what it sends is published.
struct Member {
    identity: Arc<Identity>,
    room: RoomId,
}

/// The number of a name; good enough where nobody looks for collisions.
fn room(name: &str) -> RoomId {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    RoomId(hasher.finish() as u32)
}

impl Connection for Member {
    fn on_open(&mut self, _key: ConnKey, _now: Millis, out: &mut Vec<Action>) {
        out.push(Action::Enter { room: self.room, variant: Variant::PlazaJson });
    }

    fn on_message(&mut self, message: Incoming<'_>, _now: Millis, out: &mut Vec<Action>) {
        let Incoming::Text(text) = message else { return };
        if let Some(name) = text.strip_prefix("join:") {
            out.push(Action::Enter { room: room(name), variant: Variant::PlazaJson });
            out.push(Action::Send(Packet::Text(Bytes::from_static(b"joined"))));
            return;
        }
        let event = Event { content: Some(Content::Text(text.to_owned())), ..Event::default() };
        let op = Op::Publish { room: self.room, event: Box::new(event), retry: false, trace: None };
        out.push(Action::Request { id: 0, identity: Arc::clone(&self.identity), op });
    }

    fn on_reply(&mut self, _id: u32, _reply: Reply, _now: Millis, _out: &mut Vec<Action>) {}
    fn on_control(&mut self, _control: &Control, _now: Millis, _out: &mut Vec<Action>) {}
    fn on_reset(&mut self, _room: RoomId, _now: Millis, _out: &mut Vec<Action>) {}
    fn on_deadline(&mut self, _now: Millis, _out: &mut Vec<Action>) {}
    fn deadline(&self) -> Option<Millis> {
        None
    }
    fn on_close(&mut self, _cause: Cause, _rooms: Vec<RoomId>, _out: &mut Vec<Action>) {}
}

fn main() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let (requests, received) = requests::channel(16_384);
    let shard = Shard::new(0, Settings::default(), requests)?;
    let handle = shard.handle();
    std::thread::spawn({
        let handle = handle.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        move || runtime.block_on(hub(received, handle))
    });
    std::thread::spawn({
        let handle = handle.clone();
        move || report(&handle)
    });
    let identity = Arc::new(Identity {
        session: SessionId::random(),
        user_id: None,
        variant: Variant::PlazaJson,
        locale: Locale::En,
    });
    let options = SocketOptions { control_frames_per_second: 0, ..SocketOptions::default() };
    let route = axum::routing::any(move |request: HttpRequest| {
        let name = request.uri().query().and_then(|query| query.strip_prefix("room=")).unwrap_or_default();
        let member = Member { identity: Arc::clone(&identity), room: room(name) };
        std::future::ready(upgrade(request, None, &handle, options, Box::new(member)))
    });
    let router = axum::Router::new().route("/", route);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = CancellationToken::new();
    runtime.block_on(async {
        tokio::try_join!(shard.run(stop.clone()), serve(listener, router, HttpLimits::default(), stop))
    })?;
    Ok(())
}

/// Numbers each message, encodes it once, and gives it to the shard.
async fn hub(mut requests: RequestReceiver, shard: ShardHandle) {
    let (mut seq, mut round) = (0, Vec::new());
    while requests.recv_many(&mut round, 256).await > 0 {
        for request in round.drain(..) {
            let Op::Publish { room, event, .. } = request.op else { continue };
            let Some(Content::Text(text)) = event.content else { continue };
            seq += 1;
            let frames = [None, None, None, Some(frame(Opcode::Text, text.as_bytes())), None];
            let delivery =
                Arc::new(Delivery { room, seq, skip: None, frames, received: Instant::now(), age_us: 0, trace: None });
            while shard.try_deliver(Arc::clone(&delivery)).is_err() {
                shard.wake();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        shard.wake();
    }
}

/// A line a second while something is delivered.
fn report(shard: &ShardHandle) {
    let stats = shard.stats();
    let (mut deliveries, mut sends, mut cpu) = (0, 0, 0.0);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = (stats.deliveries.load(Relaxed), stats.sends.load(Relaxed), cpu_micros());
        let delivered = now.0 - deliveries;
        if delivered > 0 {
            println!(
                "{} connections, {delivered} deliveries/s, {:.2} us of CPU each, {:.1} a send",
                stats.connections.load(Relaxed),
                (now.2 - cpu) / delivered as f64,
                delivered as f64 / (now.1 - sends).max(1) as f64,
            );
        }
        (deliveries, sends, cpu) = now;
    }
}

/// CPU time of all threads so far; 0 where the system does not tell.
fn cpu_micros() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
    let times = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    times.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e3
}
