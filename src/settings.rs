//! A configuration file as text: its keys with their places, and every mistake in it as one line. What a key means
//! never enters.
//!
//! A derived serde reader stops at the first wrong key. This one walks the spanned table of the `toml` crate, so that
//! one run names every mistake, each with its line and column.

use crate::limits;
use std::fmt::{self, Display, Write as _};
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a value stands. Lines and columns count from 1; a column is a character, not a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    Line {
        line: u32,
        column: u32,
    },
    /// An argument of the command line.
    Flag(&'static str),
}

impl Place {
    /// What is missing from a file is reported at its beginning.
    pub const TOP: Place = Place::Line { line: 1, column: 1 };
}

/// A value and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The program does not start with this.
    Error,
    /// The program starts, and says this first.
    Warning,
}

/// One mistake, shown as `file:line:column: what is wrong; how to mend it`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub place: Place,
    pub weight: Weight,
    pub text: String,
}

/// All mistakes of one file, in the order of the file. `Display` shows one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    file: String,
    list: Vec<Mistake>,
}

impl Mistakes {
    /// `file` is the name that the lines begin with.
    #[must_use]
    pub fn new(file: &str) -> Mistakes {
        Mistakes { file: plain(file, 4096), list: Vec::new() }
    }

    pub fn error(&mut self, place: Place, what: impl Display, mend: impl Display) {
        self.push(place, Weight::Error, format!("{what}; {mend}"));
    }

    pub fn warning(&mut self, place: Place, what: impl Display, mend: impl Display) {
        self.push(place, Weight::Warning, format!("{what}; {mend}"));
    }

    fn push(&mut self, place: Place, weight: Weight, text: String) {
        let mistake = Mistake { place, weight, text };
        if self.list.contains(&mistake) {
            return; // of a key that several tables inherit
        }
        let index = self.list.partition_point(|m| m.place <= place); // two mistakes of one place stay in order
        self.list.insert(index, mistake);
    }

    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|m| m.weight == Weight::Error)
    }

    #[must_use]
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }

    /// One line for each mistake, without line ends.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.list.iter().map(|m| {
            let warning = if m.weight == Weight::Warning { "warning: " } else { "" };
            match m.place {
                Place::File => format!("{}: {warning}{}", self.file, m.text),
                Place::Line { line, column } => format!("{}:{line}:{column}: {warning}{}", self.file, m.text),
                Place::Flag(flag) => format!("{flag}: {warning}{}", m.text),
            }
        })
    }
}

impl Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

/// What a table may hold, as a user writes it.
pub struct Shape {
    /// As in the file: `[edge]`, `[[pool]]`.
    pub name: &'static str,
    pub keys: &'static [&'static str],
}

/// Reads a file of at most `limits::CONFIG_BYTES_MAX`.
///
/// # Errors
/// When it cannot be read, is too large or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Mistakes> {
    let mut mistakes = Mistakes::new(&path.display().to_string());
    let bytes = match read_bounded(path, limits::CONFIG_BYTES_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            mistakes.error(Place::File, "larger than 1 MiB", "a configuration file is much smaller, check the path");
            return Err(mistakes);
        }
        Err(error) => {
            mistakes.error(Place::File, format_args!("cannot be read: {}", io_reason(&error)), "check the path");
            return Err(mistakes);
        }
    };
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        let place = Lines::of(&before).place(&before, before.len());
        mistakes.error(place, "this byte is not UTF-8", "save the file as UTF-8");
        mistakes
    })
}

/// The whole file, or `None` when it is larger than `bytes_max`.
///
/// # Errors
/// Those of opening and reading.
pub fn read_bounded(path: &Path, bytes_max: usize) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= bytes_max).then_some(bytes))
}

/// An I/O error in words, without "(os error 2)".
#[must_use]
pub fn io_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// A file whose TOML is in order.
pub struct Document<'d> {
    text: &'d str,
    lines: Lines,
    root: DeTable<'d>,
}

impl<'d> Document<'d> {
    /// `None`, and a mistake, when the TOML itself is wrong.
    #[must_use]
    pub fn parse(text: &'d str, mistakes: &mut Mistakes) -> Option<Document<'d>> {
        let lines = Lines::of(text);
        match DeTable::parse(text) {
            Ok(root) => Some(Document { text, lines, root: root.into_inner() }),
            Err(error) => {
                let place = error.span().map_or(Place::TOP, |span| lines.place(text, span.start));
                let what = plain(&error.message().replace('\n', ", "), 200);
                mistakes.error(
                    place,
                    format_args!("not TOML: {what}"),
                    "mend this line, or look at https://toml.io for the notation",
                );
                None
            }
        }
    }

    #[must_use]
    pub fn root(&self) -> Section<'_> {
        Section { document: self, table: &self.root, place: Place::TOP }
    }

    fn place(&self, span: &Range<usize>) -> Place {
        self.lines.place(self.text, span.start)
    }
}

/// One table of the file.
#[derive(Clone, Copy)]
pub struct Section<'d> {
    document: &'d Document<'d>,
    table: &'d DeTable<'d>,
    pub place: Place,
}

impl<'d> Section<'d> {
    /// Reports every key that is not in `shape`. `all` are the shapes of the whole file: a key that is at home in
    /// another table is sent there.
    pub fn check_keys(&self, shape: &Shape, all: &[Shape], mistakes: &mut Mistakes) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if shape.keys.contains(&name) {
                continue;
            }
            let place = self.document.place(&key.span());
            let shown = plain(name, 60);
            let near = shape.keys.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
            let homes: Vec<_> = all.iter().filter(|s| s.keys.contains(&name)).map(|s| s.name).collect();
            let what = format!("unknown key `{shown}` in {}", shape.name);
            match near {
                // `paths` where `path` is known: a slip is as likely as a wrong table.
                Some((1, known)) if !homes.is_empty() => {
                    let homes = homes.join(" or ");
                    mistakes.error(place, what, format_args!("did you mean `{known}`? `{shown}` belongs in {homes}"));
                }
                _ if !homes.is_empty() => {
                    mistakes.error(place, what, format_args!("it belongs in {}", homes.join(" or ")));
                }
                Some((distance, known)) if distance <= 1 + known.len() / 4 => {
                    mistakes.error(place, what, format_args!("did you mean `{known}`?"));
                }
                _ => mistakes.error(place, what, format_args!("known are {}", shape.keys.join(", "))),
            }
        }
    }

    #[must_use]
    pub fn entry(&self, key: &'static str) -> Option<Entry<'d>> {
        self.table.get(key).map(|value| Entry { document: self.document, key, value })
    }

    pub fn keys(&self) -> impl Iterator<Item = &'d str> + use<'d> {
        self.table.keys().map(|key| key.get_ref().as_ref())
    }

    /// Every key with its place and its value, in the order of the file, of a table whose keys are the user's own. Each
    /// entry names `key`.
    #[must_use]
    pub fn members(&self, key: &'static str) -> Vec<(At<&'d str>, Entry<'d>)> {
        let document = self.document;
        let mut members = Vec::with_capacity(self.table.len());
        for (name, value) in self.table {
            let place = document.place(&name.span());
            let name: &'d str = name.get_ref();
            members.push((At { value: name, place }, Entry { document, key, value }));
        }
        members.sort_by_key(|(name, _)| name.place);
        members
    }

    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The entry, or a mistake at the table's head with a line to copy.
    pub fn required(&self, key: &'static str, example: &str, mistakes: &mut Mistakes) -> Option<Entry<'d>> {
        let entry = self.entry(key);
        if entry.is_none() {
            mistakes.error(self.place, format_args!("`{key}` is missing"), format_args!("add {key} = {example}"));
        }
        entry
    }
}

/// One key of a table with its value. Each reader reports a wrong type or a value out of its range, and gives `None`.
/// `example` is a right value as it stands in the file.
#[derive(Clone, Copy)]
pub struct Entry<'d> {
    document: &'d Document<'d>,
    key: &'static str,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Entry<'d> {
    /// Where the value begins.
    #[must_use]
    pub fn place(&self) -> Place {
        self.document.place(&self.value.span())
    }

    #[must_use]
    pub fn value(&self) -> &'d DeValue<'d> {
        self.value.get_ref()
    }

    pub fn text(&self, example: &str, mistakes: &mut Mistakes) -> Option<At<&'d str>> {
        match self.value() {
            DeValue::String(text) => Some(At { value: text, place: self.place() }),
            _ => self.wrong_type(example, mistakes),
        }
    }

    /// A list of strings that is not empty.
    pub fn texts(&self, example: &str, mistakes: &mut Mistakes) -> Option<Vec<At<&'d str>>> {
        let DeValue::Array(items) = self.value() else {
            return self.wrong_type(example, mistakes);
        };
        if items.is_empty() {
            self.refuse("is empty", example, mistakes);
            return None;
        }
        let mut texts = Vec::with_capacity(items.len());
        for item in self.items() {
            texts.push(item.text(example, mistakes));
        }
        texts.into_iter().collect()
    }

    /// A string, or a list of strings that is not empty.
    pub fn one_or_more(&self, example: &str, mistakes: &mut Mistakes) -> Option<Vec<At<&'d str>>> {
        match self.value() {
            DeValue::String(_) => self.text(example, mistakes).map(|text| vec![text]),
            _ => self.texts(example, mistakes),
        }
    }

    /// The elements of a list; nothing for any other type.
    pub fn items(&self) -> impl Iterator<Item = Entry<'d>> + use<'d> {
        let Entry { document, key, value } = *self;
        let items: &'d [_] = match value.get_ref() {
            DeValue::Array(items) => items,
            _ => &[],
        };
        items.iter().map(move |value| Entry { document, key, value })
    }

    pub fn flag(&self, mistakes: &mut Mistakes) -> Option<bool> {
        match self.value() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.wrong_type("true or false", mistakes),
        }
    }

    pub fn number(&self, range: RangeInclusive<u64>, example: &str, mistakes: &mut Mistakes) -> Option<u64> {
        let DeValue::Integer(integer) = self.value() else {
            return self.wrong_type(example, mistakes);
        };
        // An integer that TOML allows and u64 does not is out of every range we have.
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let what = format!("`{}` is {}", self.key, plain(&integer.to_string(), 40));
                let mend = format!("write a number from {} to {}", range.start(), range.end());
                mistakes.error(self.place(), what, mend);
                None
            }
        }
    }

    /// Milliseconds of a duration such as "30s".
    pub fn duration_ms(&self, range: RangeInclusive<u64>, example: &str, mistakes: &mut Mistakes) -> Option<u64> {
        let text = self.text(example, mistakes)?;
        match parse_duration_ms(text.value) {
            Ok(ms) if range.contains(&ms) => Some(ms),
            Ok(_) => {
                let (from, to) = (show_ms(*range.start()), show_ms(*range.end()));
                let what = format!("`{}` is \"{}\"", self.key, plain(text.value, 40));
                mistakes.error(text.place, what, format_args!("write a duration from \"{from}\" to \"{to}\""));
                None
            }
            Err(reason) => {
                self.refuse(reason, example, mistakes);
                None
            }
        }
    }

    /// Bytes of a size such as "64MiB".
    pub fn size_bytes(&self, range: RangeInclusive<u64>, example: &str, mistakes: &mut Mistakes) -> Option<u64> {
        let text = self.text(example, mistakes)?;
        match parse_size_bytes(text.value) {
            Ok(bytes) if range.contains(&bytes) => Some(bytes),
            Ok(_) => {
                let (from, to) = (show_bytes(*range.start()), show_bytes(*range.end()));
                let what = format!("`{}` is \"{}\"", self.key, plain(text.value, 40));
                mistakes.error(text.place, what, format_args!("write a size from \"{from}\" to \"{to}\""));
                None
            }
            Err(reason) => {
                self.refuse(reason, example, mistakes);
                None
            }
        }
    }

    /// A table that stands once: `[edge]`, `queue = { … }`.
    pub fn table(&self, example: &str, mistakes: &mut Mistakes) -> Option<Section<'d>> {
        match self.value() {
            DeValue::Table(table) => Some(Section { document: self.document, table, place: self.place() }),
            _ => self.wrong_type(example, mistakes),
        }
    }

    /// Tables that repeat. `name` is how one begins: `[[pool]]`.
    pub fn tables(&self, name: &str, mistakes: &mut Mistakes) -> Vec<Section<'d>> {
        let example = format!("{name}, with double brackets");
        if !matches!(self.value(), DeValue::Array(_)) {
            return self.wrong_type::<Vec<_>>(&example, mistakes).unwrap_or_default();
        }
        self.items().filter_map(|item| item.table(&example, mistakes)).collect()
    }

    /// Reports that the value is wrong: `reason` continues "`key` …".
    pub fn refuse(&self, reason: impl Display, example: &str, mistakes: &mut Mistakes) {
        mistakes.error(self.place(), format_args!("`{}` {reason}", self.key), format_args!("write {example}"));
    }

    fn wrong_type<T>(&self, example: &str, mistakes: &mut Mistakes) -> Option<T> {
        let is = match self.value() {
            DeValue::String(_) => "is a string",
            DeValue::Integer(_) => "is an integer",
            DeValue::Float(_) => "is a float",
            DeValue::Boolean(_) => "is true or false",
            DeValue::Datetime(_) => "is a date",
            DeValue::Array(_) => "is a list",
            DeValue::Table(_) => "is a table",
        };
        self.refuse(is, example, mistakes);
        None
    }
}

/// `100ms`, `30s`, `5m`, `1h`: a whole number and its unit.
///
/// # Errors
/// Continues "`key` …".
pub fn parse_duration_ms(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = number_and_unit(text).ok_or("is not a whole number with a unit (ms, s, m, h)")?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err("has no unit (ms, s, m, h)"),
        _ => return Err("has an unknown unit, known are ms, s, m, h"),
    };
    number.checked_mul(unit_ms).ok_or("is too long")
}

/// `512B`, `16KiB`, `64MiB`, `2GiB`: a whole number and its unit.
///
/// # Errors
/// Continues "`key` …".
pub fn parse_size_bytes(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = number_and_unit(text).ok_or("is not a whole number with a unit (B, KiB, MiB, GiB)")?;
    let unit_bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => return Err("has no unit (B, KiB, MiB, GiB)"),
        _ => return Err("has an unknown unit, known are B, KiB, MiB, GiB"),
    };
    number.checked_mul(unit_bytes).ok_or("is too large")
}

/// The digits and what follows them; `None` without digits, or with more than 18 of them.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if !(1..=18).contains(&digits.len()) || unit.starts_with('.') {
        return None;
    }
    Some((digits.parse().ok()?, unit))
}

fn show_ms(ms: u64) -> String {
    match ms {
        0 => "0s".into(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

fn show_bytes(bytes: u64) -> String {
    match bytes {
        0 => "0B".into(),
        b if b % (1 << 30) == 0 => format!("{}GiB", b >> 30),
        b if b % (1 << 20) == 0 => format!("{}MiB", b >> 20),
        b if b % (1 << 10) == 0 => format!("{}KiB", b >> 10),
        b => format!("{b}B"),
    }
}

/// Text from outside on one line of a message: control characters escaped, cut after `chars_max`.
#[must_use]
pub fn plain(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == chars_max {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Where each line of a text begins.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Lines {
        let after_ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(index, _)| index + 1);
        Lines { starts: std::iter::once(0).chain(after_ends).collect() }
    }

    fn place(&self, text: &str, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let column = text.get(self.starts[line - 1]..offset).map_or(0, |before| before.chars().count()) + 1;
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Place::Line { line: count(line), column: count(column) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        for (text, want) in [
            ("0s", Some(0)),
            ("100ms", Some(100)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("", None),
            ("30", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1h30m", None),
            ("30 s", None),
            ("30S", None),
            ("999999999999999999h", None),
            ("99999999999999999999ms", None),
        ] {
            assert_eq!(parse_duration_ms(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn a_size_is_a_whole_number_with_a_unit() {
        for (text, want) in [
            ("0B", Some(0)),
            ("512B", Some(512)),
            ("16KiB", Some(16 << 10)),
            ("64MiB", Some(64 << 20)),
            ("2GiB", Some(2 << 30)),
            ("64", None),
            ("64MB", None),
            ("64mib", None),
            ("1.5GiB", None),
            ("MiB", None),
            ("999999999999999999GiB", None),
        ] {
            assert_eq!(parse_size_bytes(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn a_place_counts_characters_and_lines_from_one() {
        let text = "äb\nc\r\n";
        let lines = Lines::of(text);
        for (offset, line, column) in [(0, 1, 1), (2, 1, 2), (3, 1, 3), (4, 2, 1), (5, 2, 2), (7, 3, 1)] {
            assert_eq!(lines.place(text, offset), Place::Line { line, column }, "offset {offset}");
        }
    }
}
