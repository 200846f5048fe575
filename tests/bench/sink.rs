//! Where the spans of the measured servers go: an HTTP server that takes everything and keeps nothing, on the
//! core of the load.

use crate::server::LOAD_CORE;
use plaza_tests::process::Process;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

/// Starts one as a process of its own.
pub(crate) async fn start() -> anyhow::Result<(Process, SocketAddr)> {
    let own = std::env::current_exe()?.display().to_string();
    let args = ["-c", LOAD_CORE, &own, "sink"].map(str::to_owned);
    let mut process = Process::start("sink", Path::new("taskset"), &args, &[]);
    let addr = process.wait_log("its address", |log| log.strip_prefix("listening on ")?.trim().parse().ok()).await;
    Ok((process, addr))
}

/// Serves until it is killed.
pub(crate) fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that breaks is the exporter's to make anew.
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

/// One request after the other: a head with its length, and so many bytes.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or_default();
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}
