//! Settings of accepted sockets.

use socket2::SockRef;
use std::io;
use std::time::Duration;

/// Keepalive: a peer that vanished without a word is found even when nothing is sent to it.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long sent bytes may stay unacknowledged, or wait for room at the peer, before the kernel gives the connection
/// up. Its error is the same for a peer that is gone and for one that does not read.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that the kernel takes beyond what the peer's window lets it send. Its own bound grows to megabytes, in
/// which a slow consumer would hide for minutes, and which nobody could take back. The age of a member's lag counts
/// from the first frame that the kernel does not take, so a quiet room must not need long to get there.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 * 1024;

/// Prepares an accepted socket: no Nagle, keepalive, and on Linux bounds for how long bytes stay unacknowledged
/// and how many stay unsent.
///
/// # Errors
/// The peer is gone already.
pub fn tune(socket: &tokio::net::TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};
    use tokio::net::{TcpListener, TcpSocket};

    /// Bytes until a socket takes no more, from somebody who reads none of them.
    async fn taken(tuned: bool) -> io::Result<usize> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr: SocketAddr = listener.local_addr()?;
        let deaf = TcpSocket::new_v4()?;
        deaf.set_recv_buffer_size(4 * 1024)?;
        let (_deaf, (socket, _)) = tokio::try_join!(deaf.connect(addr), listener.accept())?;
        // What the kernel may grow to by itself on a fast link.
        SockRef::from(&socket).set_send_buffer_size(4 << 20)?;
        if tuned {
            tune(&socket)?;
        }
        let (piece, mut taken) = ([0; 16 * 1024], 0);
        // Full when nothing more is taken for a while.
        while let Ok(writable) = tokio::time::timeout(Duration::from_millis(300), socket.writable()).await {
            writable?;
            taken += socket.try_write(&piece).unwrap_or(0);
        }
        Ok(taken)
    }

    #[tokio::test]
    async fn the_kernel_hides_no_slow_consumer() {
        let (plain, tuned) = (taken(false).await.expect("a socket"), taken(true).await.expect("a socket"));
        assert!(tuned < 512 * 1024, "{tuned} bytes are out of our hands");
        assert!(plain > 2 * tuned, "{plain} bytes without the bound, {tuned} with it");
    }
}
