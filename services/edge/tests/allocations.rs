//! What the engine allocates: nothing for a delivery, and little for a room.

use bytes::Bytes;
use plaza_edge::bridge::{ConnKey, Control, Delivery, Outlet, Reply, RoomId, Variant};
use plaza_edge::conn::{Action, Cause, Connection, Incoming, Millis};
use plaza_edge::engine::{Adopt, Settings, Shard, ShardHandle, SocketOptions};
use plaza_edge::wire::websocket::{Opcode, frame};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enters its rooms and says nothing.
struct Listener(std::ops::Range<u32>);

impl Connection for Listener {
    fn on_open(&mut self, _key: ConnKey, _now: Millis, out: &mut Vec<Action>) {
        out.extend(self.0.clone().map(|room| Action::Enter { room: RoomId(room), variant: Variant::PlazaJson }));
    }
    fn on_message(&mut self, _message: Incoming<'_>, _now: Millis, _out: &mut Vec<Action>) {}
    fn on_reply(&mut self, _id: u32, _reply: Reply, _now: Millis, _out: &mut Vec<Action>) {}
    fn on_control(&mut self, _control: &Control, _now: Millis, _out: &mut Vec<Action>) {}
    fn on_reset(&mut self, _room: RoomId, _now: Millis, _out: &mut Vec<Action>) {}
    fn on_deadline(&mut self, _now: Millis, _out: &mut Vec<Action>) {}
    fn deadline(&self) -> Option<Millis> {
        None
    }
    fn on_close(&mut self, _cause: Cause, _rooms: Vec<RoomId>, _out: &mut Vec<Action>) {}
}

/// A shard on a thread of its own, and sockets that lead into it.
struct Bench {
    shard: ShardHandle,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    listener: TcpListener,
}

impl Bench {
    fn start() -> Self {
        let (requests, _received) = plaza_edge::bridge::requests::channel(1_000);
        let shard = Shard::new(0, Settings::default(), requests).expect("a shard");
        let handle = shard.handle();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(shard.run(stopped)).expect("the shard runs");
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self { shard: handle, stop, thread: Some(thread), listener }
    }

    /// A client whose connection is in these rooms.
    fn client(&self, rooms: std::ops::Range<u32>) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().expect("an address")).expect("connected");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let (socket, _) = self.listener.accept().expect("accepted");
        socket.set_nonblocking(true).expect("non-blocking");
        let (connection, options) = (Box::new(Listener(rooms)), SocketOptions::default());
        self.shard
            .adopt(Adopt { socket, leftover: Bytes::new(), connection, options, place: None, trace: None })
            .expect("room");
        client
    }

    fn deliver(&self, delivery: Delivery) {
        let delivery = Arc::new(delivery);
        // The inbox has its bound.
        while self.shard.try_deliver(Arc::clone(&delivery)).is_err() {
            self.shard.wake();
            std::thread::yield_now();
        }
        self.shard.wake();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn event(room: u32, seq: u64) -> Delivery {
    let frames = [None, None, None, Some(frame(Opcode::Text, &[b'x'; 62])), None];
    Delivery { room: RoomId(room), seq, skip: None, frames, received: Instant::now(), age_us: 0, trace: None }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One test, because the counter is the process's: deliveries first, then rooms.
#[test]
fn a_delivery_allocates_nothing_and_a_drained_room_holds_little() {
    const MEMBERS: u64 = 100;
    const EVENTS: u64 = 500;
    let bench = Bench::start();
    let mut clients: Vec<_> = (0..MEMBERS).map(|_| bench.client(0..1)).collect();
    let stats = bench.shard.stats();
    until("all are there", || stats.connections.load(Relaxed) == MEMBERS);
    let mut buffer = vec![0; 64 * EVENTS as usize];
    let (mut quiet, mut rounds) = (0, 0);
    // The first rounds fill the pools; from then on nothing is allocated.
    while quiet < 5 {
        rounds += 1;
        assert!(rounds <= 50, "deliveries go on allocating");
        let mut events: Vec<_> = (0..EVENTS).map(|seq| Arc::new(event(0, seq + 1))).collect();
        let before = COUNTING.stats();
        for delivery in events.drain(..) {
            bench.shard.try_deliver(delivery).expect("fewer than the inbox takes");
            bench.shard.wake();
            // Some arrive while the shard sleeps, and some while it sweeps.
            std::thread::yield_now();
        }
        for client in &mut clients {
            client.read_exact(&mut buffer).expect("every event");
        }
        until("all are counted", || stats.deliveries.load(Relaxed) == MEMBERS * EVENTS * rounds);
        let after = COUNTING.stats();
        let made = after.allocations + after.reallocations - before.allocations - before.reallocations;
        quiet = if made == 0 { quiet + 1 } else { 0 };
    }
    drop(clients);
    until("all are gone", || stats.connections.load(Relaxed) == 0);

    const ROOMS: u32 = 100_000;
    const EACH: u32 = 100;
    let before = COUNTING.stats();
    let mut clients: Vec<_> = (0..ROOMS / EACH).map(|n| bench.client(n * EACH..(n + 1) * EACH)).collect();
    until("all rooms are there", || stats.rooms.load(Relaxed) == u64::from(ROOMS));
    for room in 0..ROOMS {
        bench.deliver(event(room, u64::from(room) + 1));
    }
    let mut buffer = vec![0; 64 * EACH as usize];
    for client in &mut clients {
        client.read_exact(&mut buffer).expect("one event of each room");
    }
    until("no log holds anything", || stats.log_bytes.load(Relaxed) == 0);
    let after = COUNTING.stats();
    let kept = (after.bytes_allocated + before.bytes_deallocated)
        .saturating_sub(before.bytes_allocated + after.bytes_deallocated);
    let each = kept / ROOMS as usize;
    assert!(each <= 640, "{each} bytes for a room with a member");
}
