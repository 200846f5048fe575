//! A real `redis-server` for one test.

use crate::process::{Process, free_port, fresh_folder, installed, relaunch};
use std::path::PathBuf;

/// A running server without persistence.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Process>,
    port: u16,
    folder: PathBuf,
}

impl RedisServer {
    /// Starts one and waits until it accepts connections.
    ///
    /// # Panics
    /// When it finds no free port in five tries, or does not start.
    pub async fn start() -> Self {
        let mut server = Self { process: None, port: 0, folder: fresh_folder("redis") };
        // Another process may take the port between the choice and the start: choose again.
        for _ in 0..5 {
            server.port = free_port();
            if server.launch().await {
                return server;
            }
        }
        panic!("redis-server found no free port in five tries");
    }

    /// The URL that `--redis-url` takes.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills the server at once; nothing of its data is left.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts it again, empty, on the same port.
    ///
    /// # Panics
    /// When another process holds the port for a minute.
    pub async fn restart(&mut self) {
        self.kill();
        relaunch("redis", async || self.launch().await).await;
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// The process, for signals.
    ///
    /// # Panics
    /// When it was killed and not restarted.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }

    async fn launch(&mut self) -> bool {
        let port = self.port.to_string();
        let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"];
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        std::fs::create_dir_all(&self.folder).expect("the temporary directory can be written");
        let mut process = Process::start_in("redis", &installed("redis-server"), &args, &[], self.folder.clone());
        let up = process
            .wait_log("ready line", |log| {
                if log.contains("Address already in use") {
                    return Some(false);
                }
                log.contains("Ready to accept connections").then_some(true)
            })
            .await;
        self.process = up.then_some(process);
        up
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.process.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
