//! Settings of accepted sockets.

use plaza_kit::platform;
use socket2::SockRef;
use std::io;
use std::time::Duration;

/// Keepalive: a peer that vanished without a word is found even when nothing is sent to it.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Prepares an accepted socket: no Nagle, keepalive, and on Linux bounds for how long bytes stay unacknowledged
/// and how many stay unsent.
///
/// # Errors
/// The peer is gone already.
pub fn tune(socket: &tokio::net::TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))?;
    platform::bound_unsent(&socket)
}
