//! What the kernel tells of this host, and what follows from it for an edge or a worker. Each rule is a function over text from
//! /proc and /sys; [`look`] fetches the text. A configuration's own rules never enter.

use super::Finding;
use super::config::Threads;
use crate::clock::now;
use crate::edge::memory::{self, groups};
use crate::io;
use crate::limits::{DOCTOR_STEAL_MS, FDS_RESERVED, LISTEN_BACKLOG};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Fewer descriptors than this are soon too few for an edge that anybody can reach.
const DESCRIPTORS_WANTED: u64 = 65_536;
/// A window of this is 160 MB/s over 100 ms, as in tuning/.
const WINDOW_WANTED: u64 = 16 << 20;
/// Less memory than this is soon full: an edge begins with some 35 MiB.
const MEMORY_WANTED: u64 = 256 << 20;
/// Less of the CPUs' time taken by the host is nothing to speak of.
const STEAL_PERCENT: f64 = 2.0;

/// All of it. `process` is a running edge's, whose limits count then and not this program's own.
pub(super) fn look(root: &Path, process: Option<u32>, threads: &Threads) -> Vec<Finding> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let own = process.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let of = |name: &str| read(&format!("proc/{own}/{name}"));
    let sysctl = |name: &str| read(&format!("proc/sys/{name}"));
    let release = sysctl("kernel/osrelease");
    let limits = of("limits");
    let cpus = cpus_allowed(&of("status"));
    let count = threads.count(cpus.len());
    let whose = process.map_or_else(|| "this shell".to_owned(), |pid| format!("the edge that runs ({pid})"));
    let steal = sample(|| read("proc/stat"));
    let mut all = vec![kernel(&release)];
    all.extend(locked_memory(&release, &limits));
    all.push(descriptors(&limits, count, &whose));
    all.push(available_memory(memory::available(&own), &read("proc/meminfo")));
    all.push(cores(threads, &cpus, quota(root, &own)));
    all.push(stolen(&steal.0, &steal.1));
    all.push(clock_source(&read("sys/devices/system/clocksource/clocksource0/current_clocksource")));
    all.push(governor(&governors(root, &cpus), &read("proc/cpuinfo")));
    let thp = |name: &str| read(&format!("sys/kernel/mm/transparent_hugepage/{name}"));
    all.push(huge_pages(&thp("enabled"), &thp("defrag")));
    if threads.are_edges() {
        all.push(backlog(&sysctl("net/core/somaxconn")));
        all.extend(cards(&look_at_cards(root), count));
    } else {
        all.push(ports(&sysctl("net/ipv4/ip_local_port_range")));
    }
    all.push(slow_start(&sysctl("net/ipv4/tcp_slow_start_after_idle")));
    all.push(windows(&sysctl("net/ipv4/tcp_rmem"), &sysctl("net/ipv4/tcp_wmem")));
    all
}

/// The same text twice, with a pause between.
fn sample(read: impl Fn() -> String) -> (String, String) {
    let before = read();
    let by = now().plus_ms(DOCTOR_STEAL_MS);
    // Nobody sends: it is a pause.
    let (_keeps, pause) = mpsc::channel::<()>();
    while by.ms_since(now()) > 0 {
        let _ = pause.recv_timeout(Duration::from_millis(by.ms_since(now())));
    }
    (before, read())
}

pub(super) fn is_edge(root: &Path, pid: u32) -> bool {
    std::fs::read_to_string(root.join(format!("proc/{pid}/comm"))).is_ok_and(|name| name.trim() == "ptth")
}

/// Sets a ring up, as each core does at its start.
pub(super) fn takes_io_uring() -> Result<(), String> {
    let thread = std::thread::spawn(|| io::run(|| std::future::ready(())).map_err(|fault| fault.to_string()));
    thread.join().unwrap_or_else(|_| Err("setting up a ring ended by a panic".into()))
}

pub(super) fn io_uring(takes: Result<(), String>, root: &Path) -> Finding {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    ring(takes, &read("proc/sys/kernel/io_uring_disabled"), &read("proc/self/status"))
}

fn ring(takes: Result<(), String>, disabled: &str, status: &str) -> Finding {
    // Kernels before 6.6 have no such switch.
    let switch = match disabled.trim() {
        "" => String::new(),
        value => format!(", kernel.io_uring_disabled is {value}"),
    };
    let filtered = field(status, "Seccomp:").is_some_and(|mode| mode != "0");
    let seccomp = if filtered { ", a seccomp filter is in place" } else { ", no seccomp filter" };
    match takes {
        Ok(()) => Finding::good("io_uring", format!("a ring can be set up{switch}{seccomp}")),
        Err(why) => {
            // `io` says both in one line. A filter may answer as a kernel without io_uring would.
            let (saw, mend) = why.split_once(": ").unwrap_or((&why, "look at `dmesg`"));
            let saw = if filtered { "a ring cannot be set up" } else { saw };
            let saw = format!("{saw}{switch}{seccomp}");
            Finding::wrong("io_uring", saw, "every core waits for its sockets by a ring; there is no other way", mend)
        }
    }
}

/// The value behind a name at the beginning of a line.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// `6.18.44-amd64` is (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Finding {
    let saw = format!("Linux {}", release.trim());
    let newer = "use a newer kernel: Debian 12 has 6.1, Ubuntu 24.04 has 6.8";
    match version(release) {
        Some(version) if version < (5, 11) => {
            Finding::wrong("kernel", saw, "what the edge asks of io_uring is there since Linux 5.11", newer)
        }
        Some(version) if version < (6, 0) => {
            let why = "since Linux 6.0 a ring need not interrupt its thread, which spares some CPU for each request";
            Finding::advice("kernel", saw, why, newer)
        }
        Some(_) => Finding::good("kernel", saw),
        None => Finding::advice("kernel", "its version cannot be read", "5.11 is needed", "look at `uname -r`"),
    }
}

/// The hard limit in a line of `/proc/PID/limits`; `u64::MAX` is unlimited.
fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    match field(limits, name)?.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Only where rings count as locked memory.
fn locked_memory(release: &str, limits: &str) -> Option<Finding> {
    let limit =
        hard_limit(limits, "Max locked memory").filter(|_| version(release).is_some_and(|own| own < (5, 12)))?;
    let saw = if limit == u64::MAX { "unlimited".to_owned() } else { format!("{limit} bytes") };
    Some(if limit < 8 << 20 {
        let why = "before Linux 5.12 the rings count as locked memory, some 100 KiB for each core and more under load";
        Finding::wrong("locked memory", saw, why, "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited")
    } else {
        Finding::good("locked memory", saw)
    })
}

fn descriptors(limits: &str, threads: usize, whose: &str) -> Finding {
    let about = "descriptors";
    let Some(limit) = hard_limit(limits, "Max open files") else {
        return Finding::advice(about, "the limit cannot be read", "each connection takes one", "look at ulimit -Hn");
    };
    let saw = if limit == u64::MAX { format!("unlimited, for {whose}") } else { format!("{limit}, for {whose}") };
    let mend = "LimitNOFILE=1048576 in the unit; elsewhere ulimit -Hn, or --ulimit nofile= of a container";
    // As the edge counts at its start.
    let needed = ((threads + 1) * FDS_RESERVED) as u64;
    if limit < needed {
        let why = format!("{threads} cores need {needed} to start");
        Finding::wrong(about, saw, why, mend)
    } else if limit < DESCRIPTORS_WANTED {
        Finding::advice(
            about,
            saw,
            "each client and each link takes one; at the limit, clients wait in the kernel",
            mend,
        )
    } else {
        Finding::good(about, saw)
    }
}

fn available_memory(available: Option<u64>, meminfo: &str) -> Finding {
    let machine = field(meminfo, "MemTotal:").and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
    let about = "memory";
    let (Some(available), Some(machine)) = (available, machine.map(|kib| kib * 1024)) else {
        let mend = "mount /proc, or write a size in limits.memory_max";
        return Finding::advice(
            about,
            "/proc does not tell how much there is",
            "`memory_max` bounds nothing then",
            mend,
        );
    };
    let mib = |bytes: u64| bytes >> 20;
    let saw = if available < machine {
        format!("{} MiB by the cgroup, of the machine's {} MiB", mib(available), mib(machine))
    } else {
        format!("{} MiB, the machine's; no cgroup says less", mib(available))
    };
    if available < MEMORY_WANTED {
        let why = "an edge begins with some 35 MiB and answers 503 from 95 % of `memory_max` on, which is 75 % of this";
        Finding::advice(about, saw, why, "give it more (MemoryMax= of the unit, --memory of the container)")
    } else {
        Finding::good(about, saw)
    }
}

/// `Cpus_allowed_list` of `/proc/PID/status`.
fn cpus_allowed(status: &str) -> Vec<u16> {
    let ranges = field(status, "Cpus_allowed_list:").unwrap_or_default().split(',');
    let range = |text: &str| {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        Some(from.trim().parse::<u16>().ok()?..=to.trim().parse::<u16>().ok()?)
    };
    ranges.filter_map(range).flatten().collect()
}

/// CPUs' worth of time that the cgroups around a process give it; `None`: all of it.
fn quota(root: &Path, process: &str) -> Option<f64> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let of = |group: memory::Group| match group.is_v2 {
        true => share(&read(&group.folder.join("cpu.max"))),
        false => {
            let of = |name: &str| read(&group.folder.join(name)).trim().to_owned();
            share(&format!("{} {}", of("cpu.cfs_quota_us"), of("cpu.cfs_period_us")))
        }
    };
    groups(root, process, "cpu").into_iter().filter_map(of).min_by(f64::total_cmp)
}

/// `150000 100000` is 1.5; `max 100000` and `-1 100000` are no bound.
fn share(text: &str) -> Option<f64> {
    let mut parts = text.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(quota)), Some(Ok(period))) = (parts.next(), parts.next()) else { return None };
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn cores(threads: &Threads, cpus: &[u16], quota: Option<f64>) -> Finding {
    let about = "cores";
    let count = threads.count(cpus.len());
    let here = cpus.len();
    let threads_are = if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") };
    let saw = match quota {
        Some(quota) => format!("{threads_are}; {here} CPUs may be used, for {quota:.2} CPUs' time"),
        None => format!("{threads_are}; {here} CPUs may be used, without a quota"),
    };
    if let Some(cpu) = threads.cpus().iter().find(|cpu| !cpus.is_empty() && !cpus.contains(cpu)) {
        let saw = format!("{saw}; CPU {cpu} of `cores` is not among them");
        return Finding::wrong(
            about,
            saw,
            "a core is pinned to its CPU, so the edge does not start",
            "name others in `cores`",
        );
    }
    // A thread that has no CPU's time of its own for a moment is what a quota is for; a whole one too many is not.
    if let Some(quota) = quota.filter(|quota| quota.ceil() < count as f64) {
        let why = "when the quota of a period (100 ms) is used up, all threads stand still until the next one";
        let mend = format!(
            "`cores = {}` in [edge], or a larger quota (CPUQuota=, --cpus, limits.cpu)",
            (quota as usize).max(1)
        );
        return Finding::wrong(about, saw, why, mend);
    }
    if here > 0 && count > here {
        return Finding::advice(
            about,
            saw,
            "threads that share a CPU wait for each other",
            format!("`cores = {here}` in [edge]"),
        );
    }
    Finding::good(about, saw)
}

/// Two readings of `/proc/stat`.
fn stolen(before: &str, after: &str) -> Finding {
    let about = "steal time";
    // user nice system idle iowait irq softirq steal; what guests get is in user and nice (proc_stat(5)).
    let times = |text: &str| -> Option<(u64, u64)> {
        let times: Vec<u64> =
            field(text, "cpu ")?.split_whitespace().filter_map(|time| time.parse().ok()).take(8).collect();
        Some((times.iter().sum(), *times.get(7)?))
    };
    let (Some((all_before, before)), Some((all, after))) = (times(before), times(after)) else {
        return Finding::good(about, "this kernel does not tell it");
    };
    let percent = after.saturating_sub(before) as f64 / all.saturating_sub(all_before).max(1) as f64 * 100.0;
    let saw = format!("{percent:.0} % in the last {DOCTOR_STEAL_MS} ms");
    if percent < STEAL_PERCENT {
        return Finding::good(about, saw);
    }
    let why =
        "the host of this virtual machine runs others on its CPUs; requests wait meanwhile, and no figure tells it";
    Finding::advice(about, saw, why, "watch `vmstat 1` (st); take dedicated CPUs, or another host")
}

fn clock_source(current: &str) -> Finding {
    let (about, current) = ("clock", current.trim());
    match current {
        "" => Finding::good(about, "the clock source cannot be read (a container?)"),
        // Those that are read without a system call.
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter" | "riscv_clocksource" => {
            Finding::good(about, format!("its source is {current}"))
        }
        other => {
            let why = "each look at the clock is a system call with this source, and a request looks several times";
            let mend = "see available_clocksource beside it; `tsc` by clocksource=tsc at boot, if the kernel has not found it unstable (dmesg)";
            Finding::advice(about, format!("its source is {other}"), why, mend)
        }
    }
}

/// Each CPU's governor, where it has one.
fn governors(root: &Path, cpus: &[u16]) -> Vec<String> {
    let of = |cpu: &u16| root.join(format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"));
    cpus.iter().filter_map(|cpu| std::fs::read_to_string(of(cpu)).ok()).map(|text| text.trim().to_owned()).collect()
}

fn governor(governors: &[String], cpuinfo: &str) -> Finding {
    let about = "CPU governor";
    let is_virtual = cpuinfo.lines().any(|line| {
        line.split_once(':').is_some_and(|(name, flags)| {
            name.trim() == "flags" && flags.split_whitespace().any(|flag| flag == "hypervisor")
        })
    });
    let Some(first) = governors.first() else {
        let why = if is_virtual {
            "this is a virtual machine: its host decides"
        } else {
            "no driver, or the firmware decides"
        };
        return Finding::good(about, format!("there is none; {why}"));
    };
    match governors.iter().find(|governor| *governor != "performance") {
        None => Finding::good(about, first.as_str()),
        Some(other) => {
            let why = "a core that sleeps between requests wakes with a low clock";
            Finding::advice(
                about,
                other.as_str(),
                why,
                "tuning/tune apply governor, or cpupower frequency-set -g performance",
            )
        }
    }
}

/// What is chosen in `always [madvise] never`.
fn chosen(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(chosen, _)| chosen)
}

fn huge_pages(enabled: &str, defrag: &str) -> Finding {
    let about = "transparent huge pages";
    let (enabled, defrag) = (chosen(enabled), chosen(defrag));
    if enabled.is_empty() {
        return Finding::good(about, "this kernel has none");
    }
    let saw = format!("{enabled}, defrag {defrag}");
    if enabled != "always" && defrag != "always" {
        return Finding::good(about, saw);
    }
    let why = "with `always` every heap is rounded up to 2 MiB; with defrag at `always` a page fault may wait for memory to be tidied";
    Finding::advice(
        about,
        saw,
        why,
        "tuning/tune apply thp, or write madvise to /sys/kernel/mm/transparent_hugepage/{enabled,defrag}",
    )
}

fn backlog(somaxconn: &str) -> Finding {
    let saw = format!("net.core.somaxconn is {}", somaxconn.trim());
    match somaxconn.trim().parse::<i32>() {
        Ok(number) if number < LISTEN_BACKLOG => {
            let why = format!(
                "each listener asks for {LISTEN_BACKLOG} waiting connections and the kernel cuts that; a full backlog drops handshakes, and clients wait a second"
            );
            Finding::advice("backlog", saw, why, format!("sysctl -w net.core.somaxconn={LISTEN_BACKLOG}"))
        }
        Ok(_) => Finding::good("backlog", saw),
        Err(_) => Finding::good("backlog", "net.core.somaxconn cannot be read here"),
    }
}

fn slow_start(value: &str) -> Finding {
    let about = "links that rest";
    match value.trim() {
        "1" => {
            let why =
                "a link that has rested begins again with ten packets; over a long path its next large body is slow";
            let mend = "sysctl -w net.ipv4.tcp_slow_start_after_idle=0";
            Finding::advice(about, "net.ipv4.tcp_slow_start_after_idle is 1", why, mend)
        }
        "" => Finding::good(about, "net.ipv4.tcp_slow_start_after_idle cannot be read here"),
        value => Finding::good(about, format!("net.ipv4.tcp_slow_start_after_idle is {value}")),
    }
}

fn windows(receive: &str, send: &str) -> Finding {
    let about = "TCP windows";
    let last = |text: &str| text.split_whitespace().nth(2).and_then(|number| number.parse::<u64>().ok());
    let (Some(receive), Some(send)) = (last(receive), last(send)) else {
        return Finding::good(about, "net.ipv4.tcp_rmem and tcp_wmem cannot be read here");
    };
    let saw = format!("at most {} KiB in, {} KiB out", receive >> 10, send >> 10);
    if receive.min(send) >= WINDOW_WANTED {
        return Finding::good(about, saw);
    }
    // bytes / 100 ms, in MB/s
    let rate = receive.min(send) / 100_000;
    let why = format!("a link carries many requests, and over a path of 100 ms it can carry {rate} MB/s at most");
    let set = |name: &str, own: u64, lowest: &str| {
        if own < WINDOW_WANTED { format!(" net.ipv4.{name}='{lowest} {WINDOW_WANTED}'") } else { String::new() }
    };
    let mend = format!(
        "where links cross long paths: sysctl -w{}{}",
        set("tcp_rmem", receive, "4096 131072"),
        set("tcp_wmem", send, "4096 16384")
    );
    Finding::advice(about, saw, why, mend)
}

fn ports(range: &str) -> Finding {
    let about = "outgoing ports";
    let mut ends = range.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(from)), Some(Ok(to))) = (ends.next(), ends.next()) else {
        return Finding::good(about, "net.ipv4.ip_local_port_range cannot be read here");
    };
    let count = (to + 1).saturating_sub(from);
    let saw = format!("{count}, net.ipv4.ip_local_port_range is {from} {to}");
    if count >= 10_000 {
        return Finding::good(about, saw);
    }
    let why = "a server that closes each connection takes a port for a minute";
    Finding::advice(about, saw, why, "sysctl -w net.ipv4.ip_local_port_range='32768 60999', or wider")
}

/// A network card, as /sys/class/net has it.
struct Card {
    name: String,
    queues: usize,
    /// `rps_cpus` of each of them.
    spread: Vec<String>,
}

fn look_at_cards(root: &Path) -> Vec<Card> {
    let Ok(names) = std::fs::read_dir(root.join("sys/class/net")) else { return Vec::new() };
    let card = |path: &Path| {
        // Loopback, bridges and the like have no device behind them.
        path.join("device").exists().then_some(())?;
        let queues = std::fs::read_dir(path.join("queues")).ok()?.filter_map(Result::ok);
        let queues: Vec<_> = queues.filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-")).collect();
        let spread =
            queues.iter().map(|queue| std::fs::read_to_string(queue.path().join("rps_cpus")).unwrap_or_default());
        Some(Card {
            name: path.file_name()?.to_string_lossy().into_owned(),
            queues: queues.len(),
            spread: spread.collect(),
        })
    };
    let mut cards: Vec<Card> = names.filter_map(Result::ok).filter_map(|entry| card(&entry.path())).collect();
    cards.sort_by(|one, other| one.name.cmp(&other.name));
    cards
}

fn cards(cards: &[Card], threads: usize) -> Vec<Finding> {
    let of = |card: &Card| {
        let about = format!("network card {}", card.name);
        let is_spread = card.spread.iter().any(|mask| mask.chars().any(|c| c.is_ascii_hexdigit() && c != '0'));
        let queues = if card.queues == 1 { "1 queue".to_owned() } else { format!("{} queues", card.queues) };
        let saw = format!(
            "{queues} for {threads} cores, spread by the kernel (RPS): {}",
            if is_spread { "yes" } else { "no" }
        );
        if card.queues >= threads || is_spread || card.queues == 0 {
            return Finding::good(&about, saw);
        }
        let why = "its packets come in on fewer CPUs than the edge has; under much load those are full first";
        Finding::advice(
            &about,
            saw,
            why,
            "tuning/tune apply irq, where `mpstat -P ALL 1` shows one CPU busy with %soft",
        )
    };
    cards.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Grade::{self, Advice, Good, Wrong};
    use super::*;
    use crate::edge::config::Cores;

    #[track_caller]
    fn check(finding: Finding, grade: Grade, saw: &str) {
        assert_eq!(finding.grade, grade, "{finding:?}");
        assert!(finding.saw.contains(saw), "{finding:?} has no {saw:?}");
        let is_good = grade == Good;
        assert!(finding.why.is_empty() == is_good && finding.mend.is_empty() == is_good, "{finding:?}");
    }

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max cpu time              unlimited            unlimited            seconds   \n\
        Max open files            1024                 524288               files     \n\
        Max locked memory         65536                65536                bytes     \n\
        Max address space         unlimited            unlimited            bytes     \n";

    #[test]
    fn a_kernel_is_too_old_old_or_good() {
        check(kernel("4.18.0-553.el8_10.x86_64\n"), Wrong, "Linux 4.18.0-553");
        check(kernel("5.10.0-32-amd64\n"), Wrong, "5.10");
        check(kernel("5.15.0-122-generic\n"), Advice, "5.15");
        check(kernel("6.1.0-25-amd64\n"), Good, "6.1.0-25-amd64");
        check(kernel("6.18.44-fc-v657\n"), Good, "6.18");
        check(kernel("10.0\n"), Good, "10.0");
        check(kernel(""), Advice, "cannot be read");
    }

    #[test]
    fn a_ring_is_there_or_it_is_told_why_not() {
        let status = |mode: &str| format!("Name:\tptth\nSeccomp:\t{mode}\nSeccomp_filters:\t0\n");
        check(ring(Ok(()), "0\n", &status("0")), Good, "kernel.io_uring_disabled is 0, no seccomp filter");
        check(ring(Ok(()), "", &status("2")), Good, "a ring can be set up, a seccomp filter is in place");
        let refused =
            "io_uring is forbidden to this process: in a container use a seccomp profile that allows it".to_owned();
        let finding = ring(Err(refused), "0\n", &status("2"));
        assert!(finding.mend.starts_with("in a container use a seccomp profile"), "{finding:?}");
        check(finding, Wrong, "a ring cannot be set up, kernel.io_uring_disabled is 0, a seccomp filter is in place");
    }

    #[test]
    fn descriptors_are_counted_as_the_edge_counts_them() {
        let limits = |hard: &str| LIMITS.replace("524288", hard);
        check(descriptors(LIMITS, 2, "this shell"), Good, "524288, for this shell");
        check(descriptors(&limits("unlimited"), 2, "x"), Good, "unlimited");
        check(descriptors(&limits("20000"), 2, "x"), Advice, "20000");
        check(descriptors(&limits("1024"), 15, "x"), Advice, "1024");
        check(descriptors(&limits("1023"), 15, "x"), Wrong, "1023");
        check(descriptors("", 2, "x"), Advice, "cannot be read");
    }

    #[test]
    fn locked_memory_counts_on_old_kernels_alone() {
        assert_eq!(locked_memory("6.1.0", LIMITS), None);
        check(locked_memory("5.11.0", LIMITS).expect("old"), Wrong, "65536 bytes");
        check(locked_memory("5.11.0", &LIMITS.replace("65536", "unlimited")).expect("old"), Good, "unlimited");
    }

    #[test]
    fn memory_is_the_cgroups_or_the_machines() {
        let meminfo = "MemTotal:       24643048 kB\nMemFree:        10000 kB\n";
        check(available_memory(Some(24_643_048 << 10), meminfo), Good, "24065 MiB, the machine's; no cgroup says less");
        check(available_memory(Some(512 << 20), meminfo), Good, "512 MiB by the cgroup, of the machine's 24065 MiB");
        check(available_memory(Some(64 << 20), meminfo), Advice, "64 MiB by the cgroup");
        check(available_memory(None, ""), Advice, "does not tell");
    }

    #[test]
    fn threads_are_held_against_cpus_and_their_quota() {
        let edge = |cores: Cores| Threads::of_edge(&cores);
        check(cores(&edge(Cores::All), &[0, 1], None), Good, "2 threads; 2 CPUs may be used, without a quota");
        check(
            cores(&edge(Cores::All), &[0, 1, 2, 3], Some(1.5)),
            Wrong,
            "4 threads; 4 CPUs may be used, for 1.50 CPUs' time",
        );
        check(cores(&edge(Cores::Count(2)), &[0, 1, 2, 3], Some(1.5)), Good, "2 threads");
        check(cores(&edge(Cores::Count(3)), &[0, 1], None), Advice, "3 threads; 2 CPUs");
        check(cores(&edge(Cores::Cpus(vec![0, 2])), &[0, 1], None), Wrong, "CPU 2 of `cores` is not among them");
        check(cores(&Threads::OfWorker, &[0, 1], Some(0.5)), Good, "1 thread;");
        assert!(cores(&edge(Cores::All), &[0, 1, 2], Some(0.3)).mend.starts_with("`cores = 1`"));
    }

    #[test]
    fn quotas_of_both_versions_are_read() {
        for (text, want) in [
            ("max 100000\n", None),
            ("150000 100000\n", Some(1.5)),
            ("-1 100000", None),
            ("50000 100000", Some(0.5)),
            (" ", None),
            ("1 0", None),
        ] {
            assert_eq!(share(text), want, "{text:?}");
        }
        assert_eq!(cpus_allowed("Cpus_allowed:\tff\nCpus_allowed_list:\t0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(cpus_allowed(""), [0u16; 0]);
    }

    #[test]
    fn the_tightest_quota_around_a_process_counts() {
        let root = std::env::temp_dir().join(format!("ptth-doctor-{}-quota", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        write("sys/fs/cgroup/a/cpu.max", "250000 100000\n");
        let v2 = quota(&root, "self");
        write("proc/7/cgroup", "4:cpu,cpuacct:/x\n0::/\n");
        write("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "50000\n");
        write("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
        let v1 = quota(&root, "7");
        let none = quota(&root, "8");
        let _ = std::fs::remove_dir_all(&root);
        assert_eq!((v2, v1, none), (Some(2.5), Some(0.5), None));
    }

    #[test]
    fn stolen_time_is_a_share_of_all_time_between_two_looks() {
        let stat = |idle: u64, steal: u64| format!("cpu  100 0 100 {idle} 0 0 0 {steal} 50 0\ncpu0 1 2 3\nintr 5\n");
        check(stolen(&stat(1_000, 10), &stat(1_100, 10)), Good, "0 % in the last 500 ms");
        check(stolen(&stat(1_000, 10), &stat(1_099, 11)), Good, "1 %");
        check(stolen(&stat(1_000, 10), &stat(1_080, 30)), Advice, "20 %");
        check(stolen(&stat(1_000, 10), &stat(1_000, 10)), Good, "0 %");
        check(stolen("cpu  1 2 3 4\n", "cpu  1 2 3 4\n"), Good, "does not tell");
    }

    #[test]
    fn a_clock_that_needs_a_system_call_is_told() {
        check(clock_source("tsc\n"), Good, "tsc");
        check(clock_source("kvm-clock\n"), Good, "kvm-clock");
        check(clock_source("hpet\n"), Advice, "hpet");
        check(clock_source("acpi_pm\n"), Advice, "acpi_pm");
        check(clock_source(""), Good, "cannot be read");
    }

    #[test]
    fn governors_are_for_machines_that_have_them() {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        check(governor(&[], "flags\t\t: fpu hypervisor lahf_lm\n"), Good, "a virtual machine: its host decides");
        check(governor(&[], "flags\t\t: fpu lahf_lm\n"), Good, "no driver");
        check(governor(&named(&["performance", "performance"]), ""), Good, "performance");
        check(governor(&named(&["performance", "schedutil"]), ""), Advice, "schedutil");
    }

    #[test]
    fn huge_pages_for_all_are_told() {
        let defrag = |mode: &str| "always defer defer+madvise madvise never".replace(mode, &format!("[{mode}]"));
        check(huge_pages("always [madvise] never\n", &defrag("never")), Good, "madvise, defrag never");
        check(huge_pages("[always] madvise never\n", &defrag("never")), Advice, "always, defrag never");
        check(huge_pages("always madvise [never]\n", "[always] madvise never\n"), Advice, "never, defrag always");
        check(huge_pages("", ""), Good, "none");
    }

    #[test]
    fn what_the_network_has_is_held_against_what_links_need() {
        check(backlog("4096\n"), Good, "4096");
        check(backlog("128\n"), Advice, "net.core.somaxconn is 128");
        check(backlog(""), Good, "cannot be read");
        check(slow_start("1\n"), Advice, "is 1");
        check(slow_start("0\n"), Good, "is 0");
        check(slow_start(""), Good, "cannot be read");
        let finding = windows("4096\t131072\t33554432\n", "4096\t16384\t4194304\n");
        assert_eq!(finding.mend, "where links cross long paths: sysctl -w net.ipv4.tcp_wmem='4096 16384 16777216'");
        assert!(finding.why.contains(" 41 MB/s"), "{finding:?}");
        check(finding, Advice, "at most 32768 KiB in, 4096 KiB out");
        check(windows("4096 1 16777216", "4096 1 16777216"), Good, "16384 KiB");
        check(windows("", ""), Good, "cannot be read");
        check(ports("32768\t60999\n"), Good, "28232, net.ipv4.ip_local_port_range is 32768 60999");
        check(ports("60000 60999\n"), Advice, "1000, ");
        check(ports(""), Good, "cannot be read");
    }

    #[test]
    fn cards_with_few_queues_are_spread_or_told() {
        let card = |queues: usize, mask: &str| Card { name: "eth0".into(), queues, spread: vec![mask.into(); queues] };
        let one = |card: Card, threads| cards(&[card], threads).remove(0);
        check(one(card(1, "00000000,00000000\n"), 2), Advice, "1 queue for 2 cores, spread by the kernel (RPS): no");
        check(one(card(1, "00000000,00000003\n"), 2), Good, "yes");
        check(one(card(4, "0\n"), 4), Good, "4 queues for 4 cores");
        check(one(card(1, "0\n"), 1), Good, "1 queue for 1 cores");
        check(one(card(0, ""), 4), Good, "0 queues");
        assert!(cards(&[], 4).is_empty());
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let all = look(Path::new("/"), None, &Threads::of_all());
        let about =
            |name: &str| all.iter().find(|finding| finding.about == name).unwrap_or_else(|| panic!("{name}: {all:?}"));
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
        assert_eq!(about("kernel").saw, format!("Linux {}", release.trim()));
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let descriptors = descriptors.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
        assert_eq!(about("descriptors").saw, format!("{descriptors}, for this shell"));
        let cpus = std::thread::available_parallelism().expect("a number").get();
        assert!(cores_of(&about("cores").saw) >= cpus, "{:?}, but {cpus} CPUs", about("cores"));
        assert!(about("memory").saw.contains(" MiB"));
        assert_eq!(takes_io_uring(), Ok(()), "the tests of `io` need it, too");
    }

    /// A quota makes `available_parallelism` smaller, never larger.
    fn cores_of(saw: &str) -> usize {
        let (_, rest) = saw.split_once("; ").expect("threads; CPUs");
        rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    }
}
