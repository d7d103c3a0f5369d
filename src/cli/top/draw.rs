//! How `ptth top` looks: a [`State`] on a screen of any size. What keys do, and where the numbers come from, never enters.
//!
//! A number is whole or not there: where a table is too wide, columns go, the least important first, and names become shorter.

use crate::edge::admin::findings::Grade;
use crate::limits::TOP_SAMPLES;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use super::super::status::{bytes, duration};
use super::model::{LinkRow, PoolRow, ReasonRow, Shown, State, Tab, Wait};

/// Rows of a table that stands under another one, with its titles.
const TABLE_ROWS_MIN: usize = 4;
/// A name that stands beside a number.
const NAME_WIDE_MIN: usize = 4;
/// So much of a name is worth more than the columns that go first.
const NAME_WIDE_MAX: usize = 24;
const GOES_BEFORE_NAMES: u8 = 9;
/// Between two columns.
const GAP: usize = 2;

/// Draws everything. Gives the rows that the table in front has room for.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) -> usize {
    let area = frame.area();
    let paint = Paint { has_colours: state.has_colours };
    let mut page = Page { buffer: frame.buffer_mut(), area, row: 0 };
    page.head(state, paint);
    let help_rows = usize::from(state.has_help && area.height > 4);
    let room = usize::from(area.height).saturating_sub(page.row + help_rows + usize::from(help_rows > 0));
    let tables = Tab::ALL.map(|tab| table(tab, state, paint));
    let rows = share(tables.each_ref().map(|table| table.rows.len().max(1) + 1), state.tab as usize, room);
    let mut in_front = 0;
    for (table, (tab, rows)) in tables.iter().zip(Tab::ALL.into_iter().zip(rows)) {
        let Some(rows) = rows else { continue };
        let is_front = tab == state.tab;
        let shown = rows.saturating_sub(1);
        if is_front {
            in_front = shown;
        }
        page.table(table, state.offset(tab), shown, is_front, paint);
        page.row += 1;
    }
    if help_rows > 0 {
        page.row = usize::from(area.height) - 1;
        page.help(state, paint);
    }
    in_front
}

/// How many rows, with titles, each table gets; `None` for one that is not shown. Between two stands an empty row.
fn share(wanted: [usize; Tab::ALL.len()], front: usize, room: usize) -> [Option<usize>; Tab::ALL.len()] {
    let least = wanted.map(|rows| rows.min(TABLE_ROWS_MIN));
    let gaps = wanted.len() - 1;
    let mut given = least.map(Some);
    let Some(mut left) = room.checked_sub(least.iter().sum::<usize>() + gaps) else {
        given = [None; Tab::ALL.len()];
        given[front] = Some(room);
        return given;
    };
    for index in std::iter::once(front).chain(0..wanted.len()) {
        let rows = given[index].get_or_insert(0);
        let more = left.min(wanted[index] - *rows);
        *rows += more;
        left -= more;
    }
    given
}

/// Colours, where they are wanted. What they say is said in words, too.
#[derive(Clone, Copy)]
struct Paint {
    has_colours: bool,
}

impl Paint {
    fn plain(self) -> Style {
        Style::new()
    }

    fn quiet(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn titles(self, is_front: bool) -> Style {
        if is_front { self.strong().add_modifier(Modifier::REVERSED) } else { self.strong() }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn warn(self) -> Style {
        self.coloured(Color::Yellow)
    }

    fn of(self, grade: Grade) -> Style {
        match grade {
            Grade::Bad => self.bad(),
            Grade::Warn => self.warn(),
            Grade::Note => self.plain(),
        }
    }
}

/// The screen, filled from the top.
struct Page<'b> {
    buffer: &'b mut Buffer,
    area: Rect,
    row: usize,
}

impl Page<'_> {
    fn width(&self) -> usize {
        usize::from(self.area.width)
    }

    /// Text at a column of the present row; what lies outside of the screen is not drawn.
    fn put(&mut self, column: usize, text: &str, style: Style) {
        let (Ok(column), Ok(row)) = (u16::try_from(column), u16::try_from(self.row)) else { return };
        if column < self.area.width && row < self.area.height {
            let (x, y) = (self.area.x + column, self.area.y + row);
            self.buffer.set_stringn(x, y, text, usize::from(self.area.width - column), style);
        }
    }

    /// Parts side by side, as many as fit; the first one always, and shortened.
    fn parts(&mut self, parts: &[(String, Style)]) {
        let mut column = 0;
        for (index, (text, style)) in parts.iter().enumerate() {
            let left = self.width().saturating_sub(column);
            let text = if index == 0 { shortened(text, left) } else { text.clone() };
            let wide = width(&text);
            if wide > left {
                break;
            }
            self.put(column, &text, *style);
            column += wide + GAP;
        }
        self.row += 1;
    }

    fn line(&mut self, text: &str, style: Style) {
        let text = shortened(text, self.width());
        self.put(0, &text, style);
        self.row += 1;
    }

    fn head(&mut self, state: &State, paint: Paint) {
        let shown = state.shown();
        let mut parts = vec![(format!("ptth {}", shown.version), paint.strong())];
        if shown.is_draining {
            parts.push(("DRAINING".into(), paint.warn().add_modifier(Modifier::BOLD)));
        }
        if state.is_paused() {
            parts.push(("PAUSED".into(), paint.strong().add_modifier(Modifier::REVERSED)));
        }
        for text in [
            format!("{:>6} req/s", rate(shown.rate)),
            format!("{:>5} queued", shown.queued),
            format!("{:>4} in flight", shown.in_flight),
            format!("up {}", duration(shown.up_seconds)),
            format!("generation {}", shown.generation),
            format!("{} clients", shown.clients),
            format!("{} links", shown.links.len()),
        ] {
            parts.push((text, paint.plain()));
        }
        self.parts(&parts);
        if let Some((seconds, text)) = state.trouble() {
            let since = duration(seconds);
            let style = paint.bad().add_modifier(Modifier::REVERSED);
            self.line(&format!("NO ANSWER for {since}, and what stands here is older: {text}"), style);
        }
        self.notes(shown, paint);
        if self.area.height > 8 {
            self.row += 1;
        }
    }

    /// A third of the screen at most, and none of them in part.
    fn notes(&mut self, shown: &Shown, paint: Paint) {
        const MARK: usize = 6;
        let room = (usize::from(self.area.height) / 3).saturating_sub(self.row);
        let mut drawn = 0;
        let end = self.row + room;
        for (grade, text) in &shown.notes {
            let mark = match grade {
                Grade::Bad => "BAD",
                Grade::Warn => "WARN",
                Grade::Note => "note",
            };
            let lines = wrapped(text, self.width().saturating_sub(MARK));
            let is_last = drawn + 1 == shown.notes.len();
            if self.row + lines.len() + usize::from(!is_last) > end {
                break;
            }
            self.put(0, mark, paint.of(*grade));
            for line in lines {
                self.put(MARK, &line, paint.of(*grade));
                self.row += 1;
            }
            drawn += 1;
        }
        if drawn < shown.notes.len() && self.row < end {
            let grade = shown.notes[drawn].0; // the worst of them
            let left = shown.notes.len() - drawn;
            let (more, s) = (if drawn == 0 { "" } else { "more " }, if left == 1 { "" } else { "s" });
            let text = format!("{left} {more}finding{s}, see `ptth status`");
            self.line(&text, paint.of(grade));
        }
    }

    fn help(&mut self, state: &State, paint: Paint) {
        let order = format!("s order: {}", state.order(state.tab).name());
        let pause = if state.is_paused() { "p go on" } else { "p pause" };
        let texts = ["q end", "tab table", &order, pause, "↑↓ PgUp PgDn move", "? no help"];
        let parts: Vec<_> = texts.iter().map(|text| ((*text).to_owned(), paint.quiet())).collect();
        self.parts(&parts);
    }

    fn table(&mut self, table: &Table, offset: usize, rows: usize, is_front: bool, paint: Paint) {
        let widths = table.widths(self.width());
        let style = paint.titles(is_front);
        let mut titles = String::new();
        let mut column = 0;
        for (own, wide) in table.columns.iter().zip(&widths) {
            let Some(wide) = *wide else { continue };
            titles.extend(std::iter::repeat_n(' ', column - width(&titles)));
            let title = shortened(own.title, wide);
            let before = if own.kind == Kind::Number { wide - width(&title) } else { 0 };
            titles.extend(std::iter::repeat_n(' ', before));
            titles += &title;
            column += wide + GAP;
        }
        let all = table.rows.len();
        let offset = offset.min(all.saturating_sub(rows));
        if all > rows && rows > 0 {
            let range = format!("{}-{} of {all}", offset + 1, offset + rows);
            let column = self.width().saturating_sub(width(&range));
            if column >= width(&titles) + GAP {
                titles.extend(std::iter::repeat_n(' ', column - width(&titles)));
                titles += &range;
            }
        }
        if is_front {
            titles.extend(std::iter::repeat_n(' ', self.width().saturating_sub(width(&titles))));
        }
        self.put(0, &titles, style);
        self.row += 1;
        if all == 0 && rows > 0 {
            self.put(0, table.empty, paint.quiet());
            self.row += 1;
        }
        for row in table.rows.iter().skip(offset).take(rows) {
            let mut column = 0;
            for ((cell, own), wide) in row.iter().zip(&table.columns).zip(&widths) {
                let Some(wide) = *wide else { continue };
                let text = cell.fitted(wide, table.answers);
                let before = if own.kind == Kind::Number { wide.saturating_sub(width(&text)) } else { 0 };
                self.put(column + before, &text, cell.style);
                column += wide + GAP;
            }
            self.row += 1;
        }
    }
}

/// A table before it is known how wide it may be.
struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    /// What stands there instead of rows.
    empty: &'static str,
    answers: u64,
}

struct Column {
    title: &'static str,
    kind: Kind,
    /// The column with the largest goes first where there is no room; 0 stays.
    goes: u8,
    /// Never narrower, so that the columns stand still while numbers grow.
    least: usize,
}

impl Column {
    fn wide_min(&self) -> usize {
        self.least.max(width(self.title))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To the right, and never cut.
    Number,
    /// To the left; may become shorter.
    Text,
    /// To the left; entries are left out as wholes.
    List,
    /// Takes what room is left.
    Depths,
}

struct Cell {
    what: What,
    style: Style,
}

enum What {
    Text(String),
    List(Vec<String>),
    Depths(Vec<u64>),
}

impl Cell {
    fn width(&self) -> usize {
        match &self.what {
            What::Text(text) => width(text),
            What::List(entries) => entries.iter().map(|entry| width(entry) + 1).sum::<usize>().saturating_sub(1),
            What::Depths(_) => TOP_SAMPLES,
        }
    }

    fn fitted(&self, wide: usize, answers: u64) -> String {
        match &self.what {
            What::Text(text) => shortened(text, wide),
            What::List(entries) => listed(entries, wide),
            What::Depths(depths) => line_of(depths, wide, answers),
        }
    }
}

impl Table {
    /// The width of each column; `None` for one that has gone.
    fn widths(&self, room: usize) -> Vec<Option<usize>> {
        let natural: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let widest = self.rows.iter().map(|row| row[index].width()).max().unwrap_or(0);
                widest.max(column.wide_min())
            })
            .collect();
        let mut widths: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
        for (wide, column) in widths.iter_mut().zip(&self.columns) {
            *wide = match column.kind {
                Kind::Number => *wide,
                Kind::Text => wide.map(|wide| wide.min(NAME_WIDE_MAX)),
                Kind::List | Kind::Depths => Some(column.wide_min()),
            };
        }
        let total = |widths: &[Option<usize>]| {
            widths.iter().flatten().map(|wide| wide + GAP).sum::<usize>().saturating_sub(GAP)
        };
        let last = |widths: &[Option<usize>]| {
            (0..widths.len()).filter(|&n| widths[n].is_some()).max_by_key(|&n| self.columns[n].goes)
        };
        while total(&widths) > room {
            match last(&widths) {
                Some(gone) if self.columns[gone].goes >= GOES_BEFORE_NAMES => widths[gone] = None,
                _ => break,
            }
        }
        if total(&widths) > room {
            for (wide, column) in widths.iter_mut().zip(&self.columns).filter(|(_, own)| own.kind == Kind::Text) {
                *wide = wide.map(|_| column.wide_min());
            }
        }
        while total(&widths) > room {
            let gone = last(&widths);
            let Some(gone) = gone.filter(|&n| n > 0) else {
                widths[0] = Some(room);
                return widths;
            };
            // Before the last number goes, the name becomes shorter.
            let too_wide = total(&widths) - room;
            let name = widths[0].map_or(0, |name| name.saturating_sub(too_wide));
            if self.columns[gone].goes == 1 && name >= NAME_WIDE_MIN {
                widths[0] = Some(name);
            } else {
                widths[gone] = None;
            }
        }
        let mut left = room - total(&widths);
        for kind in [Kind::Text, Kind::List, Kind::Depths] {
            for (index, wide) in widths.iter_mut().enumerate() {
                if let (Some(wide), true) = (wide.as_mut(), self.columns[index].kind == kind) {
                    let more = natural[index].saturating_sub(*wide).min(left);
                    *wide += more;
                    left -= more;
                }
            }
        }
        widths
    }
}

fn table(tab: Tab, state: &State, paint: Paint) -> Table {
    let shown = state.shown();
    let places = state.places(tab);
    let (columns, rows, empty) = match tab {
        Tab::Pools => {
            let rows = places.iter().map(|&n| pool_cells(&shown.pools[n], paint)).collect();
            (pool_columns(), rows, "(no pools)")
        }
        Tab::Links => {
            let rows = places.iter().map(|&n| link_cells(&shown.links[n], paint)).collect();
            (link_columns(), rows, "(no links)")
        }
        Tab::Reasons => {
            let rows = places.iter().map(|&n| reason_cells(&shown.reasons[n], paint)).collect();
            (reason_columns(), rows, "(nothing was refused or sent again since the start)")
        }
    };
    Table { columns, rows, empty, answers: shown.answers }
}

fn columns<const N: usize>(all: [(&'static str, Kind, u8, usize); N]) -> Vec<Column> {
    all.into_iter().map(|(title, kind, goes, least)| Column { title, kind, goes, least }).collect()
}

fn pool_columns() -> Vec<Column> {
    use Kind::{Depths, List, Number, Text};
    columns([
        ("POOL", Text, 0, 10),
        ("QUEUED", Number, 1, 6),
        ("MINUTE", Depths, 6, 8),
        ("IN FLIGHT", Number, 2, 9),
        ("CREDITS", Number, 3, 7),
        ("LINKS", Number, 4, 5),
        ("REQ/S", Number, 3, 6),
        ("P50 ≤", Number, 7, 6),
        ("P99 ≤", Number, 5, 6),
        ("BYTES", Number, 10, 7),
        ("CLASSES", List, 9, 14),
    ])
}

fn pool_cells(row: &PoolRow, paint: Paint) -> Vec<Cell> {
    let queued = if row.queued > 0 { paint.warn() } else { paint.plain() };
    let links = if row.links == 0 { paint.warn() } else { paint.plain() };
    let classes = row.classes.iter().map(|(class, queued)| format!("{class}:{queued}")).collect();
    let text = |text: String| Cell { what: What::Text(text), style: paint.plain() };
    vec![
        Cell { what: What::Text(row.name.clone()), style: paint.strong() },
        Cell { what: What::Text(row.queued.to_string()), style: queued },
        Cell { what: What::Depths(row.depths.clone()), style: paint.coloured(Color::Cyan) },
        text(row.in_flight.to_string()),
        text(row.credits.to_string()),
        Cell { what: What::Text(row.links.to_string()), style: links },
        text(rate(row.rate)),
        text(wait(row.p50)),
        text(wait(row.p99)),
        text(bytes(row.queued_bytes)),
        Cell { what: What::List(classes), style: paint.plain() },
    ]
}

fn link_columns() -> Vec<Column> {
    use Kind::{Number, Text};
    columns([
        ("LINK", Text, 0, 5),
        ("WORKER", Text, 1, 8),
        ("ID", Text, 4, 8),
        ("CORE", Number, 7, 4),
        ("PROTOCOL", Text, 8, 8),
        ("CREDITS", Number, 3, 7),
        ("IN FLIGHT", Number, 2, 9),
        ("ANSWER", Number, 9, 7),
        ("SILENT", Number, 5, 8),
        ("UP", Number, 6, 6),
        ("POOLS", Text, 10, 8),
        ("ADDRESS", Text, 11, 14),
        ("LABELS", Text, 12, 8),
    ])
}

fn link_cells(row: &LinkRow, paint: Paint) -> Vec<Cell> {
    let text = |text: String| Cell { what: What::Text(text), style: paint.plain() };
    let silent = match (row.is_mute, row.silent_seconds) {
        (true, seconds) => Cell { what: What::Text(format!("MUTE {}", duration(seconds))), style: paint.bad() },
        (false, 0) => text("-".into()),
        (false, seconds) => Cell { what: What::Text(duration(seconds)), style: paint.warn() },
    };
    vec![
        text(row.id.clone()),
        Cell { what: What::Text(row.worker.clone()), style: paint.strong() },
        text(row.worker_id.clone()),
        text(row.core.to_string()),
        text(row.protocol.clone()),
        text(row.credits.to_string()),
        text(row.in_flight.to_string()),
        text(row.answer_ms.map_or_else(|| "-".into(), |ms| time(ms / 1e3))),
        silent,
        text(duration(row.up_seconds)),
        text(row.pools.clone()),
        text(row.address.clone()),
        text(row.labels.clone()),
    ]
}

fn reason_columns() -> Vec<Column> {
    use Kind::{Number, Text};
    columns([
        ("REASON", Text, 0, 20),
        ("WHAT", Text, 2, 13),
        ("IN A SECOND", Number, 1, 11),
        ("SINCE START", Number, 3, 11),
    ])
}

fn reason_cells(row: &ReasonRow, paint: Paint) -> Vec<Cell> {
    let happens = row.rate.is_some_and(|rate| rate > 0.0);
    let style = if happens { paint.warn() } else { paint.plain() };
    let text = |text: String| Cell { what: What::Text(text), style: paint.plain() };
    vec![
        text(row.reason.clone()),
        text(row.what.to_owned()),
        Cell { what: What::Text(rate(row.rate)), style },
        text(row.total.to_string()),
    ]
}

// ---- texts ----

/// Columns of a terminal.
fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// As much as fits; where it was cut, the last column says so.
fn shortened(text: &str, wide: usize) -> String {
    if width(text) <= wide {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        out.push(c);
        if width(&out) >= wide {
            out.pop();
            break;
        }
    }
    if wide > 0 {
        out.push('…');
    }
    out
}

/// On as many lines as it needs, broken between words.
fn wrapped(text: &str, wide: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            *line = shortened(word, wide);
        } else if width(line) + 1 + width(word) <= wide {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(shortened(word, wide));
        }
    }
    lines
}

/// As many entries as fit.
fn listed(entries: &[String], wide: usize) -> String {
    let mut out = String::new();
    for (index, entry) in entries.iter().enumerate() {
        let is_last = index + 1 == entries.len();
        let space = usize::from(index > 0);
        let end = if is_last { 0 } else { 2 }; // " …"
        if width(&out) + space + width(entry) + end > wide {
            out.push_str(if index > 0 { " …" } else { "…" });
            break;
        }
        out.extend(std::iter::repeat_n(' ', space));
        out.push_str(entry);
    }
    out
}

/// What was answered in a second.
fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".into(),
        Some(0.0) => "0".into(),
        Some(rate) if rate < 0.05 => "<0.1".into(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn wait(wait: Wait) -> String {
    match wait {
        Wait::Unknown => "-".into(),
        Wait::AtMostSeconds(seconds) => time(seconds),
        Wait::Longer => ">1m".into(),
    }
}

/// Three digits and a unit.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.999_5e-6 => (s * 1e9, "ns"),
        s if s < 0.999_5e-3 => (s * 1e6, "µs"),
        s if s < 0.999_5 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    match value {
        v if v < 9.995 => format!("{v:.2}{unit}"),
        v if v < 99.95 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

/// The last minute in so many columns, up to now at the right. A column is the largest depth of its seconds, and empty where there was
/// no answer yet; the columns move on by wholes.
fn line_of(depths: &[u64], wide: usize, answers: u64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if wide == 0 {
        return String::new();
    }
    let each = TOP_SAMPLES.div_ceil(wide) as u64;
    let first = answers.saturating_sub(depths.len() as u64); // the number of the oldest answer
    let now = answers.saturating_sub(1) / each;
    let mut columns: Vec<Option<u64>> = vec![None; wide];
    for (number, depth) in (first..).zip(depths) {
        let back = usize::try_from(now - (number / each).min(now)).unwrap_or(usize::MAX);
        if let Some(column) = wide.checked_sub(back + 1) {
            columns[column] = columns[column].max(Some(*depth));
        }
    }
    let most = depths.iter().copied().max().unwrap_or(0).max(BARS.len() as u64 - 1);
    let bar = |depth: u64| match depth {
        0 => BARS[0],
        // Something that waits is never drawn as nothing.
        depth => BARS[usize::try_from(depth * 7 / most).unwrap_or(7).clamp(1, 7)],
    };
    columns.iter().map(|depth| depth.map_or(' ', bar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::model::tests::{loaded, quiet};
    use crate::cli::top::model::{State, Wish};
    use crate::clock::Now;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// A loaded edge after two answers, a second apart.
    fn state() -> State {
        let mut state = State::new(false, Now(0));
        state.take(Ok(loaded(0)), Now(1_000_000_000), 2_000);
        state.take(Ok(loaded(1)), Now(2_000_000_000), 2_001);
        state
    }

    fn screen(state: &State, wide: u16, high: u16) -> (Buffer, usize) {
        let mut terminal = Terminal::new(TestBackend::new(wide, high)).expect("a screen in memory");
        let mut room = 0;
        terminal.draw(|frame| room = draw(frame, state)).expect("it is drawn");
        (terminal.backend().buffer().clone(), room)
    }

    /// The rows of the screen, without what is empty at their ends.
    fn rows(state: &State, wide: u16, high: u16) -> Vec<String> {
        let (buffer, _) = screen(state, wide, high);
        let row = |y| (0..wide).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..high).map(row).collect()
    }

    /// The words of the first row that begins with `first`.
    #[track_caller]
    fn words<'r>(rows: &'r [String], first: &str) -> Vec<&'r str> {
        let row = rows.iter().find(|row| row.starts_with(first));
        row.unwrap_or_else(|| panic!("no {first}:\n{}", rows.join("\n"))).split_whitespace().collect()
    }

    #[test]
    fn a_screen_of_80_by_24_has_what_counts() {
        let rows = rows(&state(), 80, 24);
        println!("{}", rows.join("\n"));
        assert_eq!(rows[0], "ptth 1.2.3     300 req/s  12350 queued    70 in flight  up 1h02m  generation 3");
        assert_eq!(rows[1], "BAD   pool app: its queue is full, or nearly: 12345 of 12400 requests, and the");
        assert_eq!(rows[2], "      text is too long for one line");
        assert_eq!(
            words(&rows, "POOL"),
            "POOL QUEUED MINUTE IN FLIGHT CREDITS LINKS REQ/S P50 ≤ P99 ≤".split(' ').collect::<Vec<_>>()
        );
        assert_eq!(words(&rows, "app "), ["app", "12345", "█", "64", "0", "40", "300", "1.02ms", "131ms"]);
        let link = words(&rows, "0-0");
        assert_eq!((link[1], link[2]), ("web-0?[2J", "host-0"), "{rows:?}");
        assert!(rows[23].starts_with("q end  tab table  s order: as told  p pause"), "{rows:?}");
        let titles = rows.iter().filter(|row| ["POOL ", "LINK ", "REASON "].iter().any(|title| row.starts_with(title)));
        assert_eq!(titles.count(), 3);
        assert_eq!(words(&rows, "queue_full"), ["queue_full", "refused", "7.0", "1007"]);
    }

    #[test]
    fn a_large_screen_has_all_columns_and_the_minute_in_seconds() {
        let rows = rows(&state(), 200, 50);
        println!("{}", rows.join("\n"));
        for title in ["BYTES", "CLASSES", "ANSWER", "ADDRESS", "LABELS"] {
            assert!(rows.iter().any(|row| row.contains(title)), "{title}:\n{}", rows.join("\n"));
        }
        assert_eq!(&words(&rows, "app ")[9..], ["3MiB", "0:12000", "3:345"]);
        // All that fits, and it says how much does not.
        assert!(rows.iter().any(|row| row.starts_with("LINK") && row.ends_with(" of 40")), "{}", rows.join("\n"));
    }

    #[test]
    fn a_small_screen_has_the_table_in_front() {
        let mut state = state();
        let rows_of = |state: &State| rows(state, 20, 5);
        let small = rows_of(&state);
        assert_eq!(small[0], "ptth 1.2.3");
        assert_eq!(words(&small, "app"), ["app", "12345"], "{small:?}");
        state.wish(Wish::NextTab);
        let small = rows_of(&state);
        assert!(small.iter().any(|row| row.starts_with("LINK   WORKER")), "{small:?}");
    }

    #[test]
    fn no_size_is_too_small() {
        let mut without = State::new(true, Now(0));
        without.take(Err("connection refused".into()), Now(1), 0);
        for state in [state(), without] {
            for wide in 0..90 {
                for high in [0, 1, 2, 3, 4, 5, 6, 9, 12, 17] {
                    let (buffer, room) = screen(&state, wide, high);
                    assert_eq!((buffer.area.width, buffer.area.height), (wide, high));
                    assert!(room <= usize::from(high));
                }
            }
        }
        assert_eq!(rows(&state(), 1, 1), ["…"]);
    }

    /// Whatever the width, a number of a row is one of the widest screen's.
    #[test]
    fn no_number_is_cut() {
        let state = state();
        let wide = rows(&state, 300, 24);
        let known: Vec<&str> = words(&wide, "app ");
        for width in 12..200 {
            let rows = rows(&state, width, 24);
            let words = words(&rows, "app ");
            assert_eq!(words[1], "12345", "the queue is there at {width}");
            for word in words {
                let is_number = word.starts_with(|c: char| c.is_ascii_digit());
                assert!(!is_number || known.contains(&word), "{word} at {width}: {rows:?}");
            }
        }
    }

    #[test]
    fn what_a_screen_has_no_room_for_is_moved_to() {
        let mut state = state();
        state.wish(Wish::NextTab);
        let first_of = |state: &State| {
            let rows = rows(state, 80, 24);
            let titles = rows.iter().position(|row| row.starts_with("LINK")).expect("titles");
            rows[titles + 1].split_whitespace().next().expect("a link").to_owned()
        };
        let (_, room) = screen(&state, 80, 24);
        state.has_room(room);
        assert_eq!(first_of(&state), "0-0");
        state.wish(Wish::Down);
        assert_eq!(first_of(&state), "0-1");
        state.wish(Wish::PageDown);
        assert_eq!(first_of(&state), format!("0-{}", 1 + room));
        state.wish(Wish::Bottom);
        assert_eq!(first_of(&state), format!("0-{}", 40 - room));
        state.wish(Wish::Down);
        state.wish(Wish::Up);
        assert_eq!(first_of(&state), format!("0-{}", 39 - room));
        state.wish(Wish::Top);
        state.wish(Wish::Up);
        assert_eq!(first_of(&state), "0-0");
    }

    #[test]
    fn without_an_answer_the_head_says_since_when_and_why() {
        let mut state = state();
        state.take(Err("connection refused\u{1b}[2J".into()), Now(3_000_000_000), 2_002);
        state.at(Now(8_500_000_000));
        let shown = rows(&state, 80, 24);
        assert_eq!(shown[1], "NO ANSWER for 5s, and what stands here is older: connection refused\\u{1b}[2J");
        assert_eq!(words(&shown, "app ")[1], "12345");
        state.take(Ok(quiet()), Now(9_000_000_000), 2_008);
        assert!(!rows(&state, 80, 24).concat().contains("NO ANSWER"));
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let coloured = |state: &State| screen(state, 80, 24).0.content.iter().any(|cell| cell.fg != Color::Reset);
        let mut state = state();
        assert!(!coloured(&state));
        state.has_colours = true;
        assert!(coloured(&state));
    }

    #[test]
    fn a_minute_in_few_columns_keeps_its_peaks_and_stands_still() {
        let depths: Vec<u64> = (0..60).map(|n| if n == 7 { 70 } else { 0 }).collect();
        assert_eq!(line_of(&depths, 60, 60), format!("{}█{}", "▁".repeat(7), "▁".repeat(52)));
        assert_eq!(line_of(&depths, 10, 60), format!("▁█{}", "▁".repeat(8)));
        // Answers 6 to 65 in tens: columns begin at multiples of six.
        assert_eq!(line_of(&depths, 10, 61).chars().filter(|bar| *bar == '█').count(), 1);
        assert_eq!((line_of(&[0, 3], 4, 2).as_str(), line_of(&[0, 3], 60, 2).trim_start()), ("   ▄", "▁▄"));
        assert_eq!(line_of(&[1_000_000, 1], 2, 2), " █"); // both in one half minute
        assert_eq!(line_of(&[1_000_000, 1], 60, 2).trim_start(), "█▂");
        assert_eq!((line_of(&[], 3, 0).as_str(), line_of(&[5], 0, 1).as_str()), ("   ", ""));
    }

    #[test]
    fn texts_are_cut_where_they_may_be() {
        assert_eq!((shortened("abcdef", 4).as_str(), shortened("ab", 2).as_str()), ("abc…", "ab"));
        assert_eq!((shortened("abc", 1).as_str(), shortened("abc", 0).as_str()), ("…", ""));
        assert_eq!(shortened("日本語", 4), "日…"); // two columns each
        let entries = ["0:12".to_owned(), "3:345".to_owned()];
        assert_eq!((listed(&entries, 10).as_str(), listed(&entries, 9).as_str()), ("0:12 3:345", "0:12 …"));
        assert_eq!((listed(&entries, 5).as_str(), listed(&[], 5).as_str()), ("…", ""));
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 0), [""]);
        for (seconds, want) in
            [(2.5e-7, "250ns"), (1e-6, "1.00µs"), (0.001_024, "1.02ms"), (0.131_072, "131ms"), (67.108_864, "67.1s")]
        {
            assert_eq!(time(seconds), want);
        }
        for (per_second, want) in [(0.0, "0"), (0.04, "<0.1"), (9.94, "9.9"), (9.96, "10"), (12_345.4, "12345")] {
            assert_eq!(rate(Some(per_second)), want);
        }
    }
}
