//! `[access_log]`: where its lines go, and how they look. Opening a file never enters.

use std::fmt;
use std::path::{Path, PathBuf};

use super::record::Tells;
use crate::limits::ACCESS_LOG_FORMAT_BYTES_MAX;
use crate::settings::{At, Entry, Mistakes, Section, Shape, plain};

/// A checked `[access_log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub to: At<Target>,
    pub format: Format,
    pub tells: Tells,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stdout,
    /// Already with the configuration's folder in front.
    File(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stdout => f.write_str("standard output"),
            Target::File(path) => path.display().fmt(f),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    /// With at least one field.
    Text(Vec<Part>),
}

/// A piece of a text line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Literal(String),
    Field(Field),
}

/// Declares the fields, in the order in which a line in JSON has them.
macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident $name:literal),* $(,)?) => {
        /// What a line can tell.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $($(#[$doc])* $field),* }

        impl Field {
            pub const ALL: &'static [Field] = &[$(Field::$field),*];

            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Field::$field => $name),* }
            }
        }
    };
}

fields! {
    /// When the head was there.
    Time "time",
    Client "client",
    Method "method",
    Scheme "scheme",
    Host "host",
    Path "path",
    Protocol "protocol",
    Status "status",
    /// A reason of `ptth_refusals_total`, or `client_gone`.
    Fault "fault",
    FaultDetail "fault_detail",
    /// The error token of `Proxy-Status`.
    ProxyError "proxy_error",
    BytesUp "bytes_up",
    BytesDown "bytes_down",
    /// From the head to the queue, or to a link that was free.
    RouteUs "route_us",
    /// From there to the link that answered, or to the end.
    QueueUs "queue_us",
    /// From there to the response's head.
    WorkerUs "worker_us",
    /// From there to the end.
    SendUs "send_us",
    /// The sum of the four.
    TotalUs "total_us",
    Pool "pool",
    Class "class",
    /// `rule:` and its number in the pool, from 1; `header`, `clamp`, `default` or `aged`.
    ClassBy "class_by",
    Link "link",
    Worker "worker",
    WorkerId "worker_id",
    Dispatch "dispatch",
    Attempts "attempts",
    Core "core",
    Generation "generation",
    RequestId "request_id",
    Traceparent "traceparent",
    UserAgent "user_agent",
}

pub const SHAPE: Shape = Shape { name: "[access_log]", keys: &["file", "format", "query", "user_agent"] };

const FILE: &str = "\"/var/log/ptth/access.log\", or \"stdout\"";
const FORMAT: &str = "\"json\", or a line such as \"{time} {client} {method} {host} {path} {status} {total_us}\"";

/// `all` are the shapes of the whole file, `folder` is where its paths begin.
pub fn read(root: &Section, all: &[Shape], folder: &Path, mistakes: &mut Mistakes) -> Option<Rules> {
    let table = root.entry("access_log")?.table("[access_log], with single brackets", mistakes)?;
    table.check_keys(&SHAPE, all, mistakes);
    let to = table.required("file", FILE, mistakes).and_then(|entry| target(&entry, folder, mistakes));
    let format = match table.entry("format") {
        Some(entry) => format(&entry, mistakes),
        None => Some(Format::Json),
    };
    let mut flag = |key| table.entry(key).and_then(|entry| entry.flag(mistakes)).unwrap_or(false);
    let (query, user_agent) = (flag("query"), flag("user_agent"));
    let format = format?;
    // Naming a field is asking for it.
    let is_named = matches!(&format, Format::Text(parts) if parts.contains(&Part::Field(Field::UserAgent)));
    Some(Rules { to: to?, tells: Tells { query, user_agent: user_agent || is_named }, format })
}

fn target(entry: &Entry, folder: &Path, mistakes: &mut Mistakes) -> Option<At<Target>> {
    let text = entry.text(FILE, mistakes)?;
    let value = match text.value {
        "" => {
            entry.refuse("is empty", FILE, mistakes);
            return None;
        }
        "stdout" => Target::Stdout,
        path => Target::File(folder.join(path)),
    };
    Some(At { value, place: text.place })
}

fn format(entry: &Entry, mistakes: &mut Mistakes) -> Option<Format> {
    let text = entry.text(FORMAT, mistakes)?;
    if text.value == "json" {
        return Some(Format::Json);
    }
    if text.value.len() > ACCESS_LOG_FORMAT_BYTES_MAX {
        entry.refuse("is longer than 1024 bytes", FORMAT, mistakes);
        return None;
    }
    if text.value.chars().any(char::is_control) {
        entry.refuse("has control characters, and a line is one line", FORMAT, mistakes);
        return None;
    }
    let mut parts = Vec::new();
    let mut is_good = true;
    for piece in pieces(text.value) {
        match piece {
            Ok(Piece::Literal(literal)) => match parts.last_mut() {
                Some(Part::Literal(before)) => before.push_str(literal),
                _ => parts.push(Part::Literal(literal.to_owned())),
            },
            Ok(Piece::Name(name)) => match Field::ALL.iter().find(|field| field.name() == name) {
                Some(field) => parts.push(Part::Field(*field)),
                None => {
                    is_good = false;
                    let what = format!("`format` has no field `{}`", plain(name, 40));
                    let near = Field::ALL.iter().map(|field| field.name());
                    let near = near.map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
                    match near.filter(|(distance, known)| *distance <= 1 + known.len() / 4) {
                        Some((_, known)) => {
                            mistakes.error(text.place, what, format_args!("did you mean `{{{known}}}`?"))
                        }
                        None => mistakes.error(text.place, what, format_args!("known are {}", names())),
                    }
                }
            },
            Err(what) => {
                is_good = false;
                mistakes.error(text.place, what, "write {name} for a field, and {{ or }} for a brace itself");
            }
        }
    }
    if is_good && !parts.iter().any(|part| matches!(part, Part::Field(_))) {
        entry.refuse("names no field", FORMAT, mistakes);
        return None;
    }
    is_good.then_some(Format::Text(parts))
}

fn names() -> String {
    Field::ALL.iter().map(|field| field.name()).collect::<Vec<_>>().join(", ")
}

enum Piece<'t> {
    Literal(&'t str),
    Name(&'t str),
}

/// A format, cut up; an error ends it.
fn pieces(mut text: &str) -> impl Iterator<Item = Result<Piece<'_>, &'static str>> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (piece, rest) = if let Some(rest) = text.strip_prefix("{{") {
            (Ok(Piece::Literal("{")), rest)
        } else if let Some(rest) = text.strip_prefix("}}") {
            (Ok(Piece::Literal("}")), rest)
        } else if let Some(rest) = text.strip_prefix('{') {
            match rest.split_once('}') {
                Some((name, rest)) => (Ok(Piece::Name(name)), rest),
                None => (Err("`format` has a { without its }"), ""),
            }
        } else if text.starts_with('}') {
            (Err("`format` has a } without its {"), "")
        } else {
            let (literal, rest) = text.split_at(text.find(['{', '}']).unwrap_or(text.len()));
            (Ok(Piece::Literal(literal)), rest)
        };
        text = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Document;

    fn parsed(text: &str) -> Result<Rules, String> {
        let mut mistakes = Mistakes::new("edge.toml");
        let document = Document::parse(text, &mut mistakes).expect("TOML");
        let rules = read(&document.root(), &[SHAPE], Path::new("/etc/ptth"), &mut mistakes);
        if mistakes.has_errors() { Err(mistakes.to_string()) } else { Ok(rules.expect("a table without mistakes")) }
    }

    #[track_caller]
    fn check_format(format: &str, want: &[Part]) {
        let rules = parsed(&format!("[access_log]\nfile = \"a.log\"\nformat = '{format}'\n"));
        assert_eq!(rules.map(|rules| rules.format), Ok(Format::Text(want.to_vec())), "{format}");
    }

    #[test]
    fn a_format_is_fields_and_what_stands_between_them() {
        let literal = |text: &str| Part::Literal(text.into());
        check_format("{time}", &[Part::Field(Field::Time)]);
        check_format(
            "{status} \"{path}\"",
            &[Part::Field(Field::Status), literal(" \""), Part::Field(Field::Path), literal("\"")],
        );
        check_format("{{{client}}} ä", &[literal("{"), Part::Field(Field::Client), literal("} ä")]);
    }

    #[test]
    fn paths_begin_in_the_folder_of_the_file_and_a_named_field_is_told() {
        let rules = parsed("[access_log]\nfile = \"log/access\"\n").unwrap();
        assert_eq!(rules.to.value, Target::File("/etc/ptth/log/access".into()));
        assert_eq!((rules.format, rules.tells), (Format::Json, Tells { query: false, user_agent: false }));
        let rules = parsed("[access_log]\nfile = \"stdout\"\nformat = \"{user_agent}\"\nquery = true\n").unwrap();
        assert_eq!((rules.to.value, rules.tells), (Target::Stdout, Tells { query: true, user_agent: true }));
    }

    #[test]
    fn every_mistake_has_its_place_and_a_way_out() {
        for (lines, wanted) in [
            ("", "edge.toml:1:1: `file` is missing; add file = \"/var/log/ptth/access.log\""),
            ("file = \"\"", "edge.toml:2:8: `file` is empty"),
            ("file = 7", "edge.toml:2:8: `file` is an integer"),
            (
                "file = \"a\"\nfromat = \"json\"",
                "edge.toml:3:1: unknown key `fromat` in [access_log]; did you mean `format`?",
            ),
            ("file = \"a\"\nquery = \"yes\"", "edge.toml:3:9: `query` is a string; write true or false"),
            (
                "file = \"a\"\nformat = \"{tiem} {status}\"",
                "edge.toml:3:10: `format` has no field `tiem`; did you mean `{time}`?",
            ),
            (
                "file = \"a\"\nformat = \"{cookie}\"",
                "edge.toml:3:10: `format` has no field `cookie`; known are time, client",
            ),
            (
                "file = \"a\"\nformat = \"{time\"",
                "edge.toml:3:10: `format` has a { without its }; write {name} for a field",
            ),
            ("file = \"a\"\nformat = \"time}\"", "edge.toml:3:10: `format` has a } without its {"),
            ("file = \"a\"\nformat = \"jsn\"", "edge.toml:3:10: `format` names no field; write \"json\", or a line"),
            ("file = \"a\"\nformat = \"{time}\\n\"", "edge.toml:3:10: `format` has control characters"),
        ] {
            let text = format!("[access_log]\n{lines}\n");
            let told = parsed(&text).expect_err(&text);
            assert!(told.contains(wanted), "{text}\n{told}");
        }
        let long = parsed(&format!("[access_log]\nfile = \"a\"\nformat = \"{{time}}{}\"\n", "x".repeat(1024)));
        assert!(long.expect_err("too long").contains("edge.toml:3:10: `format` is longer than 1024 bytes"));
    }

    #[test]
    fn names_of_fields_are_names_in_json_and_no_two_are_the_same() {
        for (index, field) in Field::ALL.iter().enumerate() {
            assert!(field.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{field:?}");
            assert!(Field::ALL[..index].iter().all(|other| other.name() != field.name()), "{field:?} twice");
        }
    }
}
