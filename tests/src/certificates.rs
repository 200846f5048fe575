//! Certificates for tests of TLS, made by openssl: `NAME.pem` and its key `NAME.key` in a folder, good for two days.

use std::io;
use std::path::Path;
use std::process::Command;

/// One that is signed by itself: an authority, or a stranger.
///
/// # Errors
/// There is no openssl.
///
/// # Panics
/// It makes none.
pub fn alone(folder: &Path, name: &str) -> io::Result<()> {
    make(folder, name, "")
}

/// One for these names (`DNS:localhost,IP:127.0.0.1`), signed by an authority of the same folder.
///
/// # Errors
/// There is no openssl.
///
/// # Panics
/// It makes none.
pub fn signed(folder: &Path, authority: &str, name: &str, names: &str) -> io::Result<()> {
    let by = format!("-CA {authority}.pem -CAkey {authority}.key");
    make(folder, name, &format!("-addext subjectAltName={names} -addext basicConstraints=CA:FALSE {by}"))
}

fn make(folder: &Path, name: &str, more: &str) -> io::Result<()> {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let arguments = format!("req -x509 {key} -subj /CN={name} -keyout {name}.key -out {name}.pem {more}");
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output()?;
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
