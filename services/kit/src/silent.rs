//! A connection that has not said anything yet.
//!
//! A caller may connect long before it calls: balancers and pooled channels do. HTTP/2 tells a connection of the end
//! only after its preface (RFC 9113 section 3.4), so one that is still silent would hold up a shutdown for ever. It has
//! no call to lose, and is closed instead.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// A connection that reads as ended when `ended` comes before its first byte; later it is as it was.
#[derive(Debug)]
pub(crate) struct UntilItSpeaks<S> {
    connection: S,
    /// `None` once it has spoken.
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<S> UntilItSpeaks<S> {
    pub(crate) fn new(connection: S, ended: CancellationToken) -> Self {
        Self { connection, ended: Some(Box::pin(ended.cancelled_owned())) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for UntilItSpeaks<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.connection).poll_read(cx, buffer);
        match &mut self.ended {
            // What has come is read first: it may be a call.
            Some(ended) if read.is_pending() => ended.as_mut().poll(cx).map(Ok),
            Some(_) => {
                self.ended = None;
                read
            }
            None => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for UntilItSpeaks<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for UntilItSpeaks<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}
