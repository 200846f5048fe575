//! Runs Helm.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the project")
}

/// A program that `scripts/tools` put below `target/tools`, else the one on PATH.
pub(crate) fn tool(below: &str, name: &str) -> Command {
    let own = root().join("target/tools").join(below).join(name);
    Command::new(if own.exists() { own } else { PathBuf::from(name) })
}

/// Runs Helm in the root of the project.
pub(crate) fn helm<S: AsRef<OsStr>>(args: &[S]) -> Output {
    run(tool("bin", "helm"), args)
}

/// Runs this Helm in the root of the project.
pub(crate) fn run<S: AsRef<OsStr>>(mut command: Command, args: &[S]) -> Output {
    // Helm 3 and 4 both read settings and plugins of the user's: not in a test.
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, &home);
    }
    command.env_remove("KUBECONFIG").args(args).current_dir(root());
    command.output().unwrap_or_else(|error| panic!("helm does not start: {error}; scripts/tools installs it"))
}

/// `helm template` with a file of values.
///
/// # Errors
/// What Helm says.
pub(crate) fn template(release: &str, namespace: &str, values: &Path, more: &[&str]) -> Result<String, String> {
    template_by(tool("bin", "helm"), release, namespace, values, more)
}

/// The same by this Helm.
///
/// # Errors
/// What it says.
pub(crate) fn template_by(
    helm: Command,
    release: &str,
    namespace: &str,
    values: &Path,
    more: &[&str],
) -> Result<String, String> {
    let values = values.to_str().expect("paths of the project are UTF-8");
    let mut args = vec!["template", release, "charts/plaza", "--namespace", namespace, "--values", values];
    args.extend(more);
    let output = run(helm, &args);
    let said = |bytes| String::from_utf8(bytes).expect("helm writes UTF-8");
    if !output.status.success() {
        return Err(said(output.stderr));
    }
    // Helm 4 writes an empty line behind each document, Helm 3 does not.
    let text = said(output.stdout).replace("\n\n---", "\n---");
    Ok(format!("{}\n", text.trim_end()))
}

/// The YAML files of a folder, by name without ending, in order.
pub(crate) fn yaml_files(folder: &Path) -> Vec<(String, PathBuf)> {
    let listing = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = listing.map(|entry| entry.expect("the folder can be read").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| (path.file_stem().expect("it has a name").to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    files
}
