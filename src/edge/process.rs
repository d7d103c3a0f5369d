//! What the kernel says about this process, by the names that every Prometheus client uses. What the edge does never enters.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::clock::{self, Now};
use crate::limits::FDS_LOOK_MS;

/// The process at one moment. What the kernel does not tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessReport {
    pub cpu_seconds: f64,
    pub open_fds: u64,
    pub max_fds: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub start_unix_seconds: f64,
    pub threads: u64,
}

impl ProcessReport {
    /// Reads it. `started` is when the process began.
    #[must_use]
    pub fn look(started: Now, descriptors: &Descriptors) -> ProcessReport {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let ticks_per_s = rustix::param::clock_ticks_per_second();
        let mut report = read_stat(&stat, ticks_per_s, rustix::param::page_size() as u64);
        report.open_fds = descriptors.open();
        report.max_fds = getrlimit(Resource::Nofile).current.unwrap_or(0);
        let since_ms = clock::now().ms_since(started);
        #[allow(clippy::cast_precision_loss)] // milliseconds of this century fit
        let start_ms = clock::unix_ms().saturating_sub(since_ms) as f64;
        report.start_unix_seconds = start_ms / 1_000.0;
        report
    }
}

/// proc_pid_stat(5). A program's name stands in parentheses, and may have some itself.
fn read_stat(stat: &str, ticks_per_s: u64, page_bytes: u64) -> ProcessReport {
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // The first one here is the third of the page.
    let number = |place: usize| fields.get(place - 3).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    #[allow(clippy::cast_precision_loss)] // ticks of millions of years fit
    let cpu_seconds = (number(14) + number(15)) as f64 / ticks_per_s.max(1) as f64;
    ProcessReport {
        cpu_seconds,
        threads: number(20),
        virtual_bytes: number(23),
        resident_bytes: number(24) * page_bytes,
        ..ProcessReport::default()
    }
}

/// How many descriptors are open. Since Linux 6.2 the size of their folder says it. Before, they have to be counted one by one, which
/// takes a millisecond for a thousand, and a core that did that would answer nobody meanwhile: so a thread does, and whoever asks gets
/// what it has found last. The thread ends with this.
pub struct Descriptors {
    folder: PathBuf,
    /// `None`: the folder's size says it.
    counted: Option<Arc<Mutex<u64>>>,
    _lives: mpsc::Sender<()>,
}

impl Descriptors {
    /// Of this process. Counts them for the first time, so no core makes it.
    #[must_use]
    pub fn of_process() -> Descriptors {
        let folder = PathBuf::from("/proc/self/fd");
        let is_told = size_of(&folder) > 0;
        Descriptors::of(folder, is_told, FDS_LOOK_MS)
    }

    fn of(folder: PathBuf, is_told: bool, every_ms: u64) -> Descriptors {
        let (lives, ends) = mpsc::channel();
        let counted = (!is_told).then(|| {
            let counted = Arc::new(Mutex::new(count(&folder)));
            let (folder, found) = (folder.clone(), counted.clone());
            let look = move || {
                while ends.recv_timeout(Duration::from_millis(every_ms)) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let count = count(&folder);
                    *found.lock().unwrap_or_else(PoisonError::into_inner) = count;
                }
            };
            if let Err(error) = std::thread::Builder::new().name("descriptors".into()).spawn(look) {
                tracing::warn!(%error, "descriptors are not counted: a thread could not be started");
            }
            counted
        });
        Descriptors { folder, counted, _lives: lives }
    }

    fn open(&self) -> u64 {
        match &self.counted {
            Some(counted) => *counted.lock().unwrap_or_else(PoisonError::into_inner),
            None => size_of(&self.folder),
        }
    }
}

fn size_of(folder: &Path) -> u64 {
    std::fs::metadata(folder).map_or(0, |folder| folder.len())
}

fn count(folder: &Path) -> u64 {
    // One of them is the folder while it is read.
    std::fs::read_dir(folder).map_or(0, |entries| (entries.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_page() {
        let stat = "12 (a) b) R 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 9 18 19 4096000 7 22";
        let report = read_stat(stat, 100, 4096);
        assert_eq!((report.cpu_seconds, report.threads), (3.0, 9));
        assert_eq!((report.virtual_bytes, report.resident_bytes), (4_096_000, 7 * 4096));
        assert_eq!(read_stat("", 100, 4096), ProcessReport::default());
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let started = clock::now();
        let descriptors = Descriptors::of_process();
        let before = ProcessReport::look(started, &descriptors);
        let more: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let descriptors = Descriptors::of_process();
        let after = ProcessReport::look(started, &descriptors);
        assert!(after.open_fds >= more.len() as u64 && after.open_fds <= after.max_fds, "{before:?} {after:?}");
        assert!(after.resident_bytes > 100_000 && after.virtual_bytes > after.resident_bytes && after.threads > 0);
        assert!((after.start_unix_seconds - clock::unix_seconds() as f64).abs() < 600.0, "{after:?}");
    }

    #[test]
    fn where_the_kernel_does_not_tell_whoever_asks_counts_nothing() {
        let folder = std::env::temp_dir().join(format!("ptth-descriptors-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let add = |name: &str| drop(std::fs::File::create(folder.join(name)).unwrap());
        ["a", "b", "c"].into_iter().for_each(add);
        let never = Descriptors::of(folder.clone(), false, 3_600_000);
        let often = Descriptors::of(folder.clone(), false, 1);
        assert_eq!((never.open(), often.open()), (2, 2), "one of them is the folder");
        ["d", "e"].into_iter().for_each(add);
        let by = clock::now().plus_ms(30_000);
        while often.open() != 4 {
            assert!(clock::now() < by, "its thread does not look: {} open", often.open());
            std::thread::yield_now();
        }
        assert_eq!(never.open(), 2, "the thread has not looked again, and nobody else does");
        drop((never, often));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
