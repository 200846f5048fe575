//! A program under test: started with its output in a file, killed on drop.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to start or to stop, before the test fails. Generous: builds and tests
/// may share two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Launches a server on a port that it had before, until it has it again.
///
/// # Panics
/// When another process holds the port for [`PATIENCE`].
pub async fn relaunch(server: &str, mut launch: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !launch().await {
        assert!(begin.elapsed() < PATIENCE, "a port of {server} is taken by another process");
        // The kernel gave it to somebody's connection, which ends.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A running program. Dropping it kills it, by its own id, and shows the end of its log if the test
/// is failing.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    folder: PathBuf,
}

impl Process {
    /// Starts `program` with `args` and `envs` in a fresh folder below the temporary directory. All it
    /// prints goes to a file there.
    ///
    /// # Panics
    /// When the program cannot be started: the message names it.
    pub fn start(name: &str, program: &Path, args: &[String], envs: &[(&str, String)]) -> Self {
        Self::start_in(name, program, args, envs, fresh_folder(name))
    }

    /// Like [`Self::start`], in a folder that exists already (a server that keeps its data).
    ///
    /// # Panics
    /// When the program cannot be started: the message names it.
    pub fn start_in(name: &str, program: &Path, args: &[String], envs: &[(&str, String)], folder: PathBuf) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("the folder was just made");
        let err = out.try_clone().expect("a file can be cloned");
        let child = Command::new(program)
            .args(args)
            // The harness's own: no program knows it.
            .env_remove("PLAZA_TEST_TIER")
            .envs(envs.iter().map(|(k, v)| (*k, v.as_str())))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {} ({}): {error}", name, program.display()));
        Self { name: name.to_owned(), child, log, folder }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until `found` finds something in the log.
    ///
    /// # Panics
    /// When the program ends, or [`PATIENCE`] runs out, before that.
    pub async fn wait_log<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            let log = self.log();
            if let Some(value) = found(&log) {
                return value;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status} before {what}; its log:\n{}", self.name, tail(&self.log()));
            }
            assert!(begin.elapsed() < PATIENCE, "{}: no {what} in {PATIENCE:?}; its log:\n{}", self.name, tail(&log));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The address in the line `listening` of this flag, once it is printed.
    pub async fn listening(&mut self, flag: &str) -> std::net::SocketAddr {
        let flag = format!("\"flag\":\"{flag}\"");
        self.wait_log("its listening line", |log| {
            let line = log.lines().find(|line| line.contains("\"listening\"") && line.contains(&flag))?;
            let (_, rest) = line.split_once("\"addr\":\"")?;
            rest.split_once('"')?.0.parse().ok()
        })
        .await
    }

    /// Sends a signal by name, such as `TERM`, `KILL`, `STOP` or `CONT`.
    ///
    /// # Panics
    /// When `kill` cannot be run.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.id().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "kill -{signal} {} ({})", self.id(), self.name);
    }

    /// How it has ended; `None` while it runs.
    pub fn status(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Stops it where it stands, until it gets `CONT`.
    ///
    /// # Panics
    /// When it goes on for [`PATIENCE`].
    pub async fn pause(&self) {
        self.signal("STOP");
        let begin = Instant::now();
        while !self.is_stopped() {
            assert!(begin.elapsed() < PATIENCE, "{} does not stop", self.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether a signal has stopped all its threads (Linux): the last may go on for a moment.
    pub fn is_stopped(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.id())) else { return false };
        let stands = |thread: std::io::Result<std::fs::DirEntry>| {
            let stat =
                thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat"))).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        threads.into_iter().all(stands)
    }

    /// Kills it at once and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end by itself.
    ///
    /// # Panics
    /// When it has not ended within [`PATIENCE`].
    pub async fn wait(&mut self) -> std::process::ExitStatus {
        self.wait_within(PATIENCE).await
    }

    /// Waits for the end of a program that does much.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    pub async fn wait_within(&mut self, limit: Duration) -> std::process::ExitStatus {
        let begin = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status;
            }
            assert!(begin.elapsed() < limit, "{} does not end; its log:\n{}", self.name, tail(&self.log()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- end of the log of {} ---\n{}", self.name, tail(&self.log()));
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A built program of this workspace, such as `plaza-edge` or `examples/wire_profile`.
///
/// # Panics
/// When it is not built: the message names the command.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    // Tests run from `deps/` below the folder of the programs, programs beside each other.
    let folder = test.parent().expect("a program is in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let program = folder.join(name);
    assert!(
        program.exists(),
        "{} is not built: run `cargo build --workspace --bins --examples` (scripts/test does)",
        program.display()
    );
    program
}

/// A program on PATH; the variable `PLAZA_TEST_<NAME>` names another one.
pub fn installed(name: &str) -> PathBuf {
    let variable = format!("PLAZA_TEST_{}", name.to_ascii_uppercase().replace('-', "_"));
    std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
}

/// A new, empty folder below the temporary directory.
///
/// # Panics
/// When it cannot be made.
pub fn fresh_folder(name: &str) -> PathBuf {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("plaza-test-{}-{n}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary directory can be written");
    folder
}

/// A port of 127.0.0.1 that was free a moment ago, for servers that cannot report one of their own.
///
/// # Panics
/// When the kernel gives none.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("the kernel has free ports");
    listener.local_addr().expect("a bound listener has an address").port()
}

fn tail(log: &str) -> &str {
    let cut = log.len().saturating_sub(6_000);
    let cut = (cut..log.len()).find(|&i| log.is_char_boundary(i)).unwrap_or(log.len());
    &log[cut..]
}
