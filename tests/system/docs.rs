//! Pages of `docs/` that are made from tables of the code. `PLAZA_BLESS=1` writes them anew; without
//! it, a page that differs from its table fails.

use std::fmt::Write;
use std::path::Path;

use plaza_kit::settings::Flag;
use plaza_proto::code::Code;

/// Compares a page with the file, or writes it when asked to.
fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("PLAZA_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(file == page, "docs/{name} is not what its table says; `just docs` writes it anew");
}

#[test]
fn the_page_of_error_codes_is_its_table() {
    let mut page = String::from(
        "# Error codes\n\n\
         One table serves gRPC, Socket.IO acknowledgements (`{ok: false, code, message}`) and Plaza's own protocol \
         (`error {code, message}`). A gRPC status begins its message with the code: `bad_room: ...`. Codes never \
         change once they are released. This page is made from the code by `just docs`.\n\n\
         | code | gRPC status | means | for people |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let (meaning, status) = (code.meaning().trim(), code.grpc());
        writeln!(page, "| `{code}` | {status:?} | {meaning} | {}<br>{} |", code.english(), code.chinese()).unwrap();
    }
    check("errors.md", &page);
}

/// Every table of flags, with who reads it.
const TABLES: &[(&str, &[Flag])] = &[
    ("The edge as a process: `plaza-edge`", plaza_edge::config::PROCESS_FLAGS),
    ("The edge: `plaza-edge` and `plaza`", plaza_edge::config::FLAGS),
    ("The session service as a process: `plaza-session`", plaza_session::config::LISTEN_FLAGS),
    ("The session service: `plaza-session` and `plaza`", plaza_session::config::FLAGS),
    ("The fanout service as a process: `plaza-fanout`", plaza_fanout::config::LISTEN_FLAGS),
    ("The fanout service: `plaza-fanout` and `plaza`", plaza_fanout::config::FLAGS),
    ("gRPC listeners: `plaza-session`, `plaza-fanout` and `plaza`", plaza_kit::grpc::GRPC_FLAGS),
    ("Every program", plaza_kit::telemetry::LOG_FLAGS),
];

#[test]
fn the_page_of_settings_is_its_tables() {
    let mut page = String::from(
        "# Settings\n\n\
         Every flag is also a variable: `--log-level` is `PLAZA_LOG_LEVEL`, and the flag wins. All wrong settings are \
         reported at once, with exit code 2. This page is made from the code by `just docs`.\n",
    );
    for (title, flags) in TABLES {
        write!(page, "\n## {title}\n\n| flag | variable | default | what it does |\n|---|---|---|---|\n").unwrap();
        for flag in *flags {
            let value = if flag.value.is_empty() { String::new() } else { format!(" {}", flag.value) };
            let default =
                flag.default.filter(|text| !text.is_empty()).map(|text| format!("`{text}`")).unwrap_or_default();
            let help = flag.help.replace('|', "\\|");
            writeln!(page, "| `--{}{value}` | `{}` | {default} | {help} |", flag.name, flag.variable()).unwrap();
        }
    }
    check("settings.md", &page);
}
