//! A real `nats-server` with JetStream for one test.

use crate::process::{Process, fresh_folder, installed};
use std::path::{Path, PathBuf};

/// A running single server; its store survives [`Self::kill`] and [`Self::restart`].
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    port: u16,
    folder: PathBuf,
    store: PathBuf,
}

impl NatsServer {
    /// Starts one and waits until it accepts connections.
    pub async fn start() -> Self {
        let mut server =
            Self { process: None, port: 0, folder: fresh_folder("nats"), store: fresh_folder("nats-store") };
        server.launch("-1").await;
        server
    }

    /// The URL that `--nats-url` takes.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills the server at once; what it has stored stays.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts it again on the same port with the same store.
    pub async fn restart(&mut self) {
        self.kill();
        let port = self.port.to_string();
        self.launch(&port).await;
    }

    /// Keeps a copy of what is stored, to go back to. The server must not run.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    pub fn save(&self) -> PathBuf {
        let copy = fresh_folder("nats-copy");
        copy_all(&self.store, &copy);
        copy
    }

    /// Puts a copy back, as if nothing had been stored since. The server must not run.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    pub fn go_back(&self, copy: &Path) {
        std::fs::remove_dir_all(&self.store).expect("the store is ours");
        copy_all(copy, &self.store);
        let _ = std::fs::remove_dir_all(copy);
    }

    /// Where it stores.
    pub fn store(&self) -> &Path {
        &self.store
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

    async fn launch(&mut self, port: &str) {
        std::fs::create_dir_all(&self.folder).expect("the temporary directory can be written");
        let store = self.store.to_string_lossy().into_owned();
        let args = ["-a", "127.0.0.1", "-p", port, "-js", "-sd", &store];
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        let mut process = Process::start_in("nats", &installed("nats-server"), &args, &[], self.folder.clone());
        self.port = process
            .wait_log("ready line", |log| {
                log.contains("Server is ready").then_some(())?;
                let (_, rest) = log.split_once("client connections on 127.0.0.1:")?;
                rest.split_whitespace().next()?.parse().ok()
            })
            .await;
        self.process = Some(process);
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        drop(self.process.take());
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_dir_all(&self.store);
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the temporary directory can be written");
    for entry in std::fs::read_dir(from).expect("a folder of ours").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the temporary directory can be written");
        }
    }
}
