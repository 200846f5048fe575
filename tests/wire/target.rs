//! The server under test: a process of its own for each test, or the one that the environment names.

use plaza_tests::process::{Process, built};
use std::net::SocketAddr;
use std::time::Duration;

/// `host:port` of a server that runs already.
const TARGET: &str = "PLAZA_WIRE_TARGET";

/// A server set up as the wire profile. Its process ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    process: Option<Process>,
}

impl Target {
    /// The server under test.
    pub(crate) async fn start() -> Self {
        if let Ok(addr) = std::env::var(TARGET) {
            let addr =
                addr.parse().unwrap_or_else(|_| panic!("{TARGET} is {addr:?}, it must be an address and a port"));
            return Self { addr, process: None };
        }
        let args = ["--listen", "127.0.0.1:0"].map(str::to_owned);
        let mut process = Process::start("wire_profile", &built("examples/wire_profile"), &args, &[]);
        let addr = process.wait_log("its address", |log| log.lines().find_map(address_in)).await;
        Self { addr, process: Some(process) }
    }

    /// The server under test, unless it is the reference, which does not hold the row: `why`.
    pub(crate) async fn ours(why: &str) -> Option<Self> {
        if std::env::var_os(TARGET).is_some() {
            eprintln!("not run against another server: {why}");
            return None;
        }
        Some(Self::start().await)
    }

    /// Whether it is another server than the wire profile.
    pub(crate) const fn is_other(&self) -> bool {
        self.process.is_none()
    }

    /// Open file descriptors of the server's process, where the system tells.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        let id = self.process.as_ref()?.id();
        Some(std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count())
    }

    /// Waits until the server has no more descriptors open than `base`, at most 5 s.
    pub(crate) async fn descriptors_fall_to(&self, base: usize) {
        let mut now = usize::MAX;
        for _ in 0..500 {
            now = self.descriptors().expect("counted before");
            if now <= base {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{now} descriptors are open, {base} were at the beginning");
    }
}

/// The first IPv4 address with a port in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
        .find_map(|word| word.trim_matches(['.', ':']).parse().ok())
}
