//! A channel whose calls outlive the connection that they were queued on.
//!
//! A server ends a connection that has grown old with GOAWAY (RFC 9113, section 6.8). A call that waits in the
//! client for its turn at that moment ends as cancelled, though nothing of it was sent, and tonic's channel does not
//! try it again. Here it is: a message that nobody has begun to read can be sent on the next connection as it is.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::transport::{Channel, Error};
use tower::{Service, ServiceExt};

/// How often one call is tried. Two connections that end in the same moment are rare, three are an outage.
const MOST_ATTEMPTS: usize = 3;

/// What [`Targets::channel`](super::Targets::channel) makes: calls are balanced over every endpoint, and those that
/// a closing connection has not sent go to the next one. Clones share the connections.
#[derive(Clone, Debug)]
pub struct BalancedChannel(Channel);

impl BalancedChannel {
    pub(super) fn new(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Service<Request<Body>> for BalancedChannel {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled to be ready takes the call; its clone is asked next time.
        let clone = self.0.clone();
        let mut channel = std::mem::replace(&mut self.0, clone);
        Box::pin(async move {
            let (parts, message) = request.into_parts();
            let unsent = Unsent(Arc::new(Mutex::new(Some(message))));
            let mut attempt = 1;
            loop {
                let message = Body::new(Message::Waiting(unsent.clone()));
                let answer = channel.call(Request::from_parts(parts.clone(), message)).await;
                match answer {
                    Err(error) if attempt < MOST_ATTEMPTS && unsent.is_whole() && was_cancelled(&error) => attempt += 1,
                    answer => return answer,
                }
                channel.ready().await?;
            }
        })
    }
}

/// Whether the connection has given the call back, and neither the server nor the time-out has ended it.
fn was_cancelled(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        source = error.source();
    }
    false
}

/// The message of a call, until a connection begins to read it.
#[derive(Clone, Debug)]
struct Unsent(Arc<Mutex<Option<Body>>>);

impl Unsent {
    fn is_whole(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a connection is given to read.
#[derive(Debug)]
enum Message {
    Waiting(Unsent),
    Read(Body),
}

impl Message {
    /// The message itself, which from now on belongs to this connection.
    fn read(&mut self) -> Option<Pin<&mut Body>> {
        if let Self::Waiting(unsent) = self {
            *self = Self::Read(unsent.take()?);
        }
        match self {
            Self::Read(body) => Some(Pin::new(body)),
            Self::Waiting(_) => None,
        }
    }
}

impl hyper::body::Body for Message {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.read().map_or(Poll::Ready(None), |body| body.poll_frame(cx))
    }

    /// Asked before the first frame is: it must not take the message.
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Read(body) => body.is_end_stream(),
            Self::Waiting(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Read(body) => body.size_hint(),
            Self::Waiting(_) => SizeHint::default(),
        }
    }
}
