//! `ptth check`: which kind of file it is, and what is wrong with it. The rules of each kind stay in its own room.

use super::{Stop, complain};
use crate::clock;
use crate::edge::config::{EdgeConfig, is_edge_key};
use crate::edge::tls;
use crate::settings::{Document, Mistakes, Place, read_text};
use crate::worker;
use crate::worker::config::{WorkerConfig, WorkerFlags, is_worker_key};
use std::path::Path;

/// Silent when all is well. Warnings are shown, and do not count.
pub(super) fn check(file: &Path) -> Result<(), Stop> {
    match mistakes(file) {
        mistakes if mistakes.has_errors() => Err(Stop::mistakes(&mistakes)),
        warnings => {
            complain(&warnings.lines().collect::<Vec<_>>());
            Ok(())
        }
    }
}

fn mistakes(file: &Path) -> Mistakes {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(mistakes) => return mistakes,
    };
    let name = file.display().to_string();
    let mut mistakes = Mistakes::new(&name);
    let Some(document) = Document::parse(&text, &mut mistakes) else {
        return mistakes;
    };
    let count = |of: fn(&str) -> bool| document.root().keys().filter(|key| of(key)).count();
    let (edge, worker) = (count(is_edge_key), count(is_worker_key));
    if edge > worker {
        let now_unix = clock::unix_seconds();
        return match EdgeConfig::parse(&name, &text, now_unix) {
            Ok((config, mut warnings)) => {
                tls::load(&config, now_unix, &mut warnings);
                warnings
            }
            Err(mistakes) => mistakes,
        };
    }
    if worker > edge {
        let flags = WorkerFlags::default();
        return match WorkerConfig::parse(Some((file, &text)), &flags) {
            Ok((services, mut warnings)) => {
                for config in &services.0 {
                    worker::tls::load(config, &mut warnings);
                }
                warnings
            }
            Err(mistakes) => mistakes,
        };
    }
    mistakes.error(
        Place::TOP,
        "this is neither an edge's file nor a worker's",
        "an edge's has [[listen]] and [[pool]], a worker's has `edges` and `to`",
    );
    mistakes
}
