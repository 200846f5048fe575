use super::*;
use crate::accept::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

const LIMITS: HttpLimits = HttpLimits {
    header_timeout: Duration::from_millis(200),
    idle_timeout: Duration::from_secs(3_600),
    max_connections: 10,
    ceiling: None,
};
/// No answer and no close may take longer: a guard against hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves "ok" at `/` while `client` runs.
async fn with_server<F: Future<Output = ()>>(client: impl FnOnce(std::net::SocketAddr) -> F) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("non-blocking");
    let address = listener.local_addr().expect("an address");
    let router = axum::Router::new().route("/", axum::routing::get(|| std::future::ready("ok")));
    let stop = CancellationToken::new();
    let serving = serve(listener, router, LIMITS, stop.clone());
    let client = async {
        tokio::time::timeout(PATIENCE, client(address)).await.expect("an answer in time");
        stop.cancel();
    };
    tokio::join!(serving, client).0.expect("it serves");
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0, "closed before its answer");
    }
}

#[tokio::test]
async fn a_connection_that_rests_between_requests_is_kept() {
    with_server(|address| async move {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        ask(&mut stream).await;
        tokio::time::sleep(LIMITS.header_timeout * 3).await;
        ask(&mut stream).await;
    })
    .await;
}

#[tokio::test]
async fn a_head_that_does_not_come_or_does_not_end_closes_the_connection() {
    with_server(|address| async move {
        let mut silent = TcpStream::connect(address).await.expect("connected");
        let mut rest = Vec::new();
        silent.read_to_end(&mut rest).await.expect("closed in order");
        let mut slow = TcpStream::connect(address).await.expect("connected");
        ask(&mut slow).await;
        slow.write_all(b"GET / HTTP/1.1\r\nHos").await.expect("sent");
        slow.read_to_end(&mut rest).await.expect("closed in order");
    })
    .await;
}
