//! From arguments and variables to settings. Every argument is judged, so that one run shows every
//! mistake; a parser that stops at the first could not.

use super::{Flag, Settings, Source};

/// What the arguments ask for.
pub(super) enum Scan {
    Settings(Settings),
    Help(Vec<Flag>),
    Version,
}

/// Reads arguments (without the program's name) and variables.
pub(super) fn scan(
    program: &'static str,
    flags: Vec<Flag>,
    arguments: impl Iterator<Item = String>,
    variables: impl Iterator<Item = (String, String)>,
) -> Scan {
    let mut settings = Settings::new(program, flags);
    read_variables(&mut settings, variables);
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let Some(argument) = argument.strip_prefix("--") else {
            match argument.as_str() {
                "-h" => return Scan::Help(settings.flags),
                "-V" => return Scan::Version,
                _ => settings.problems.push(format!("{argument}: is not a flag; flags look like --name value")),
            }
            continue;
        };
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument, None),
        };
        let known = settings.flags.iter().find(|flag| flag.name == name).copied();
        match (name, known) {
            ("help", None) => return Scan::Help(settings.flags),
            ("version", None) => return Scan::Version,
            (_, None) => {
                let hint = nearest(name, settings.flags.iter().map(|flag| flag.name));
                let hint = hint.map(|near| format!("; did you mean --{near}?")).unwrap_or_default();
                settings.problems.push(format!("--{name}: there is no such flag{hint}"));
                // Its value, if it has one, is not a second mistake.
                arguments.next_if(|next| inline.is_none() && !next.starts_with('-'));
            }
            (_, Some(flag)) if flag.value.is_empty() => {
                let value = inline.unwrap_or_else(|| "true".to_owned());
                settings.given.insert(flag.name, (Source::Flag, value));
            }
            (_, Some(flag)) => match inline.or_else(|| arguments.next_if(|next| !next.starts_with("--"))) {
                Some(value) => {
                    settings.given.insert(flag.name, (Source::Flag, value));
                }
                None => {
                    let message = format!("--{name}: a value is missing; give --{name} {}", flag.value);
                    settings.problems.push(message);
                }
            },
        }
    }
    Scan::Settings(settings)
}

fn read_variables(settings: &mut Settings, variables: impl Iterator<Item = (String, String)>) {
    let names: Vec<String> = settings.flags.iter().map(Flag::variable).collect();
    for (name, value) in variables {
        if !name.starts_with("PLAZA_") || value.is_empty() {
            continue;
        }
        if let Some(index) = names.iter().position(|known| *known == name) {
            settings.given.insert(settings.flags[index].name, (Source::Variable, value));
        } else if !is_service_link(&name) {
            let hint = nearest(&name, names.iter().map(String::as_str));
            let hint = hint.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            settings.warnings.push(format!("{name}: no setting of {} has this name{hint}", settings.program));
        }
    }
}

/// Whether a variable is one of those that Kubernetes sets in every pod for each Service, such as
/// `PLAZA_EDGE_SERVICE_HOST` and `PLAZA_EDGE_PORT_5000_TCP_ADDR`.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

/// The known name that takes the fewest edits, if those are few enough to be a slip.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.len() / 4).clamp(1, 3);
    let near = known.map(|other| (edits(name, other), other)).min_by_key(|(edits, _)| *edits)?;
    (near.0 <= most).then_some(near.1)
}

/// Levenshtein's distance in bytes.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
