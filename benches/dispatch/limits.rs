//! Every bound of the tool, with its unit and its reason. No code enters here.

/// Workers of one run. Each is a connection and a heap entry; beyond it the tool itself would be what is measured.
pub const WORKERS_MAX: u32 = 1024;
/// Requests of one trace: about 100 bytes each are kept, so 200 MB.
pub const REQUESTS_MAX: u32 = 2_000_000;
/// Fewer have no quantiles.
pub const REQUESTS_MIN: u32 = 10;
/// Shortest mean service time. Below it a thread that reads and writes four times for each request falls behind.
pub const MEAN_US_MIN: u32 = 100;
/// Longest mean service time: a minute.
pub const MEAN_US_MAX: u32 = 60_000_000;
/// Largest offered load, in parts of what the workers can do.
pub const LOAD_MAX: f64 = 10.0;
/// Longest trace that is let through, in seconds: two hours.
pub const TRACE_SECONDS_MAX: f64 = 7_200.0;
/// Loads, seeds, or CPUs, of one session.
pub const LIST_MAX: usize = 20;
/// Requests that may wait in an edge when no bound is measured: the most that it takes, and more than there can be
/// connections.
pub const QUEUE_UNBOUNDED: u32 = 1_000_000;
/// Client connections, unless `--connections-max` or the descriptors say less.
pub const CONNECTIONS_MAX: u32 = 19_000;
/// Descriptors that are not client connections: epoll, timer, files, listeners, pipes.
pub const FDS_RESERVED: u64 = 200;
/// Connections that are open beyond the most that the ideal needs at once, so that a send never waits for one.
pub const CONNECTIONS_SPARE: usize = 64;
/// When so few connections are free, one more is opened with each send.
pub const CONNECTIONS_LOW: usize = 8;
/// Connections that are being opened at once while the pool grows ahead of a pass: a small part of a listener's
/// backlog.
pub const CONNECTING_MAX: usize = 256;
/// A whole head of a request or response, and a body of an answer. Beyond it the connection is closed.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one read: a head and a small body, several times over.
pub const READ_BYTES: usize = 8 * 1024;
/// Connections that the workers of one run may accept, for proxies that close and open again.
pub const WORKER_LINES_MAX: usize = 100_000;
/// Events taken from the kernel at once. Due timers and sends are looked at after each of them.
pub const EVENTS_MAX: usize = 64;
/// From the start of a program to its first accepted connection, or for one setup.
pub const START_MS_MAX: u64 = 10_000;
/// A pass without an answer for so long, beyond the longest service time, is over: what is missing counts as lost.
pub const SILENCE_MS_MAX: u64 = 10_000;
/// From the signal to the end of a program; then it is killed.
pub const END_MS_MAX: u64 = 5_000;
/// One read of the admin address.
pub const ADMIN_MS_MAX: u64 = 5_000;
/// Its answer.
pub const ADMIN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lines of a program's log that are shown when it fails.
pub const LOG_LINES_SHOWN: usize = 12;
/// A request counts as passed over when it waited longer than this, beyond the path's time.
pub const INVERSION_NS_MIN: u64 = 1_000_000;
/// Load of the pass that measures the path: the workers are nearly always idle, so nothing waits.
pub const PATH_LOAD: f64 = 0.05;
/// A pass during which something else used more than this part of a CPU is told apart.
pub const OTHERS_CPU_MAX: f64 = 0.1;
/// So it is when 1 % of the sends were late by more than this part of the mean service time.
pub const LATE_PART_MAX: f64 = 0.05;
