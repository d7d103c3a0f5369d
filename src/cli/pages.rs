//! Man pages and shell completions, made from the same definitions as `--help`. For whoever packs the program; a user never comes
//! here.

use super::{Cli, Stop};
use crate::settings::io_reason;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use std::io::Write as _;
use std::path::Path;

/// To stdout.
pub(super) fn completions(shell: Shell) -> Result<(), Stop> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ptth", &mut text);
    let mut out = std::io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).map_err(|_| Stop::OutputClosed)
}

/// A page for `ptth` and one for each command, into a folder that is there.
pub(super) fn manual(folder: &Path) -> Result<(), Stop> {
    for (name, text) in pages() {
        let file = folder.join(&name);
        std::fs::write(&file, text)
            .map_err(|error| Stop::Failure(format!("{}: cannot be written: {}", file.display(), io_reason(&error))))?;
    }
    Ok(())
}

/// `ptth.1`, `ptth-edge.1` and so on, with their text.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build(); // gives each command its whole name, and the flags that all have
    let mut all = Vec::new();
    page(&root, &mut all);
    all
}

fn page(command: &Command, all: &mut Vec<(String, Vec<u8>)>) {
    let man = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    let rendered = man
        .render_title(&mut text)
        .and_then(|()| man.render_name_section(&mut text))
        .and_then(|()| man.render_synopsis_section(&mut text))
        .and_then(|()| man.render_description_section(&mut text))
        .and_then(|()| man.render_options_section(&mut text));
    rendered.expect("memory takes all that is written");
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut text).expect("memory takes all that is written");
    }
    if let Some(more) = command.get_after_help() {
        text.extend(as_it_stands("EXAMPLES", &more.to_string()).into_bytes());
    }
    all.push((man.get_filename(), text));
    command.get_subcommands().filter(|own| !own.is_hide_set()).for_each(|own| page(own, all));
}

/// A section whose lines are not filled (groff_man(7)). A line that begins with `.` or `'` would be an order.
fn as_it_stands(title: &str, text: &str) -> String {
    let mut out = format!(".SH {title}\n.nf\n");
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        out.push_str(&format!("{guard}{line}\n"));
    }
    out + ".fi\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_hidden_ones_have_none() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in
            ["ptth.1", "ptth-edge.1", "ptth-worker.1", "ptth-doctor.1", "ptth-credential.1", "ptth-credential-new.1"]
        {
            assert!(names.contains(&name), "no {name} in {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("completions") || name.contains("help")), "{names:?}");
        let text = |name: &str| {
            let (_, text) = pages.iter().find(|(own, _)| own == name).expect("a page");
            String::from_utf8(text.clone()).expect("UTF-8")
        };
        assert!(text("ptth-edge.1").contains(r"\-\-config") && text("ptth-edge.1").contains("SIGHUP"));
        let root = text("ptth.1");
        assert!(root.contains("ptth\\-worker(1)") && !root.contains("completions"), "{root}");
        assert!(root.contains(".nf\n") && root.contains("\n  ptth check \\-\\-config edge.toml "), "{root}");
    }
}
