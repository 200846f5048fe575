//! A Kubernetes cluster: one of this machine that ends with this process, or any other that is named.

use plaza_tests::process::built;
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything in the cluster may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster that is up and has the images.
#[derive(Debug)]
pub(crate) struct Kube {
    kubeconfig: PathBuf,
    path: OsString,
    /// The folder of the images' archives.
    images: PathBuf,
    /// The command that takes one.
    load: String,
    /// It was brought up here, and has no other images than those that it is given.
    is_ours: bool,
}

impl Kube {
    /// The cluster that is named, or one that is brought up; with images of the programs built here.
    ///
    /// # Errors
    /// There is none, and this machine cannot run one: why.
    pub(crate) fn find() -> Result<Self, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
        let machine = Self::machine("cluster");
        let named = std::env::var_os("PLAZA_TEST_KUBECONFIG");
        let path = path();
        let kubeconfig = match &named {
            Some(kubeconfig) => PathBuf::from(kubeconfig),
            None => {
                may_run(&here)?;
                succeed(Command::new(&machine).args(["up", "--until", &std::process::id().to_string()]))?;
                PathBuf::from(succeed(Command::new(&machine).arg("kubeconfig"))?.trim())
            }
        };
        let images = here.join("../../target/cluster");
        let programs = built("plaza-edge");
        let programs = programs.parent().ok_or("a program is in a folder")?;
        succeed(Command::new(here.join("images")).arg(&images).arg(programs).env("PATH", &path))?;
        let load = match (&named, std::env::var("PLAZA_TEST_LOAD")) {
            (_, Ok(command)) => command,
            (None, _) => format!("{} load", machine.display()),
            (Some(_), _) => return Err("PLAZA_TEST_LOAD must name the command that takes an archive".into()),
        };
        let kube = Self { kubeconfig, path, images, load, is_ours: named.is_none() };
        // Another cluster gets Redis and NATS where it gets everything.
        let stores: &[&str] = if kube.is_ours { &["redis", "nats"] } else { &[] };
        for image in ["plaza-edge", "plaza-session", "plaza-fanout"].iter().chain(stores) {
            kube.load(&kube.images.join(format!("{image}.tar")))?;
        }
        Ok(kube)
    }

    /// A program of the folder `machine`.
    pub(crate) fn machine(program: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/machine").join(program)
    }

    /// The folder of the images' archives.
    pub(crate) fn images(&self) -> &Path {
        &self.images
    }

    /// Whether it has only the images that it is given; another cluster gets them where it gets everything.
    pub(crate) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Gives the image in an archive to the nodes.
    ///
    /// # Errors
    /// The command fails: its words.
    pub(crate) fn load(&self, archive: &Path) -> Result<(), String> {
        succeed(Command::new("sh").args(["-c", &format!("{} '{}'", self.load, archive.display())])).map(|_| ())
    }

    /// A command of this cluster, such as kubectl or helm.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("env");
        // What the command speaks to is near, whatever this machine's proxies are.
        command.env("PATH", &self.path).env("KUBECONFIG", &self.kubeconfig).env("NO_PROXY", "*").env("no_proxy", "*");
        command.arg(program);
        command
    }

    /// Runs kubectl; what it prints.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs kubectl; what it prints.
    ///
    /// # Errors
    /// It fails: its words.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        succeed(self.command("kubectl").args(arguments))
    }

    /// Runs helm; what it prints.
    pub(crate) fn helm(&self, arguments: &[&str]) -> String {
        succeed(self.command("helm").args(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes or changes an object, which is JSON.
    pub(crate) fn apply(&self, object: &str) {
        let mut command = self.command("sh");
        succeed(command.args(["-c", "printf %s \"$0\" | kubectl apply --filename -", object]))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Asks for objects; the answer's JSON.
    pub(crate) fn get(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "--output", "json"], arguments].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Waits until something is so; `look` says what is not yet.
    pub(crate) async fn wait(&self, what: &str, mut look: impl FnMut() -> Result<(), String>) {
        let begin = Instant::now();
        while let Err(not_yet) = look() {
            assert!(begin.elapsed() < PATIENCE, "after {PATIENCE:?} not: {what}; {not_yet}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// What somebody wants to see when a check has failed.
    pub(crate) fn situation(&self) -> String {
        let ask = |arguments: &[&str]| self.try_kubectl(arguments).unwrap_or_else(|error| error);
        let events = ask(&["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]);
        let events: Vec<&str> = events.lines().collect();
        format!(
            "--- pods\n{}--- last events\n{}",
            ask(&["get", "pods", "--all-namespaces", "--output", "wide"]),
            events[events.len().saturating_sub(25)..].join("\n")
        )
    }
}

/// Whether this machine can run a cluster: if not, why.
fn may_run(here: &Path) -> Result<(), String> {
    let user = succeed(Command::new("id").arg("-u"))?;
    if user.trim() != "0" {
        return Err("a node needs root; or name another cluster in PLAZA_TEST_KUBECONFIG".into());
    }
    let assets = here.join("machine/assets");
    succeed(Command::new(assets).arg("--check"))
        .map(|_| ())
        .map_err(|why| format!("{}; tests/cluster/machine/assets builds what is missing", why.trim()))
}

/// PATH with the cluster's programs and the project's tools in front.
fn path() -> OsString {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let mut folders =
        vec![cache.unwrap_or_else(home).join("plaza-tools/bin"), tools.join("bin"), tools.join("venv/bin")];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(folders).expect("the parts of a PATH make a PATH")
}

/// Runs a command to its end; what it prints.
///
/// # Errors
/// It cannot be run or fails: its command line, and what it printed to standard error.
pub(crate) fn succeed(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} {} ({}):\n{told}{text}", command.get_program().display(), words.join(" "), output.status))
}
