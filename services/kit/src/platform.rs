//! What differs between Linux, where Plaza runs, and a Mac, where people try it.

use std::io;

use socket2::{SockRef, Socket};

/// The kernel spreads connections among the listeners of one address.
pub(crate) const SPREADS_CONNECTIONS: bool = cfg!(target_os = "linux");

/// Something of the system's own listens on this port unless it is turned off.
pub(crate) const fn takes_port(port: u16) -> bool {
    cfg!(target_os = "macos") && port == 5000
}

/// Codes of no descriptor and no memory for another socket: EMFILE, ENFILE, ENOBUFS, ENOMEM.
pub const EXHAUSTED: [i32; 4] = [24, 23, if cfg!(target_os = "linux") { 105 } else { 55 }, 12];

/// Bounds, on Linux, how long bytes of a connection stay unacknowledged and how many stay unsent.
///
/// # Errors
/// The peer is gone already.
pub fn bound_unsent(socket: &SockRef<'_>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        /// How long sent bytes may stay unacknowledged, or wait for room at the peer, before the kernel gives the
        /// connection up. Its error is the same for a peer that is gone and for one that does not read.
        const USER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
        /// Bytes that the kernel takes beyond what the peer's window lets it send. Its own bound grows to megabytes,
        /// in which a slow consumer would hide for minutes, and which nobody could take back. The age of a member's
        /// lag counts from the first frame that the kernel does not take, so a quiet room must not need long to get
        /// there.
        const UNSENT: u32 = 16 * 1024;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    let _ = socket;
    Ok(())
}

/// Lets a socket share its address, where that spreads connections.
pub(crate) fn reuse_port(socket: &Socket) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(true)?;
    let _ = socket;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Bytes until a socket takes no more, from somebody who reads none of them.
    async fn taken(bounded: bool) -> io::Result<usize> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let deaf = TcpSocket::new_v4()?;
        deaf.set_recv_buffer_size(4 * 1024)?;
        let (_deaf, (socket, _)) = tokio::try_join!(deaf.connect(addr), listener.accept())?;
        // What the kernel may grow to by itself on a fast link.
        SockRef::from(&socket).set_send_buffer_size(4 << 20)?;
        if bounded {
            bound_unsent(&SockRef::from(&socket))?;
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
        let (plain, bounded) = (taken(false).await.expect("a socket"), taken(true).await.expect("a socket"));
        assert!(bounded < 512 * 1024, "{bounded} bytes are out of our hands");
        assert!(plain > 2 * bounded, "{plain} bytes without the bound, {bounded} with it");
    }

    #[test]
    fn the_listeners_of_a_shared_address_all_get_connections() {
        let group = crate::net::bind_shared((Ipv4Addr::LOCALHOST, 0).into(), "listen", 2).unwrap();
        let addr = group[0].local_addr().unwrap();
        // The kernel picks by a hash of the ports: 64 of 64 on one side has a chance of 2^-63.
        let clients: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        let accepted: Vec<usize> =
            group.iter().map(|listener| std::iter::from_fn(|| listener.accept().ok()).count()).collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
    }
}
