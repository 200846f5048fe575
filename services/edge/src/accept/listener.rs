//! Settings of accepted sockets.

use socket2::SockRef;
use std::io;
use std::time::Duration;

/// Keepalive: a peer that vanished without a word is found even when nothing is sent to it.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Prepares an accepted socket: no Nagle, keepalive, and on Linux a bound for unacknowledged bytes.
///
/// # Errors
/// The peer is gone already.
pub fn tune(socket: &tokio::net::TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}
