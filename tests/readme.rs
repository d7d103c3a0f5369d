//! What README.md and docs/ say is so: every command in them is run by a machine, every configuration file is checked by the
//! program, and every link leads somewhere. A `sh` block says who runs it: `ci` is a line of `.ci/run` itself, `once` and
//! `stays` are run in their order on loopback by tests/interop/readme.py, which `.ci/run` calls. A `toml` block says which
//! program it is for; a `fragment` is completed here. The keys of docs/configuration.md are tests/config_docs.rs's.

mod pages;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a fragment of an `edge.toml` lacks.
const PREAMBLE: &[(&str, &str)] = &[
    ("[[listen]]", "[[listen]]\naddress = \"127.0.0.1:8080\"\naccept = [\"clients\", \"workers\"]\n"),
    ("[[pool]]", "[[pool]]\nname = \"app\"\norigins = [\"app.example.com\"]\n"),
    (
        "[[credential]]",
        "[[credential]]\nid = \"web-1\"\norigins = [\"app.example.com\"]\n\
         secret_hash = \"sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"\n",
    ),
];
/// What a fragment of a `worker.toml` lacks.
const WORKER_PREAMBLE: &[(&str, &str)] = &[
    ("edges", "edges = [\"http://127.0.0.1:8080\"]\n"),
    ("serve", "serve = [\"http://app.example.com\"]\n"),
    ("to", "to = \"http://127.0.0.1:3000\"\n"),
    ("credential_file", "credential_file = \"web-1.secret\"\n"),
];

/// A folder with everything that the pages' configurations name; gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ptth-readme-{}-{number}", std::process::id()));
        std::fs::create_dir_all(folder.join("credentials")).expect("a temporary folder");
        Folder(folder)
    }

    /// The files whose names stand between quotation marks in a configuration.
    fn files_of(&self, text: &str) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        for name in text.split('"').skip(1).step_by(2) {
            let content = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
                Some("pem") => own.cert.pem(),
                Some("key") => own.signing_key.serialize_pem(),
                Some("secret") => "web-1:secret\n".to_owned(),
                Some("token") => "0123456789abcdef0123456789abcdef\n".to_owned(),
                Some("txt") => "web-7\n".to_owned(),
                Some("json") => include_str!("data/jwks.json").to_owned(),
                _ => continue,
            };
            std::fs::write(self.0.join(name), content).expect("a file");
        }
    }

    /// `ptth check` has nothing to say, but that the small examples have no TLS.
    #[track_caller]
    fn check(&self, what: &str, text: &str) {
        self.files_of(text);
        let file = self.0.join("config.toml");
        std::fs::write(&file, text).expect("a file");
        let done = ptth(&["check", "--config", file.to_str().expect("a path")]);
        let said = String::from_utf8_lossy(&done.stderr);
        let is_known = |line: &str| line.contains("warning: ") && line.contains(" without TLS, and ");
        assert!(done.status.success() && said.lines().all(is_known), "{what}\n{text}\n{said}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ptth(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptth"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).output().expect("the program starts")
}

#[test]
fn every_command_has_a_machine_that_runs_it() {
    let (ci, runner) = (pages::read(".ci/run"), pages::read("tests/interop/readme.py"));
    let haproxy = pages::read("tests/interop/haproxy.py");
    let run: Vec<&str> = ci.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let mut seen = (0, 0);
    for page in pages::all() {
        for block in pages::blocks(&pages::read(&page)) {
            let place = format!("{page}:{}", block.line);
            let commands = ["ptth ", "curl ", "nohup ", "kill ", "cargo "];
            let has_commands = block.lines.iter().any(|line| commands.iter().any(|word| line.starts_with(word)));
            match block.info.as_str() {
                "sh ci" => {
                    for line in block.lines {
                        assert!(run.iter().any(|runs| runs.contains(&line)), "{place}: .ci/run does not run: {line}");
                        seen.0 += 1;
                    }
                }
                "sh once" | "sh stays" => {
                    assert!(has_commands || block.lines.iter().any(|line| line.contains("ptth")), "{place}");
                    seen.1 += 1;
                }
                "toml edge" | "toml edge fragment" | "toml worker" | "toml worker fragment" => {}
                // tests/docs.rs sends and compares them.
                "http worker" | "http stream" | "http edge" | "http client" | "http answer" => {}
                "text haproxy" => assert!(haproxy.contains("```text haproxy"), "{place}"),
                // What a program prints, a unit, an example of a file of others: nothing that a shell would take.
                "text" => assert!(!has_commands, "{place}: commands that nobody runs"),
                other => panic!("{place}: who runs a block of {other:?}?"),
            }
        }
    }
    assert!(seen.0 >= 5 && seen.1 >= 4, "{seen:?}");
    assert!(ci.contains("tests/interop/") && runner.contains("sh once") && runner.contains("sh stays"));
}

/// Commands in a sentence are not run; that the program knows them, and their flags, is looked up in its own help.
#[test]
fn every_command_in_a_sentence_is_one_that_the_program_knows() {
    let mut seen = 0;
    for page in pages::all() {
        for span in pages::spans(&pages::read(&page)) {
            let Some(rest) = span.strip_prefix("ptth ") else { continue };
            let words: Vec<&str> = rest.split(' ').collect();
            // `ptth status/drain --admin ADDR` would be two commands.
            let depth = if words[0] == "credential" { 2 } else { 1 };
            let mut arguments: Vec<&str> = words.iter().copied().take(depth).collect();
            if !arguments[0].starts_with("--") {
                arguments.push("--help");
            }
            let help = ptth(&arguments);
            assert!(help.status.success(), "{page}: `{span}`");
            let help = String::from_utf8(help.stdout).expect("text");
            for flag in words.iter().skip(depth).filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap_or_default();
                assert!(help.contains(flag), "{page}: `{span}`: no {flag}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn every_configuration_of_the_pages_is_good() {
    let mut seen = 0;
    for page in pages::all() {
        for block in pages::blocks(&pages::read(&page)) {
            let text = block.lines.join("\n") + "\n";
            let missing = |preamble: &[(&str, &str)]| -> String {
                let is_there = |name: &str| block.lines.iter().any(|line| line.split([' ', '=']).next() == Some(name));
                preamble.iter().filter(|(name, _)| !is_there(name)).map(|(_, text)| *text).collect()
            };
            let whole = match block.info.as_str() {
                "toml edge" | "toml worker" => text,
                "toml edge fragment" => text + &missing(PREAMBLE),
                // Keys of the top level come before any table.
                "toml worker fragment" => missing(WORKER_PREAMBLE) + &text,
                _ => continue,
            };
            Folder::new().check(&format!("{page}:{}", block.line), &whole);
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}

#[test]
fn the_configuration_files_of_the_readme_are_good() {
    let readme = pages::read("README.md");
    let (start, end) = (readme.find("<<'EOF'\n").expect("edge.toml"), readme.find("\nEOF\n").expect("its end"));
    let (_, credential) = PREAMBLE[2];
    let credential = credential.replace("\"app.example.com\"", "\"http://app.example.com\"");
    Folder::new().check("README.md", &format!("{}\n{credential}", &readme[start + 8..end]));
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    let mut names = pages::all();
    names.extend(["ARCHITECTURE.md", "benches/README.md", "tests/README.md", "tuning/README.md"].map(str::to_owned));
    for page in names {
        for link in pages::links(&pages::read(&page)) {
            let (file, anchor) = pages::target(&page, &link);
            assert!(file.exists(), "{page}: {link}");
            if let Some(anchor) = anchor {
                let anchors = pages::anchors(&std::fs::read_to_string(&file).expect("a page"));
                assert!(anchors.contains(&anchor), "{page}: {link}, there are {anchors:?}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}

/// A page that nobody finds helps nobody.
#[test]
fn the_readme_links_to_every_page() {
    let links = pages::links(&pages::read("README.md"));
    for page in pages::all().iter().filter(|page| *page != "README.md") {
        assert!(links.contains(page), "README.md does not link to {page}");
    }
}
