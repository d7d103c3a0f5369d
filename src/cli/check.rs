//! `ptth check`: which kind of file it is, and what is wrong with it. The rules of each kind stay in its own room.

use super::{Stop, complain};
use crate::clock;
use crate::edge::admin::access::Access;
use crate::edge::config::{EdgeConfig, is_edge_key};
use crate::edge::{log, register, tls};
use crate::settings::{Document, Mistakes, Place, read_text};
use crate::worker;
use crate::worker::config::{Services, WorkerConfig, WorkerFlags, is_worker_key};
use std::path::Path;

/// Silent when all is well. Warnings are shown, and do not count.
pub(super) fn check(file: &Path) -> Result<(), Stop> {
    let (all, _) = look(file);
    let lines = all.iter().flat_map(Mistakes::lines).collect::<Vec<_>>();
    if all.iter().any(Mistakes::has_errors) {
        return Err(Stop::Usage(lines));
    }
    complain(&lines);
    Ok(())
}

/// What a file without errors says.
pub(super) enum Kind {
    Edge(Box<EdgeConfig>),
    Worker(Services),
    /// It has errors, so nobody knows.
    Unknown,
}

/// What is wrong with the file and with those that it names.
pub(super) fn look(file: &Path) -> (Vec<Mistakes>, Kind) {
    let (mistakes, kind) = mistakes(file);
    let mut all = vec![mistakes];
    if let Kind::Edge(config) = &kind {
        all.extend(register::mistakes(config, clock::unix_seconds()));
    }
    (all, kind)
}

fn mistakes(file: &Path) -> (Mistakes, Kind) {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(mistakes) => return (mistakes, Kind::Unknown),
    };
    let name = file.display().to_string();
    let mut mistakes = Mistakes::new(&name);
    let Some(document) = Document::parse(&text, &mut mistakes) else {
        return (mistakes, Kind::Unknown);
    };
    let count = |of: fn(&str) -> bool| document.root().keys().filter(|key| of(key)).count();
    let (edge, worker) = (count(is_edge_key), count(is_worker_key));
    if edge > worker {
        let now_unix = clock::unix_seconds();
        return match EdgeConfig::parse(&name, &text, now_unix) {
            Ok((config, mut warnings)) => {
                tls::load(&config, now_unix, &mut warnings);
                Access::load(&config, now_unix, &mut warnings);
                log::look(&config, &mut warnings);
                (warnings, Kind::Edge(Box::new(config)))
            }
            Err(mistakes) => (mistakes, Kind::Unknown),
        };
    }
    if worker > edge {
        let flags = WorkerFlags::default();
        return match WorkerConfig::parse(Some((file, &text)), &flags) {
            Ok((services, mut warnings)) => {
                for config in &services.0 {
                    worker::tls::load(config, &mut warnings);
                }
                (warnings, Kind::Worker(services))
            }
            Err(mistakes) => (mistakes, Kind::Unknown),
        };
    }
    mistakes.error(
        Place::TOP,
        "this is neither an edge's file nor a worker's",
        "an edge's has [[listen]] and [[pool]], a worker's has `edges` and `to`",
    );
    (mistakes, Kind::Unknown)
}
