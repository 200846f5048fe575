//! The swarm of `plaza-faults` against a release: clients that chat through the edges' Service, record what
//! they see, and are judged at the end.

use plaza_tests::process::built;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// What clients went through from a strike to its end; times in milliseconds.
#[derive(Debug)]
pub(crate) struct Healed {
    /// All of it in words.
    pub(crate) told: String,
    /// After the end, until everybody had everything.
    pub(crate) caught_up: u64,
    /// After the end, until every message had its outcome.
    pub(crate) settled: u64,
    /// How often one client was away, at most.
    pub(crate) times: u64,
    /// From the last word of a connection until its client was in all its rooms again.
    pub(crate) away_p99: u64,
    /// The same without the waits that edges asked for, and those that clients chose: what Plaza and the machine took.
    pub(crate) returning_p99: u64,
}

/// How many clients: those of a small run.
pub(crate) const CLIENTS: u32 = 24;

/// A running swarm. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Swarm {
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Swarm {
    /// Starts it and waits until every client is in its rooms and hears the others; `stock` of the clients are
    /// stock ones.
    pub(crate) fn start(name: &str, front: SocketAddr, clients: u32, stock: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("plaza-cluster-{}-{name}", std::process::id()));
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut child = Command::new(built("plaza-faults"))
            // The room log outlives a swarm: another one must not seem to repeat its messages.
            .args([
                "--seed",
                &seed.to_string(),
                "--small",
                "--clients",
                &clients.to_string(),
                "--stock",
                &stock.to_string(),
                "--at",
                &front.to_string(),
                "--out",
            ])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was just found");
        let say = child.stdin.take().expect("it is piped");
        let hear = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut swarm = Self { child, say, hear, folder };
        swarm.answer("chatting");
        swarm
    }

    /// Lets every client connect anew, so that they spread over the edges that there are.
    pub(crate) fn scatter(&mut self) {
        self.tell("scatter");
        self.answer("scattered");
    }

    /// Sends as fast as it is taken, or as planned again.
    pub(crate) fn storm(&mut self, is_storm: bool) {
        self.tell(if is_storm { "storm" } else { "calm" });
    }

    /// Something begins that clients may notice and nobody may suffer from.
    pub(crate) fn strike(&mut self, what: &str) {
        self.tell(&format!("strike {what}"));
        self.answer("struck");
    }

    /// It is over: waits until every client is back and has everything, and every message its outcome.
    pub(crate) fn heal(&mut self) -> Healed {
        self.tell("heal");
        let told = self.answer("caught up after");
        let mut numbers = told.split(' ').filter_map(|word| word.parse().ok());
        let [caught_up, settled, _clients, times, _away_p50, away_p99, returning_p99] =
            [(); 7].map(|()| numbers.next().expect("it says all of it"));
        Healed { told, caught_up, settled, times, away_p99, returning_p99 }
    }

    /// Ends it: nothing that was acknowledged is lost, doubled or out of order, and enough happened.
    pub(crate) fn judge(mut self) -> String {
        self.tell("end");
        let mut verdict = String::new();
        std::io::Read::read_to_string(&mut self.hear, &mut verdict).expect("it prints text");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "the swarm's record is in {}:\n{verdict}", self.folder.display());
        let _ = std::fs::remove_dir_all(&self.folder);
        verdict
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.say, "{line}").expect("the swarm is alive");
    }

    fn answer(&mut self, begins: &str) -> String {
        let mut line = String::new();
        self.hear.read_line(&mut line).expect("it prints text");
        assert!(line.starts_with(begins), "{begins} was expected: {line}");
        line.trim_end().to_owned()
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
