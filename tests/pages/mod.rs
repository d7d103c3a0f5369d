//! README.md and docs/ as a test reads them: fenced blocks, tables, code in sentences, links. What any of it means never enters.

#![allow(dead_code)] // each test uses its part

use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
pub fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// README.md and every page of docs/, by their paths.
pub fn all() -> Vec<String> {
    let mut names = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).expect("docs/") {
        let name = entry.expect("a file of docs/").file_name().into_string().expect("a name");
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names
}

/// A fenced block: the line of its fence, what stands behind the fence, and what it holds.
pub struct Block {
    pub line: usize,
    pub info: String,
    pub lines: Vec<String>,
}

pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(info) if !is_open => {
                blocks.push(Block { line: index + 1, info: info.to_owned(), lines: Vec::new() });
            }
            Some(_) => {}
            None if is_open => blocks.last_mut().expect("a block is open").lines.push(line.to_owned()),
            None => continue,
        }
        is_open ^= line.starts_with("```");
    }
    assert!(!is_open, "a block does not end");
    blocks
}

/// The text without its blocks, with a line for each of theirs.
pub fn prose(text: &str) -> String {
    let mut is_open = false;
    let kept = text.lines().map(|line| {
        let was_open = is_open;
        is_open ^= line.starts_with("```");
        if was_open || is_open { "" } else { line }
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// What stands between backticks in sentences and tables, a line's end in it made a space.
pub fn spans(text: &str) -> Vec<String> {
    let prose = prose(text);
    let spans = prose.split("\n\n").flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
    spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// A row of a table: the last heading above it, without its signs, and the cells as they stand.
pub struct Row {
    pub heading: String,
    pub cells: Vec<String>,
}

/// The rows of all tables whose first line is this.
pub fn rows(text: &str, header: &str) -> Vec<Row> {
    let (mut heading, mut inside, mut rows) = (String::new(), false, Vec::new());
    for line in prose(text).lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().replace('`', "");
        }
        if line == header {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("|---") {
            let cells = line.strip_prefix('|').unwrap_or(line).trim_end().trim_end_matches('|').split('|');
            rows.push(Row { heading: heading.clone(), cells: cells.map(|cell| cell.trim().to_owned()).collect() });
        }
    }
    rows
}

/// Where the links of a page lead, those to other sites left out, pictures among them.
pub fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let marked = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link));
    let pictures = prose.split("src=\"").chain(prose.split("srcset=\"")).filter_map(|rest| rest.split_once('"'));
    let pictures = pictures.map(|(link, _)| link).filter(|link| link.ends_with(".svg"));
    marked.chain(pictures).filter(|link| !link.contains("://")).map(str::to_owned).collect()
}

/// The names by which GitHub links to the headings of a page.
pub fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// A file beside `page`, and the part behind `#`.
pub fn target(page: &str, link: &str) -> (PathBuf, Option<String>) {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor.to_owned())));
    let page = root().join(page);
    let file = if file.is_empty() { page } else { page.parent().expect("a folder").join(file) };
    (file, anchor)
}
