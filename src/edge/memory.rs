//! What the process holds, and what it may hold: read from the kernel, and told to all cores. What they do about it never
//! enters.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::config::MemoryMax;
use crate::clock;
use crate::limits::{MEMORY_LOOK_MS, MEMORY_TOLD_MS};
use crate::xcore::{Fill, MemoryGauge};

/// What `process` (`self`, or an id) may use at all, as far as the kernel tells.
#[must_use]
pub fn available(process: &str) -> Option<u64> {
    available_bytes(Path::new("/"), process)
}

/// The bound in bytes; `None`: there is none.
pub fn bytes_max(memory_max: MemoryMax) -> Option<u64> {
    match memory_max {
        MemoryMax::Unbounded => None,
        MemoryMax::Bytes(bytes) => Some(bytes),
        MemoryMax::Share(percent) => {
            let available = available("self");
            if available.is_none() {
                tracing::warn!("/proc does not tell how much memory there is, so `memory_max` bounds nothing");
            }
            available.map(|bytes| bytes / 100 * u64::from(percent))
        }
    }
}

/// Measures until nobody sends on the other end of `cores` any more. A thread of its own: what it reads is a file, and it
/// measures also where a core is too busy to.
pub fn watch(gauge: Arc<MemoryGauge>, bytes_max: u64, cores: mpsc::Receiver<()>) -> Result<(), String> {
    // Kept open: when memory is full, descriptors may be, too.
    let statm = File::open("/proc/self/statm")
        .map_err(|error| format!("/proc/self/statm: {error}; set memory_max = \"0\" in [limits]"))?;
    let page_bytes = rustix::param::page_size() as u64;
    let look = move || {
        let mut told = None;
        let mut fill = Fill::Normal;
        loop {
            if let Some(pages) = resident_pages(&statm) {
                let before = std::mem::replace(&mut fill, gauge.tell(pages * page_bytes, bytes_max));
                let now = clock::now();
                let is_news = fill != before && fill != Fill::Normal;
                if is_news && told.is_none_or(|told| now.ms_since(told) >= MEMORY_TOLD_MS) {
                    told = Some(now);
                    let resident_bytes = gauge.resident_bytes();
                    tracing::warn!(
                        ?fill,
                        resident_bytes,
                        bytes_max,
                        "memory is nearly full; see `memory_max` in [limits]"
                    );
                }
            }
            if cores.recv_timeout(Duration::from_millis(MEMORY_LOOK_MS)) != Err(mpsc::RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("memory".into()).spawn(look);
    thread.map(drop).map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))
}

/// The second number of `/proc/self/statm` (proc_pid_statm(5)).
fn resident_pages(statm: &File) -> Option<u64> {
    let mut text = [0u8; 128];
    let bytes = statm.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..bytes]).ok()?.split(' ').nth(1)?.parse().ok()
}

/// The least of the machine's memory and the limits of all cgroups around a process; `root` is `/`.
fn available_bytes(root: &Path, process: &str) -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let meminfo = read(&root.join("proc/meminfo"));
    let machine = meminfo.as_deref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    });
    let of_groups = groups(root, process, "memory").into_iter().filter_map(|group| {
        let name = if group.is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        // "max" is no number, and no limit.
        read(&group.folder.join(name))?.trim().parse::<u64>().ok()
    });
    of_groups.chain(machine).min()
}

/// One cgroup around a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub folder: PathBuf,
    /// The files in it are those of version 2.
    pub is_v2: bool,
}

/// All cgroups around `process` (`self`, or an id) that bound `kind` (`memory`, `cpu`), the innermost first. Some of the folders
/// may not be there. `root` is `/`.
#[must_use]
pub fn groups(root: &Path, process: &str, kind: &str) -> Vec<Group> {
    let text = std::fs::read_to_string(root.join("proc").join(process).join("cgroup")).unwrap_or_default();
    let of_line = |line: &str| {
        // Version 2 is `0::/path`; version 1 has a line for each hierarchy (cgroups(7)).
        let mut parts = line.splitn(3, ':');
        let (base, is_v2) = match (parts.next(), parts.next()) {
            (Some("0"), Some("")) => ("sys/fs/cgroup".to_owned(), true),
            (_, Some(kinds)) if kinds.split(',').any(|own| own == kind) => (format!("sys/fs/cgroup/{kind}"), false),
            _ => return Vec::new(),
        };
        let own = Path::new(parts.next().unwrap_or("/"));
        // In a container the path may be the host's, of which only the top is to be seen.
        let folders = own.ancestors().map(|group| root.join(&base).join(group.strip_prefix("/").unwrap_or(group)));
        folders.map(|folder| Group { folder, is_v2 }).collect()
    };
    text.lines().flat_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files.
    fn root(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("ptth-memory-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[track_caller]
    fn check(name: &str, files: &[(&str, &str)], want: Option<u64>) {
        let root = root(name, files);
        let found = available_bytes(&root, "self");
        let _ = std::fs::remove_dir_all(&root);
        assert_eq!(found, want, "{name}: {files:?}");
    }

    #[test]
    fn the_tightest_bound_around_the_process_counts() {
        let machine = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree:  1 kB\n");
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let v1 = ("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/x\n1:name=systemd:/\n0::/\n");
        check("nothing", &[("proc/other", "")], None);
        check("machine", &[machine], Some(1_024_000));
        check("odd", &[("proc/meminfo", "MemTotal: many\n")], None);
        check("v2-none", &[machine, v2, ("sys/fs/cgroup/a/b/memory.max", "max\n")], Some(1_024_000));
        check("v2-own", &[machine, v2, ("sys/fs/cgroup/a/b/memory.max", "5000\n")], Some(5_000));
        let above = ("sys/fs/cgroup/a/memory.max", "4000\n");
        check("v2-above", &[machine, v2, above, ("sys/fs/cgroup/a/b/memory.max", "5000\n")], Some(4_000));
        check("v2-top", &[machine, v2, ("sys/fs/cgroup/memory.max", "3000\n")], Some(3_000));
        check("v2-larger", &[machine, v2, ("sys/fs/cgroup/memory.max", "9000000\n")], Some(1_024_000));
        check("v1-own", &[machine, v1, ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "7000\n")], Some(7_000));
        check("v1-top", &[machine, v1, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8000\n")], Some(8_000));
        let other = ("sys/fs/cgroup/cpu/x/memory.limit_in_bytes", "1\n");
        check("v1-other", &[machine, v1, other], Some(1_024_000));
    }

    #[test]
    fn this_process_has_a_size_and_a_bound_above_it() {
        let statm = File::open("/proc/self/statm").unwrap();
        let pages = resident_pages(&statm).expect("a number");
        assert_eq!(resident_pages(&statm).map(|again| again > 0), Some(true), "it can be read again");
        let bytes = pages * rustix::param::page_size() as u64;
        let max = bytes_max(MemoryMax::Share(100)).expect("Linux tells it");
        assert!(bytes > 100_000 && bytes < max, "{bytes} of {max}");
        assert_eq!(bytes_max(MemoryMax::Bytes(7)), Some(7));
        assert_eq!(bytes_max(MemoryMax::Unbounded), None);
    }
}
