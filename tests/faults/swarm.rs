//! A swarm: who its clients are, in which rooms, and where they connect.

use crate::board::Board;
use crate::client::Client;
use crate::history::History;
use crate::pace::Pace;
use crate::speak::Speak;
use plaza_kit::shutdown::Shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How large a swarm is and what it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: u32,
    /// So many of them, the last ones, are stock socket.io-clients.
    pub(crate) stock: u32,
    pub(crate) rooms: u32,
    pub(crate) rooms_per_client: u32,
    /// Messages a second of all clients together.
    pub(crate) rate: f64,
    pub(crate) seed: u64,
    /// All of them speak Socket.IO.
    pub(crate) only_socket_io: bool,
    /// Bytes that the kernel keeps for a client that does not read, if not its usual.
    pub(crate) buffer: Option<u32>,
}

/// A running swarm.
#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) board: Arc<Board>,
    shutdown: Shutdown,
}

impl Swarm {
    /// Starts the clients; they use the edges behind `fronts`, stock ones the program at `steering`.
    pub(crate) fn start(
        plan: Plan,
        fronts: &[SocketAddr],
        steering: Option<SocketAddr>,
        history: &Arc<History>,
    ) -> Self {
        let rooms: Vec<Vec<u32>> = (0..plan.clients).map(|client| rooms_of(client, &plan)).collect();
        let board = Arc::new(Board::new(plan.rooms as usize, &rooms));
        let shutdown = Shutdown::new();
        for (id, rooms) in (0..plan.clients).zip(rooms) {
            let mut random = fastrand::Rng::with_seed(plan.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(id)));
            let steering = steering.filter(|_| id >= plan.clients - plan.stock);
            let speak = match steering {
                Some(_) => Speak::Stock,
                None if plan.only_socket_io || id % 2 == 1 => Speak::SocketIo,
                None => Speak::Plaza,
            };
            // Half of the clients send the next message to a room before the last one is answered.
            let window = if id / 2 % 2 == 0 { 1 } else { 4 };
            let pause = Duration::from_secs_f64(f64::from(plan.clients) / plan.rate);
            let pace = Pace::new(pause, random.f64());
            let fronts = steering.map_or_else(|| fronts.to_vec(), |steering| vec![steering]);
            let (guest, record) = (guest(&mut random), (board.clone(), history.clone()));
            let client = Client::new(id, speak, guest, rooms, window, pace, random, fronts, record);
            let client = client.with_buffer(plan.buffer);
            shutdown.spawn("client", client.run(shutdown.clone()));
        }
        Self { board, shutdown }
    }

    /// Ends every client.
    pub(crate) async fn end(self) {
        self.shutdown.begin();
        self.shutdown.wait(Duration::from_secs(5)).await;
    }
}

impl Drop for Swarm {
    /// Also after a panic nobody goes on to connect to edges that are gone.
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// The rooms of a client: no two clients share all of theirs.
fn rooms_of(client: u32, plan: &Plan) -> Vec<u32> {
    let step = 1 + client * plan.rooms_per_client / plan.rooms;
    let first = client * plan.rooms_per_client / 2;
    let mut rooms: Vec<u32> = (0..plan.rooms_per_client).map(|n| (first + n * step) % plan.rooms).collect();
    rooms.sort_unstable();
    rooms.dedup();
    rooms
}

/// A random 128-bit key: 22 characters base64url.
fn guest(random: &mut fastrand::Rng) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random.u128(..).to_be_bytes())
}
