//! Listeners: bound before anything else starts, with a remedy when that fails.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::platform;

/// Connections that wait to be accepted; the system's own limit (`net.core.somaxconn`) caps it.
const BACKLOG: i32 = 4096;

/// An address could not be bound. The text names the flag that changes it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {}", remedy(*addr, flag, source.kind()))]
pub struct BindError {
    /// The address that was asked for.
    pub addr: SocketAddr,
    /// The flag that sets it, without dashes.
    pub flag: &'static str,
    /// What the system said.
    pub source: io::Error,
}

fn remedy(addr: SocketAddr, flag: &str, kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::AddrInUse if platform::takes_port(addr.port()) => {
            format!("port 5000 belongs to AirPlay on a Mac; choose another with --{flag} 127.0.0.1:8000")
        }
        io::ErrorKind::AddrInUse => format!(
            "another process listens there; stop it, or choose another address with --{flag} {}:{}",
            if addr.is_ipv6() { "[::1]" } else { "127.0.0.1" },
            if addr.port() == 8000 { 8001 } else { 8000 }
        ),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a privilege; choose a higher one with --{flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine does not have the address; choose one that it has with --{flag}")
        }
        _ => format!("the system refuses it; --{flag} chooses another address"),
    }
}

/// Binds one non-blocking listener, without SO_REUSEPORT: a second process gets an error.
///
/// # Errors
/// [`BindError`], with the remedy.
pub fn bind(addr: SocketAddr, flag: &'static str) -> Result<TcpListener, BindError> {
    let fail = |source| BindError { addr, flag, source };
    let listener = bind_one(addr, Sharing::Alone).map_err(fail)?;
    announce(&listener, flag).map_err(fail)?;
    Ok(listener)
}

/// One line for each address: with port 0 it is the only way to learn the port.
fn announce(listener: &TcpListener, flag: &'static str) -> io::Result<()> {
    tracing::info!(flag, addr = %listener.local_addr()?, "listening");
    Ok(())
}

/// Binds `n` non-blocking listeners on one address (one when `n` is 0). Linux spreads connections among
/// them: the first is bound without SO_REUSEPORT, so that a second process gets an error and does not
/// silently take half of the connections. Elsewhere SO_REUSEPORT does not spread: there all take from one
/// queue, and who is free takes the next connection.
///
/// # Errors
/// [`BindError`], with the remedy.
pub fn bind_shared(addr: SocketAddr, flag: &'static str, n: usize) -> Result<Vec<TcpListener>, BindError> {
    let fail = |source| BindError { addr, flag, source };
    if n <= 1 {
        return Ok(vec![bind(addr, flag)?]);
    }
    let first = bind_one(addr, Sharing::First).map_err(fail)?;
    let bound = first.local_addr().map_err(fail)?;
    announce(&first, flag).map_err(fail)?;
    let mut listeners = vec![first];
    for _ in 1..n {
        let next =
            if platform::SPREADS_CONNECTIONS { bind_one(bound, Sharing::Next) } else { listeners[0].try_clone() };
        listeners.push(next.map_err(fail)?);
    }
    Ok(listeners)
}

/// Whether a listener shares its address with others of this process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    /// Shares with later ones, but must find the address free.
    First,
    Next,
}

fn bind_one(addr: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Windows would let a second process take the port with this option; elsewhere it only skips
    // the wait for old connections after a restart.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Next {
        platform::reuse_port(&socket)?;
    }
    socket.bind(&addr.into())?;
    if sharing == Sharing::First {
        platform::reuse_port(&socket)?;
    }
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_second_listener_is_told_the_flag_to_change() {
        let first = bind(ANY, "listen").unwrap();
        let error = bind(first.local_addr().unwrap(), "admin-listen").unwrap_err().to_string();
        assert!(error.contains("another process listens there"), "{error}");
        assert!(error.contains("--admin-listen 127.0.0.1:8000"), "{error}");
    }

    #[test]
    fn a_shared_address_is_refused_to_strangers() {
        let group = bind_shared(ANY, "listen", 3).unwrap();
        let addr = group[0].local_addr().unwrap();
        assert!(group.iter().all(|listener| listener.local_addr().unwrap() == addr));
        assert_eq!(group.len(), 3);
        assert!(bind(addr, "listen").is_err());
        assert!(bind_shared(addr, "listen", 3).is_err());
    }
}
