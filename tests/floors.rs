//! The house rules that a machine can check, on the text of `src/`: who imports whom, where monoio, atomics, `await` and
//! `unsafe` stand, what a hot file leaves out, that every bound has its reason. Each check is first shown that it can fail.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

// ---- the plan of the house ----

/// Lowest floor first. A room imports from the floors below; its neighbours on the same floor are closed to it, except
/// on the ground, where it may look at the rooms to its left.
const FLOORS: &[&[&str]] = &[
    &["limits", "ids", "clock", "fault", "events", "settings", "pem", "signals"],
    &["io", "sched", "wire", "xcore"],
    &["dispatch", "exchange"],
    &["client", "link"],
    &["edge", "worker", "translation"],
    &["cli"],
    &["demo"],
];

/// Rooms that may wait. Everything below them is called, and returns.
const MAY_AWAIT: &[&str] = &["io", "exchange", "client", "link", "edge", "worker", "demo"];

/// The one room that names the runtime.
const NAMES_MONOIO: &str = "io";

/// The one room where two cores meet.
const HAS_ATOMICS: &str = "xcore";

/// The one file with `unsafe`, beside the one call to the allocator.
const HAS_UNSAFE: [&str; 2] = ["io/socket.rs", "main.rs"];

/// What a file that begins with `//! Hot.` leaves out: allocation, logs, locks, dynamic calls.
const NOT_HOT: &[&str] = &[
    "format!",
    "dyn",
    "println!",
    "eprintln!",
    "print!",
    "tracing::",
    "Mutex",
    "RwLock",
    ".to_string()",
    ".to_owned()",
    "String::from",
    "vec!",
];

// ---- the checks, each over one file ----

/// One source file, its path below `src/`.
struct File {
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    /// `edge` for `edge/core.rs`, `clock` for `clock.rs`. `main.rs` and `lib.rs` are the roof.
    fn room(&self) -> Option<&str> {
        let room = self.path.split(['/', '.']).next().unwrap_or_default();
        (!matches!(room, "main" | "lib")).then_some(room)
    }
}

/// Where a room stands: its floor, and its place on it.
fn place_of(room: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, rooms)| Some((floor, rooms.iter().position(|&name| name == room)?)))
}

fn may_import(from: &str, to: &str) -> bool {
    match (place_of(from), place_of(to)) {
        _ if from == to => true,
        (Some((0, left)), Some((0, right))) => right < left,
        (Some((from, _)), Some((to, _))) => to < from,
        _ => false,
    }
}

/// Imports that go up or sideways.
fn wrong_imports(file: &File) -> Vec<String> {
    let Some(room) = file.room() else { return Vec::new() };
    if place_of(room).is_none() {
        return vec![format!("{}: `{room}` is on no floor; add it to FLOORS and to ARCHITECTURE.md", file.path)];
    }
    let code = code_of(&file.text);
    let wrong = imports(&code).into_iter().filter(|(_, to)| !may_import(room, to));
    wrong.map(|(line, to)| format!("{}:{line}: `{room}` must not import `{to}`", file.path)).collect()
}

/// Words outside the one room that may have them.
fn outside(file: &File, words: &[&str], allowed: impl Fn(&File) -> bool, what: &str) -> Vec<String> {
    if allowed(file) {
        return Vec::new();
    }
    let code = without_tests(&code_of(&file.text));
    let found = words.iter().flat_map(|word| lines_with(&code, word));
    found.map(|line| format!("{}:{line}: {what}", file.path)).collect()
}

fn strays(file: &File) -> Vec<String> {
    let in_room = |name: &'static str| move |file: &File| file.room() == Some(name);
    let may_await = |file: &File| file.room().is_some_and(|room| MAY_AWAIT.contains(&room));
    let mut found = outside(file, &["monoio"], in_room(NAMES_MONOIO), "only `io` names monoio");
    found.extend(outside(file, &["async", "await"], may_await, "this room is called and returns; it never awaits"));
    found.extend(outside(file, &["atomic"], in_room(HAS_ATOMICS), "atomics stand in `xcore`, where loom walks them"));
    found.extend(outside(
        file,
        &["unsafe"],
        |file| HAS_UNSAFE.contains(&&*file.path),
        "`unsafe` stands in io/socket.rs and main.rs only",
    ));
    found
}

/// Slow words in a file that promised to be hot. `#[cold]` exits and tests are not looked at.
fn slow_words(file: &File) -> Vec<String> {
    if !file.text.starts_with("//! Hot.") {
        return Vec::new();
    }
    let code = without(&without_tests(&code_of(&file.text)), "#[cold]");
    let found = NOT_HOT.iter().flat_map(|word| lines_with(&code, word).into_iter().map(move |line| (line, word)));
    found.map(|(line, word)| format!("{}:{line}: `{word}` in a hot file", file.path)).collect()
}

/// Bounds without a reason: a `pub const` has a doc comment, or stands directly under one that shares its own.
fn bare_bounds(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let mut has_reason = false;
    for (index, line) in file.text.lines().enumerate() {
        if line.starts_with("pub const ") {
            if !has_reason {
                found.push(format!("{}:{}: a bound without a reason", file.path, index + 1));
            }
        } else if !line.starts_with("    ") {
            has_reason = line.starts_with("/// ");
        }
    }
    found
}

/// A file is a room, and its first line says what it owns.
fn nameless(file: &File) -> Vec<String> {
    if file.text.starts_with("//! ") || file.text.trim().is_empty() {
        return Vec::new();
    }
    vec![format!("{}: its first line does not say what it owns", file.path)]
}

// ---- reading Rust, as far as it is needed ----

/// The text with comments, strings and characters blanked out; every line stays where it was.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => at + line_len(&bytes[at..]),
            b'/' if bytes[at..].starts_with(b"/*") => at + block_comment_len(&bytes[at..]),
            b'"' => at + string_len(&bytes[at..]),
            b'r' if !is_word_byte(before(bytes, at)) => at + raw_string_len(&bytes[at..]),
            b'b' if bytes[at..].starts_with(b"br") && !is_word_byte(before(bytes, at)) => {
                let len = raw_string_len(&bytes[at + 1..]);
                at + if len == 0 { 0 } else { len + 1 }
            }
            b'\'' => at + char_len(&bytes[at..]),
            _ => at,
        };
        if end == at {
            let len = text[at..].chars().next().map_or(1, char::len_utf8);
            out.push_str(&text[at..at + len]);
            at += len;
        } else {
            blank(&mut out, &text[at..end]);
            at = end;
        }
    }
    out
}

fn blank(out: &mut String, text: &str) {
    out.extend(text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
}

fn before(bytes: &[u8], at: usize) -> u8 {
    if at == 0 { b' ' } else { bytes[at - 1] }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len())
}

fn block_comment_len(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// 0 where none begins.
fn raw_string_len(bytes: &[u8]) -> usize {
    let hashes = bytes[1..].iter().take_while(|&&byte| byte == b'#').count();
    if bytes.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = &bytes[2 + hashes..];
    let body_len = body.windows(end.len()).position(|window| window == end).unwrap_or(body.len());
    (2 + hashes + body_len + end.len()).min(bytes.len())
}

/// 0 for a lifetime.
fn char_len(bytes: &[u8]) -> usize {
    match bytes.get(1) {
        Some(b'\\') => 3 + bytes[3..].iter().position(|&byte| byte == b'\'').map_or(0, |len| len + 1),
        Some(_) => {
            // One character, of any number of bytes, then the quote; else it was a lifetime.
            let end = bytes.iter().take(6).skip(2).position(|&byte| byte == b'\'').map(|at| at + 3);
            let one = |end: &usize| std::str::from_utf8(&bytes[1..end - 1]).is_ok_and(|text| text.chars().count() == 1);
            end.filter(one).unwrap_or(0)
        }
        None => 0,
    }
}

/// Lines on which `needle` stands as a whole word (where it begins or ends with a letter).
fn lines_with(code: &str, needle: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let is_word = |byte: Option<&u8>| byte.is_some_and(|&byte| is_word_byte(byte));
    let joins = |left: Option<&u8>, right: Option<&u8>| is_word(left) && is_word(right);
    let is_whole = |&(at, word): &(usize, &str)| {
        let (left, right) = (at.checked_sub(1).map(|left| &bytes[left]), bytes.get(at + word.len()));
        !joins(left, word.as_bytes().first()) && !joins(word.as_bytes().last(), right)
    };
    code.match_indices(needle).filter(is_whole).map(|(at, _)| line_of(code, at)).collect()
}

fn line_of(code: &str, at: usize) -> usize {
    1 + code[..at].bytes().filter(|&byte| byte == b'\n').count()
}

/// Every room that `crate::…` and `super::super::…` name, with its line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, root) in code.match_indices("crate::") {
        if !is_word_byte(before(code.as_bytes(), at)) {
            let line = line_of(code, at);
            let names = names_at(&code[at + root.len()..]);
            found.extend(names.into_iter().map(|name| (line, name)));
        }
    }
    // From a file directly in a room, two steps up is the crate; deeper files do not exist.
    for (at, root) in code.match_indices("super::super::") {
        let names = names_at(&code[at + root.len()..]);
        let rooms = names.into_iter().filter(|name| place_of(name).is_some());
        found.extend(rooms.map(|name| (line_of(code, at), name)));
    }
    found
}

/// The first name, or the first names inside the braces.
fn names_at(code: &str) -> Vec<String> {
    let code = code.trim_start();
    let word = |code: &str| code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = code.strip_prefix('{') else { return vec![word(code)] };
    let mut names = Vec::new();
    let (mut depth, mut begins) = (1, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => begins = depth == 1,
            c if begins && depth == 1 && !c.is_whitespace() => {
                names.push(word(&group[at..]));
                begins = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn without_tests(code: &str) -> String {
    without(&without(code, "#[cfg(test)]"), "#[cfg(all(test")
}

/// Blanks each item under an attribute that begins so: to the end of its block, or to its semicolon.
fn without(code: &str, attribute: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(attribute) {
        let (kept, item) = rest.split_at(at);
        out.push_str(kept);
        let (item, after) = item.split_at(item_len(item));
        blank(&mut out, item);
        rest = after;
    }
    out + rest
}

fn item_len(code: &str) -> usize {
    let (mut depth, mut in_block) = (0, false);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' => {
                in_block |= depth == 0;
                depth += 1;
            }
            '}' => {
                depth -= 1;
                if in_block && depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

// ---- over the whole house ----

fn files() -> Vec<File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    read_into(&src, &src, &mut files);
    assert!(files.len() > 40, "the house has more rooms than {}", files.len());
    files
}

fn read_into(src: &Path, directory: &Path, files: &mut Vec<File>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read_into(src, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(src).unwrap().display().to_string();
            files.push(File { path: name, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

#[track_caller]
fn check_all(check: impl Fn(&File) -> Vec<String>) {
    let found: Vec<String> = files().iter().flat_map(check).collect();
    let mut text = String::new();
    for line in &found {
        let _ = writeln!(text, "  src/{line}");
    }
    assert!(found.is_empty(), "{} places:\n{text}", found.len());
}

#[test]
fn imports_go_down() {
    check_all(wrong_imports);
}

#[test]
fn monoio_atomics_await_and_unsafe_stay_in_their_rooms() {
    check_all(strays);
}

#[test]
fn hot_files_are_free_of_slow_words() {
    assert!(files().iter().any(|file| file.text.starts_with("//! Hot.")));
    check_all(slow_words);
}

#[test]
fn every_bound_has_its_reason() {
    let limits = files().into_iter().find(|file| file.path == "limits.rs").expect("limits.rs");
    assert!(limits.text.matches("\npub const ").count() > 50, "the bounds are not where this test looks");
    assert_eq!(bare_bounds(&limits), Vec::<String>::new());
}

#[test]
fn every_file_says_what_it_owns() {
    check_all(nameless);
}

#[test]
fn every_room_of_the_plan_is_real() {
    let files = files();
    for room in FLOORS.iter().copied().flatten() {
        assert!(files.iter().any(|file| file.room() == Some(*room)), "there is no room `{room}`");
    }
}

// ---- each check can fail ----

#[track_caller]
fn check(found: &[String], want: &[&str]) {
    assert_eq!(found.len(), want.len(), "{found:#?}");
    for (found, want) in found.iter().zip(want) {
        assert!(found.contains(want), "{found:?} says nothing of {want:?}");
    }
}

#[test]
fn an_import_upwards_or_sideways_is_found() {
    let imports_of = |path, text| wrong_imports(&File::new(path, text));
    check(&imports_of("wire/head.rs", "use crate::fault::Fault;\nuse crate::sched::Needs;"), &["wire/head.rs:2"]);
    check(&imports_of("xcore/bell.rs", "fn f() { crate::io::run(); }"), &["`xcore` must not import `io`"]);
    check(&imports_of("io/run.rs", "use crate::{clock, wire::{self, Head}, limits};"), &["`wire`"]);
    check(&imports_of("client/h1.rs", "use crate::link::h1::H1Back;"), &["`link`"]);
    check(&imports_of("link/h1.rs", "use crate::client;"), &["`client`"]);
    check(&imports_of("edge/mod.rs", "use crate::worker::Worker;"), &["`worker`"]);
    check(&imports_of("worker/mod.rs", "use super::super::edge::Edge;"), &["`edge`"]);
    check(&imports_of("fault.rs", "use crate::events::Counters;"), &["`events`"]);
    check(&imports_of("exchange/carry.rs", "use\n  crate::{\n edge::Edge };"), &["carry.rs:2: `exchange`"]);
    check(&imports_of("edge/mod.rs", "use crate::cli;"), &["`cli`"]);
    check(&imports_of("attic/mod.rs", ""), &["is on no floor"]);
    check(&imports_of("edge/mod.rs", "use crate::wire::{client, link};\n// crate::worker\n\"crate::worker\";"), &[]);
    check(&imports_of("events.rs", "use crate::fault::Fault;"), &[]);
    check(&imports_of("main.rs", "use crate::anything;"), &[]);
}

#[test]
fn a_stray_word_is_found() {
    let strays_of = |path, text| strays(&File::new(path, text));
    check(&strays_of("edge/mod.rs", "monoio::spawn(x);"), &["only `io` names monoio"]);
    check(&strays_of("wire/mod.rs", "\npub async fn f() {}"), &["wire/mod.rs:2"]);
    check(&strays_of("sched/mod.rs", "x.await"), &["never awaits"]);
    check(&strays_of("client/h1.rs", "use std::sync::atomic::AtomicU8;"), &["stand in `xcore`"]);
    check(&strays_of("io/read.rs", "unsafe { x }"), &["`unsafe`"]);
    check(&strays_of("io/socket.rs", "unsafe { monoio::x().await }"), &[]);
    check(&strays_of("wire/mod.rs", "#![forbid(unsafe_code)]\nfn awaits() {} // async\n"), &[]);
    check(&strays_of("wire/mod.rs", "#[cfg(test)]\nmod tests {\n use std::sync::atomic::X;\n}\n"), &[]);
    check(&strays_of("wire/mod.rs", "#[cfg(test)]\nmod tests;\nasync fn f() {}\n"), &["wire/mod.rs:3"]);
}

#[test]
fn a_slow_word_in_a_hot_file_is_found() {
    let slow_in = |text| slow_words(&File::new("wire/body.rs", text));
    check(&slow_in("//! Hot. A body.\nfn f() { format!(\"\"); }"), &["body.rs:2: `format!`"]);
    check(&slow_in("//! Hot.\nfn f(x: Box<dyn Fn()>) {}"), &["`dyn`"]);
    check(&slow_in("//! Hot.\nfn f() { x.to_string() }\nstatic M: Mutex<u8>;"), &["`Mutex`", "`.to_string()`"]);
    check(&slow_in("//! Cool.\nfn f() { format!(\"\"); }"), &[]);
    check(&slow_in("//! Hot.\n#[cold]\n#[inline(never)]\nfn f(x: [u8; 3]) { format!(\"}\"); }\nfn g() {}"), &[]);
    check(&slow_in("//! Hot.\n#[cold]\nfn f() {}\nfn g() { String::from(x) }"), &["body.rs:4"]);
    check(&slow_in("//! Hot.\nfn f() { debug_assert!(x, \"format! and Mutex\"); } // dyn"), &[]);
    check(&slow_in("//! Hot.\n#[cfg(all(test, not(loom)))]\nmod tests { fn f() { vec![1] } }"), &[]);
}

#[test]
fn a_bound_without_a_reason_is_found() {
    let bare_in = |text| bare_bounds(&File::new("limits.rs", text));
    check(&bare_in("pub const A: u8 = 1;"), &["limits.rs:1"]);
    check(&bare_in("/// Why.\npub const A: u8 = 1;\npub const B: u8 = 2;\n\npub const C: u8 = 3;"), &["limits.rs:5"]);
    check(&bare_in("// ---- a section ----\n\npub const A: u8 = 1;"), &["limits.rs:3"]);
    check(&bare_in("/// Why.\npub const A: u8 =\n    1;\npub const B: u8 = 2;"), &[]);
}

#[test]
fn a_file_that_does_not_say_what_it_owns_is_found() {
    check(&nameless(&File::new("ids.rs", "use std::fmt;\n")), &["ids.rs"]);
    check(&nameless(&File::new("ids.rs", "//! Names of things.\n")), &[]);
}

#[test]
fn comments_strings_and_characters_are_not_code() {
    let check =
        |text: &str, want: &str| assert_eq!(code_of(text).split_whitespace().collect::<Vec<_>>().join(" "), want);
    check("a // b\nc", "a c");
    check("a /* b /* c */ d */ e", "a e");
    check(r#"a("b \" c", d)"#, "a( , d)");
    check(r##"a(r#"b " c"#, br"x", r"y")"##, "a( , , )");
    check("for r in b { br }", "for r in b { br }");
    check("f('\"', '\\'', '\\u{1F600}', 'ß') g", "f( , , , ) g");
    check("fn f<'a>(x: &'a str) -> &'a str {}", "fn f<'a>(x: &'a str) -> &'a str {}");
}
