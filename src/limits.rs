//! Every bound of the program, with its unit, its reason and what it costs. No code enters here.
//!
//! A bound that a user can set has its default here and its key in the configuration; the rest are fixed.

// ---- heads (client requests, worker responses, setups) ----

/// One line of a head, its CR LF not counted. Longer request lines are answered 414, longer field lines 431.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// A whole head, first line to blank line. Answered 431. Costs at most this much for each connection.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields in one head. Answered 431. Stays far below the 32,768 entries at which `http::HeaderMap` refuses.
pub const HEAD_FIELDS_MAX: usize = 100;
/// Empty lines that are skipped before a request line (RFC 9112 §2.2 asks for at least one).
pub const EMPTY_LINES_MAX: usize = 2;
/// Default of `limits.head_max_wait`: first byte of a head to its blank line. A slow byte does not renew it. Answered 408.
pub const HEAD_MS_MAX: u64 = 10_000;
/// Default of `limits.idle_max_wait`: a connection without a request, a new one and one that is kept.
pub const IDLE_MS_MAX: u64 = 60_000;
/// From accept to a complete setup, and from a dial to its 101 in the worker.
pub const SETUP_MS_MAX: u64 = 5_000;

/// Default of `limits.handshake_max_wait`: from a connection's accept to the end of its TLS handshake.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;

// ---- who asked ----

/// A request's own name from a trusted proxy. UUIDs have 36 bytes, nginx's `$request_id` 32; it stands in every log line.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// `Forwarded` or `X-Forwarded-For` of a trusted proxy that goes on as it is, all lines together; a longer one goes on as the
/// addresses that were believed. A quarter of a line, so that our own element fits behind it.
pub const FORWARDED_BYTES_MAX: usize = 2 * 1024;
/// Trusted proxies behind each other. As addresses they take less than [`FORWARDED_BYTES_MAX`].
pub const FORWARDED_HOPS_MAX: usize = 32;
/// Networks in `trusted_proxies`. Each new connection is held against all of them, and each address of a chain (some 2 ns
/// each). CloudFront lists some 200.
pub const TRUSTED_PROXIES_MAX: usize = 1024;
/// A PROXY line, version 1, with its CR LF (proxy-protocol.txt, §2.1).
pub const PROXY_V1_BYTES_MAX: usize = 107;
/// What follows the 16 bytes of a PROXY header, version 2: addresses take 216 bytes at most, a certificate's name or a unique
/// id some hundred. It fits into a connection's first read.
pub const PROXY_V2_BYTES_MAX: usize = 2 * 1024;
/// From accept to the end of a PROXY header. It stands in a connection's first segment.
pub const PROXY_MS_MAX: u64 = 5_000;

// ---- bodies ----

/// A Content-Length. Above it servers that count in signed 64 bits read something else, and HTTP/2 libraries take no 20 digits.
pub const CONTENT_LENGTH_MAX: u64 = i64::MAX as u64;
/// One chunk-size line with its extensions (RFC 9112 §7.1.1 leaves the bound to us).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// A trailer section.
pub const TRAILER_BYTES_MAX: usize = 4 * 1024;
/// Default of `limits.body_stall_max`. A body that makes no progress: 408 from a client, 502 or a cut from a worker. A reader
/// that takes a little of what waits makes progress. Found within two of it.
pub const BODY_STALL_MS_MAX: u64 = 30_000;
/// Default of `limits.body_rate_min`, in bytes for each second, of a request's body, over each `body_stall_max` in which its
/// client was waited for. Kestrel asks for 240 after 5 s (KestrelServerLimits.MinRequestBodyDataRate), Apache 2.4 for 500 after
/// 20 s (mod_reqtimeout); a modem of 2400 bit/s sends as much. A byte every 29 s would else hold a worker for as long as it likes.
pub const BODY_RATE_MIN: u64 = 240;
/// Largest `limits.body_rate_min`: 8 Mbit/s.
pub const BODY_RATE_LIMIT: u64 = 1024 * 1024;
/// Bytes of a request body kept so that the request can be sent again.
pub const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// Pieces that they may be in: one of a few bytes costs some hundred more.
pub const REPLAY_PIECES_MAX: usize = 256;
/// Bytes of a request body that are read and thrown away after an early answer, so that the connection can be kept.
pub const DISCARD_BYTES_MAX: usize = 64 * 1024;
/// Interim (1xx) responses to one request.
pub const INTERIM_MAX: usize = 16;

// ---- buffers ----

/// First read of a connection, and of one that says little; an idle one of HTTP/1.1 gives it back after `PARK_MS`.
pub const READ_BYTES_SMALL: usize = 4 * 1024;
/// A client's connection that has asked nothing for so long gives its read buffer back, and the memory of the task that serves
/// it. Both are made anew with its next request: an allocation, a cancelled read and a poll, which requests in between do not pay.
pub const PARK_MS: u64 = 1_000;
/// A read while a body flows. 64 KiB is four TLS records and the largest loopback segment.
pub const READ_BYTES_LARGE: usize = 64 * 1024;
/// Bytes that wait in a writer before whoever fills it has to flush.
/// A response that has arrived may wait there for a client that reads slowly, while its link serves others: with the last
/// read up to 128 KiB for each connection, for as long as the client takes some of it within `BODY_STALL_MS_MAX`.
pub const WRITE_BYTES_HIGH: usize = 64 * 1024;
/// TLS records of one connection that wait for the kernel, beside that: four of the largest.
pub const SEALED_BYTES_MAX: usize = 64 * 1024;
/// A piece of at least this size is handed to the kernel as it is; a smaller one is copied behind what waits.
pub const WRITE_COPY_BYTES_MAX: usize = 16 * 1024;
/// What is read ahead of a client while its request waits: it notices that the client left, and bounds pipelining.
pub const READ_AHEAD_BYTES_MAX: usize = 4 * 1024;
/// Pieces of a body in one pipe between two cores.
pub const PIPE_PIECES_MAX: usize = 4;

/// A piece taken out of a read buffer is copied below this size; above it the piece shares the buffer. The copy of 2 KiB
/// costs some 50 ns, as much as the fresh buffer that the next read would need while a shared piece lives.
pub const TAKE_COPY_BYTES_MAX: usize = 2 * 1024;
/// A shared piece is at least this part of its buffer, so that a queue of small pieces pins at most so many times its
/// size.
pub const TAKE_SHARE_PART: usize = 8;
/// Write buffers that a core keeps for its next writer: at most 64 * 16 KiB.
pub const WRITE_POOL_BUFFERS_MAX: usize = 64;
/// Pieces handed to the kernel in one call; a head, its body's pieces and their framing fit.
pub const WRITE_SLICES_MAX: usize = 16;

// ---- io_uring ----

/// Submission entries of one core's ring: operations that one turn of the loop starts without an extra system call.
pub const RING_ENTRIES: u32 = 1024;
/// Completion entries: 64 KiB for each core. More than that at once are kept by the kernel, at the cost of an allocation.
pub const RING_COMPLETIONS: u32 = 4 * RING_ENTRIES;
/// Slots of the timer wheel, one for each tick: 51 s, 8 KiB. A timer further away is looked at once a round.
pub const WHEEL_SLOTS: usize = 1024;

// ---- HTTP/2 on links ----

/// Flow-control window of one stream: 256 KiB carries 25 MB/s at 10 ms.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Largest frame on a link: what one read brings. The engine sends frames of many streams in turn, so smaller ones reach their
/// clients in pieces of their size, each by a write of its own: 52 writes for each MiB at 16 KiB.
pub const LINK_FRAME_BYTES_MAX: u32 = READ_BYTES_LARGE as u32;
/// Streams on one link, whatever the worker asks for, unless `per_link_max` says less.
pub const LINK_STREAMS_MAX: u32 = 1024;
/// The connection's window holds every stream's, so a reader that stops never stops its neighbours.
pub const LINK_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * LINK_STREAMS_MAX;
/// Bytes of one stream that the h2 engine holds for sending.
pub const STREAM_SEND_BYTES_MAX: usize = 256 * 1024;
/// Streams that an edge may open and reset before its worker has looked at them: clients that leave in a burst.
pub const EDGE_RESETS_PENDING_MAX: usize = 4096;
/// A request that its client gave up this soon after its dispatch is reset that much later: the worker has seen its head
/// by then, so that a burst of them is no rapid reset, for which an HTTP/2 server would end the link.
pub const RESET_DELAY_MS: u64 = 50;
/// A head as HTTP/2 counts it in a worker: 32 bytes more for each field (RFC 9113 §6.5.2), and the fields that the edge adds.
pub const HEADER_LIST_BYTES_MAX: u32 = 32 * 1024;
/// A response's head as HTTP/2 counts it in an edge: what [`HEAD_BYTES_MAX`] and [`HEAD_FIELDS_MAX`] are over HTTP/1.1, so that
/// a server behind a worker has the same room over either kind of link.
pub const RESPONSE_LIST_BYTES_MAX: u32 = HEAD_BYTES_MAX as u32 + 32 * HEAD_FIELDS_MAX as u32;
/// What the h2 engine may spend on small DATA frames that nobody has read yet, before it ends the connection. Some
/// hundred streams with 64 KiB of 100-byte messages each.
pub const SMALL_FRAMES_BYTES: usize = 64 * 1024 * 1024;
/// Small pieces of a body that arrived together go on as one of this size.
pub const GATHER_BYTES_MAX: usize = 16 * 1024;
/// Resets that a peer may provoke from us.
pub const LOCAL_RESETS_MAX: usize = 1024;
/// Probes of the kernel that an idle TCP peer may leave unanswered.
pub const KEEPALIVE_PROBES: u32 = 4;
/// How long a link whose edge has said that it leaves is idle before its worker ends it: an edge that sends what it has
/// waiting has no pauses of a second.
pub const LINK_LEAVE_MS: u64 = 1_000;
/// PING interval on a link. A dead link is found within two: a whole one in which neither a PONG nor any other byte came.
pub const LINK_PING_MS: u64 = 10_000;

// ---- HTTP/2 of clients ----

/// Default of `limits.streams_max`: requests at once on one client's HTTP/2 connection. RFC 9113 §6.5.2 asks for at least 100.
pub const CLIENT_STREAMS_MAX: u32 = 100;
/// Flow-control window of a client's whole connection: what of its uploads lies in the edge unread, at most. Eight streams'
/// windows carry 20 MB/s at 100 ms; a ninth upload waits while eight that nobody reads fill them.
pub const CLIENT_WINDOW_BYTES: u32 = 8 * STREAM_WINDOW_BYTES;
/// Largest frame of a client: the least that RFC 9113 §4.2 allows, and what browsers send.
pub const CLIENT_FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of one response that the h2 engine holds for a client: 6.4 MiB for a connection whose client reads none of them.
pub const CLIENT_SEND_BYTES_MAX: usize = 64 * 1024;
/// A request's head as HTTP/2 counts it, 32 bytes more for each field: room for what [`HEAD_BYTES_MAX`] and
/// [`HEAD_FIELDS_MAX`] are over HTTP/1.1. The engine answers a larger one 431 itself, and ends the connection at four times it.
pub const CLIENT_LIST_BYTES_MAX: u32 = HEAD_BYTES_MAX as u32 + 32 * HEAD_FIELDS_MAX as u32;
/// As [`SMALL_FRAMES_BYTES`], for a client: the whole connection's window in messages of 56 bytes and more always fits, so gRPC
/// lives, whatever its rate; of one-byte frames it bounds those that nobody has read to 33,000, some 3 MiB.
pub const CLIENT_SMALL_FRAMES_BYTES: usize = 8 * 1024 * 1024;
/// Streams that a client may open and reset before they were looked at (CVE-2023-44487). More than that arrive in one read
/// only from one who means it. hyper's own default.
pub const CLIENT_RESETS_PENDING_MAX: usize = 20;
/// Streams that are remembered after we reset them, for a second: what a client had sent of them by then is no mistake.
pub const CLIENT_RESETS_KEPT: usize = 2 * CLIENT_STREAMS_MAX as usize;
/// PING interval on a client's connection. One that vanished with requests open is found within two; a phone is woken rarely.
pub const CLIENT_PING_MS: u64 = 30_000;
/// How long a connection without requests waits for its client to hear that it ends; and how long it then takes to end.
pub const CLIENT_GOODBYE_MS_MAX: u64 = 2 * LINGER_MS_MAX;
/// Bytes written in `body_stall_max`, or in [`HOARD_MS_MAX`] while memory is short, below which a client reads nothing: PING and
/// its like are written for one, too.
pub const CLIENT_READS_BYTES_MIN: u64 = 1024;

/// Frames of one kind that a client may send for nothing, at once and then in each second: PING, PRIORITY, WINDOW_UPDATE,
/// CONTINUATION, kinds that are not known. A hundred streams can be opened with several each; a steady hundred cost some
/// 0.01 % of a core.
pub const CONTROL_FRAMES_BURST: u32 = 1_000;
pub const CONTROL_FRAMES_PER_S: u32 = 100;
/// Bytes written to a client that pay for one more PING and one more WINDOW_UPDATE. Who reads gives windows back, the worst
/// libraries two for every frame of a hundred bytes; some measure with a PING for each round trip.
pub const CONTROL_FRAME_PAID_BYTES: u64 = 48;
/// Frames that are paid for in advance, at most: 4 MiB under way.
pub const CONTROL_FRAMES_PAID_MAX: u32 = 65_536;
/// SETTINGS, and DATA without data: nobody needs many. The engine ends a connection at its hundredth empty DATA frame.
pub const RARE_FRAMES_BURST: u32 = 100;
pub const RARE_FRAMES_PER_S: u32 = 10;
/// Requests that a client may give up, at once and then in each second (Envoy's and nghttp2's own defaults): each costs a
/// worker work, and holds a credit for [`RESET_DELAY_MS`].
pub const RESET_FRAMES_BURST: u32 = 500;
pub const RESET_FRAMES_PER_S: u32 = 33;
/// Requests that pay for one more that is given up: a busy client whose deadlines pass may lose a quarter, for all time.
pub const RESET_FRAME_PAID_REQUESTS: u64 = 4;

// ---- dispatch ----

/// Defaults of `[[pool]] queue`.
pub const QUEUE_REQUESTS_MAX: usize = 10_000;
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
pub const QUEUE_WAIT_MS_MAX: u64 = 30_000;
/// Requests of one core that a full queue lets wait for a moment, because a credit seems to be idle somewhere. Some bits of
/// the board are stale, so that not all of them will find one.
pub const UNBOOKED_REQUESTS_MAX: usize = 64;
/// Connections to the admin address, while they last: those of a page, of a scrape, of an operator. Others are closed at once. They
/// take descriptors that are kept free of clients' (`FDS_RESERVED`).
pub const ADMIN_CONNECTIONS_MAX: usize = 48;
/// How long a core that ends waits for whoever still reads an answer of the admin address, the streams of `/events` among them: some
/// turns, and a round trip to far away.
pub const ADMIN_END_MS_MAX: u64 = 250;
/// How long the admin address waits for a core's part of a report.
pub const REPORT_MS_MAX: u64 = 1_000;
/// Longest `Retry-After` of a request's answer, before its jitter: what is known of a queue is not known for longer.
pub const RETRY_AFTER_S_MAX: u64 = 300;
/// How often each core tells of its links' work, from which a queue's wait is foretold.
pub const RATE_LOOK_MS: u64 = 1_000;
/// Readers of `/events` at once: pages that are open. One event is shared by all.
pub const EVENT_STREAMS_MAX: usize = 16;
/// How long a reader may take for one event, and for the first byte of what it is given. Then it is cut, and a browser comes again by
/// itself. What one that never reads may cost: one event that is shared, or its first one alone, and with this kernel what is told in so
/// long; what it has room for is its own.
pub const EVENT_TAKE_MS_MAX: u64 = 5_000;
/// How often a stream looks for news, and whether its reader is there: an event is late by at most this.
pub const EVENT_LOOK_MS: u64 = 100;
/// A stream without news says so after this long.
pub const EVENT_BEAT_MS: u64 = 10_000;
/// Links in one event, some 400 bytes each: those with most to tell. `/status` has all of them.
pub const EVENT_LINKS_MAX: usize = 500;
/// How long a browser that has shown the admin's token is let in: a working day. It ends with the process and with the token, too.
pub const ADMIN_SESSION_S: u64 = 12 * 3600;
/// Shortest token of the admin address: 64 bits, should it be hex digits. It is told how to make one of 256.
pub const ADMIN_TOKEN_BYTES_MIN: usize = 16;
/// How long whoever said a wrong one waits for the answer.
pub const ADMIN_WRONG_MS: u64 = 500;
/// A form that is posted to the admin address: a head of the largest size, every byte of it percent-encoded; and how long it
/// may take.
pub const FORM_BYTES_MAX: usize = 64 * 1024;
pub const FORM_MS_MAX: u64 = 5_000;
/// How often the admin's history takes a sample: each core is woken once for it.
pub const SAMPLE_MS: u64 = 1_000;
/// Samples of the history: five minutes. 140 bytes for each and pool: 41 KiB a pool, 10 MiB with `POOLS_MAX` of them. Each core
/// keeps what it told last: 120 bytes for each pool and class that it has served.
pub const HISTORY_SAMPLES: usize = 300;
/// The last samples that a pool's pace is made of: half a minute.
pub const PACE_SAMPLES: usize = 30;
/// How often a waiting client is looked at whose bytes fill the read-ahead, so that no read can tell that it left.
pub const GONE_LOOK_MS: u64 = 1_000;
/// Default of `per_link_max`.
pub const PER_LINK_MAX: u32 = 100;
/// Default of `response_head_max_wait`.
pub const RESPONSE_HEAD_MS_MAX: u64 = 60_000;
/// Between the second loss of a request by workers that had it and its next dispatch, and each one after that. A host that falls
/// takes its workers with it within some milliseconds.
pub const RETRY_PAUSE_MS: u64 = 50;
/// Default of `retries_max`.
pub const RETRIES_MAX: u32 = 2;
/// Pools of one edge. Fixed-size boards between cores are laid out for it.
pub const POOLS_MAX: usize = 256;
/// Requests of one pool, core and class that other cores can take without asking; the others wait behind them, with their
/// own core. A pool's windows on one core, of all classes, take some 30 KiB once something has waited there. Up to half of
/// a window may be requests whose clients have left, with their heads, until the window is cleared.
pub const WINDOW_REQUESTS: usize = 64;
/// A dispatch counts as an inversion when a more urgent request had waited this long somewhere: shorter ones are two
/// requests that met.
pub const INVERSION_NS_MIN: u64 = 50_000;
/// How often a link whose worker answers nothing may take a request that waits, while it has no other. Long against what a
/// request waits that finds all links busy for a moment, so that such a worker comes last; short for a client whose request
/// has nobody else.
pub const MUTE_LOOK_MS: u64 = 100;
/// How often requests that wait in a pool with `age_step` are looked at: a step is late by at most this.
pub const AGE_LOOK_MS: u64 = 1_000;
/// Digits to which a duration is known. With two (1 %), a histogram takes 1 KiB with its first value and 12 KiB when it has
/// seen seconds; a pool with all eight classes and every kind of dispatch has up to 32 of them on each core, 380 KiB.
pub const DURATION_DIGITS: u8 = 2;
/// Bounds of the buckets in which durations are told, from a quarter of a microsecond, each twice as long, to 67 s.
pub const DURATION_BUCKETS: usize = 29;
/// Messages that wait for one core. A full box is refused, never grown.
pub const MAILBOX_MESSAGES_MAX: usize = 4096;
/// Tasks of one core that other cores can wake apart from each other; beyond it they share bits and some wake for
/// nothing. 8 KiB for each core.
pub const WAKE_BITS: usize = 65_536;

// ---- connections ----

/// Descriptors kept free for logs, files, signals and readers of the admin address.
pub const FDS_RESERVED: usize = 64;
/// How often a thread counts the open descriptors where the kernel does not tell them (before Linux 6.2): 20 ms for 20,000 of them are
/// 0.4 % of one CPU.
pub const FDS_LOOK_MS: u64 = 5_000;
/// Descriptors of one core of a generation beside its listeners: its ring, its bell, and what wakes both.
pub const FDS_CORE: usize = 4;
/// Of all descriptors this part at most is kept for links; twice as many as all credentials' `links_max` allow, for those that
/// were told to come again are there a while longer, and the whole part where credentials come while the edge runs.
pub const FDS_LINKS_PART: usize = 4;
/// Descriptors of one link: in a stream it has a pair of sockets.
pub const LINK_FDS: usize = 2;
/// Default of `limits.connections_per_source_max`: from one IPv4 address, or one /64 of IPv6, the
/// smallest that one customer gets (RFC 6177). A browser opens 6 to a host, so this is some 160 busy people behind one address. nginx (limit_conn) and HAProxy
/// (`src_conn_cur` of a stick table) have no default; their examples go from 10 to 100, for web pages alone.
pub const CONNECTIONS_PER_SOURCE_MAX: u32 = 1_000;
/// Largest `limits.connections_max` and `limits.connections_per_source_max`: more descriptors than Linux gives a process
/// (fs.nr_open) unless it is told to.
pub const CONNECTIONS_LIMIT: u64 = 4 * 1024 * 1024;
/// Parts of the table of sources, each with a lock of its own: two of 64 cores seldom meet in one.
pub const SOURCE_SHARDS: usize = 64;
/// Networks in `limits.sources_exempt`. Each new connection is held against all of them.
pub const SOURCES_EXEMPT_MAX: usize = 64;
/// Window of the two below. Each source has as many at once, and they come back over this time.
pub const ATTEMPT_WINDOW_MS: u64 = 60_000;
/// Default of `limits.setups_per_source_max`, in a minute: a hundred workers with ten links each behind one address, that all
/// come again at once.
pub const SETUPS_PER_SOURCE_MAX: u32 = 1_000;
/// Default of `limits.setup_failures_per_source_max`, in a minute. A worker with a wrong secret tries every 30 s (the longest
/// [`REDIAL_MS_MAX`]); whoever guesses has 50, and then one in 1.2 s.
pub const SETUP_FAILURES_PER_SOURCE_MAX: u32 = 50;
/// Largest of both: a million in a minute are 17,000 in a second, more than TLS lets through.
pub const ATTEMPTS_LIMIT: u64 = 1_000_000;
/// Tokens and certificates that are looked at in a minute for a source that has used up one of the two above, so that a
/// worker with one is not shut out by its neighbours: ten in a second are 1 ms of work. Secrets cost a hash and are looked at always.
pub const ATTEMPT_PROOFS_MAX: u32 = 600;
/// Sources whose attempts are remembered, and workers that were let in where their source was not; beyond it those that say
/// the least are forgotten. 64 bytes each, 4 MiB in all.
pub const ATTEMPT_ROWS_MAX: usize = 64 * 1024;
/// Connections that wait in the kernel for each listener; the kernel caps it at net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Pause after accept failed for want of descriptors, so that it does not spin.
pub const ACCEPT_BACKOFF_MS: u64 = 100;
/// After the last response: how long, and for how many bytes, a closing connection still reads (RFC 9112 §9.6).
pub const LINGER_MS_MAX: u64 = 2_000;
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Default of `drain_max`.
pub const DRAIN_MS_MAX: u64 = 30_000;
/// Generations that may leave at once after reloads, beside the one in force. Each keeps its threads, rings (some 1 MiB for each
/// core) and tables, and what its connections hold; connections and memory are bounded over all of them. One more reload
/// waits until one has ended, `drain_max` at most.
pub const GENERATIONS_LEAVING_MAX: usize = 2;
/// How long a client without a request may still send one over a connection of a generation that leaves, and be told with the
/// answer. Who asks at least once a second never meets a connection that closes. A pool with one link waits as long.
pub const LEAVE_IDLE_MS: u64 = 1_000;
/// How long a worker that was told to come again, and has nothing to do, keeps its link though requests wait for it where it is
/// to come and nobody else is there: some do not hear what they are told, and come when they have lost their link. Ours
/// makes no pause that is longer ([`REDIAL_MS_MAX`]).
pub const LINK_WANTED_MS: u64 = 3_000;
/// The same where others are there, or where it cannot be seen whether requests wait, as in another process.
pub const LINK_UNHEARD_MS: u64 = 5_000;
/// How long a new generation holds requests of a pool without links, whatever `hold_without_workers` says: its workers have
/// been told to come, the last of them [`LEAVE_IDLE_MS`] later, and dial again within some seconds. A drain waits as long for
/// them.
pub const WORKERS_RETURN_MS: u64 = 10_000;
/// How long the tasks of a generation whose time is up have to end. They are dropped where they wait, and none needs a peer.
pub const OVER_MS_MAX: u64 = 5_000;
/// A newer process has so long to read its configuration and start its cores, before the older one ends it and goes on.
pub const UPGRADE_MS_MAX: u64 = 60_000;
/// Sockets in one message of a handover; the kernel takes at most 253 descriptors (SCM_MAX_FD).
pub const HANDOVER_BATCH_SOCKETS: usize = 250;
/// One message of a handover: some 6 bytes for each socket, or 50 for each address.
pub const HANDOVER_BYTES_MAX: usize = 64 * 1024;
/// Sockets, or messages full of them, that a process takes over from whoever started it: more than 64 cores with 128
/// addresses have.
pub const INHERITED_SOCKETS_MAX: usize = 8_192;
/// Accepts with which a core that leaves a listening socket to another one looks for connections that nobody was woken for. Each
/// takes a connection, or two turns of the timer wheel where the other one was quicker.
pub const LEAVE_ACCEPTS_MAX: usize = 16;
/// How long a word to the supervisor may take; it only waits where the supervisor does not read.
pub const NOTIFY_MS_MAX: u64 = 1_000;
/// Turn of the timer wheel: every timer is late by at most this.
pub const TICK_MS: u64 = 50;

const _: () = assert!(ADMIN_CONNECTIONS_MAX < FDS_RESERVED);

// ---- the access log ----

/// Records of one core that wait for the log's thread; what comes when they are all taken is lost and counted. At 100,000 requests
/// a second on one core they last for 40 ms, two of its looks. 2.3 MiB for each core that writes a log, and what they own.
pub const ACCESS_LOG_RECORDS_MAX: usize = 4096;
/// Long texts of the records of one core that wait for the log's thread, in bytes; a record that would pass it is lost and counted, while
/// those with short texts find their places. A kilobyte for each record; without it long paths would take 64 MiB for each core on a
/// disk that stalls.
pub const ACCESS_LOG_LONG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Texts of a record (method, host, path, names) that lie in the record itself; longer ones cost an allocation.
pub const ACCESS_LOG_TEXT_BYTES: usize = 320;
/// How often the log's thread looks for records; a line is late by at most this and its write.
pub const ACCESS_LOG_LOOK_MS: u64 = 20;
/// Lines that are written at once: some two hundred.
pub const ACCESS_LOG_BATCH_BYTES: usize = 64 * 1024;
/// A piece that a pipe takes as one, whoever else writes to it (PIPE_BUF on Linux).
pub const ACCESS_LOG_PIPE_BYTES: usize = 4096;
/// How long a pipe that nobody reads is waited for, before the log's thread looks at something else.
pub const ACCESS_LOG_STALL_MS: u32 = 100;
/// How often a file that could not be opened is tried again.
pub const ACCESS_LOG_RETRY_MS: u64 = 1_000;
/// How often at most the log tells that its lines are lost.
pub const ACCESS_LOG_TOLD_MS: u64 = 60_000;
/// How long the end of the process waits until the last lines are written.
pub const ACCESS_LOG_END_MS_MAX: u64 = 2_000;
/// `access_log.format`: all fields with their names are some 500 bytes.
pub const ACCESS_LOG_FORMAT_BYTES_MAX: usize = 1024;

// ---- memory ----

/// Default of `limits.memory_max`, in percent of what the machine or its cgroup has. The rest is for the kernel's side: socket
/// buffers of as many connections.
pub const MEMORY_SHARE: u8 = 75;
/// Smallest `limits.memory_max`: an edge that has just started, with its rings, and some room to serve.
pub const MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Largest `limits.memory_max`.
pub const MEMORY_BYTES_LIMIT: u64 = 64 << 40;
/// How often the resident size is looked at. 100 ms at 10 Gbit/s are 125 MB, 3 % of 4 GiB.
pub const MEMORY_LOOK_MS: u64 = 100;
/// How often at most the log tells that memory is full: what holds it comes and goes within seconds.
pub const MEMORY_TOLD_MS: u64 = 10_000;
/// From this part of `memory_max` on new requests are refused, and below it everything is taken again.
pub const MEMORY_TIGHT_PERCENT: u64 = 95;
/// How often a core gives back to the kernel what it has freed.
pub const TRIM_MS: u64 = 2_000;
/// While new requests are refused, a client that has taken nothing of what waits for it for so long is ended: what it holds is
/// what others lack. A reader of 40 KB/s shows itself in time: TCP opens a window again when a sixteenth of it is free, and
/// Linux lets one grow to 6 MiB.
pub const HOARD_MS_MAX: u64 = 10_000;
/// How often a client that does not read is looked at.
pub const HOARD_LOOK_MS: u64 = 1_000;
/// From this part on no connection is taken either.
pub const MEMORY_FULL_PERCENT: u64 = 98;
/// What one request can make the edge hold at most, with two large bodies over an HTTP/2 link of another core:
/// what its client's reader shows and has ordered, its head and the fields made of it, a kept body whose pieces each pin a
/// whole read buffer, both pipes with a piece at each end, what the link's engine holds of both bodies, and what waits to be
/// written to the client, sealed and not.
pub const REQUEST_BYTES_MAX: usize = (READ_AHEAD_BYTES_MAX + 2 * READ_BYTES_LARGE)
    + 2 * HEADER_LIST_BYTES_MAX as usize
    + REPLAY_BYTES_MAX * TAKE_SHARE_PART
    + 2 * (PIPE_PIECES_MAX + 2) * READ_BYTES_LARGE
    + (STREAM_SEND_BYTES_MAX + STREAM_WINDOW_BYTES as usize)
    + (WRITE_BYTES_HIGH + READ_BYTES_LARGE + SEALED_BYTES_MAX);
/// A client's HTTP/2 connection has as much for each of its streams, and the windows and send buffers of its own engine.
pub const H2_STREAM_BYTES_MAX: usize = REQUEST_BYTES_MAX + STREAM_WINDOW_BYTES as usize + STREAM_SEND_BYTES_MAX;

// ---- the worker program ----

/// Redial: first pause, and the longest of the first ones; full jitter in between. An edge that was killed and is started again
/// has its links within 5 s, a dial that is not answered included.
pub const REDIAL_MS_MIN: u64 = 100;
pub const REDIAL_MS_MAX: u64 = 2_000;
/// So many of them, half a minute on average: longer than a restart takes. After that pauses grow further.
pub const REDIALS_SHORT: u32 = 30;
/// The longest pause of all.
pub const REDIAL_MS_LONG: u64 = 30_000;
/// What an edge may ask for by the Retry-After of a 429, at most, beside the usual pause: the window in which it counts setups.
pub const RETRY_AFTER_MS_MAX: u64 = ATTEMPT_WINDOW_MS;
/// Opening a connection to the server behind the worker, or to an edge.
pub const CONNECT_MS_MAX: u64 = 5_000;
/// A connection to the server behind the worker that nobody uses.
pub const ORIGIN_IDLE_MS_MAX: u64 = 30_000;
/// How often a request is sent again to a server over HTTP/2 that refused its stream, or ended its connection under it. What it
/// costs is bounded by the body that is kept, `REPLAY_BYTES_MAX`.
pub const ORIGIN_RETRIES_MAX: u32 = 2;
/// How often idle connections to that server are looked at.
pub const ORIGIN_LOOK_MS: u64 = 1_000;
/// A link that lived this long was a good one: the next redial starts with the shortest pause.
pub const LINK_STEADY_MS: u64 = 10_000;
/// After a change of the configuration that asks for new links: how long all of them are waited for before those that are there
/// take over from the old ones.
pub const REPLACE_MS_MAX: u64 = 10_000;
/// A name is looked up again after this long at the latest; a name from /etc/hosts has a TTL of a day.
pub const RESOLVE_AGAIN_MS_MAX: u64 = 60_000;
/// A name is looked up at most this often, whatever its TTL; and an answer is waited for this long.
pub const RESOLVE_MS_MIN: u64 = 1_000;
pub const RESOLVE_MS_MAX: u64 = 10_000;
/// `adaptive`: the server's latency is looked at in windows of at least this, and so many answers: their mean is then known to a
/// fifth, and an edge is told of a change twice a second.
pub const ADAPT_WINDOW_MS: u64 = 500;
pub const ADAPT_SAMPLES_MIN: u32 = 20;
/// Windows between two probes with half of the limit, two windows each: 2 % of the server's time at worst.
pub const ADAPT_PROBE_WINDOWS: u32 = 50;
/// Defaults of `concurrency_min` and `concurrency_max`.
pub const ADAPT_MIN: u32 = 1;
pub const ADAPT_MAX: u32 = 1_024;
/// Defaults of `health`: HAProxy's are 2 s, 2 and 3; here an unwell server costs nobody an error, so there is time.
pub const HEALTH_MS: u64 = 5_000;
pub const HEALTH_TIMEOUT_MS: u64 = 2_000;
pub const HEALTH_RISE: u32 = 1;
pub const HEALTH_FALL: u32 = 2;
/// Shortest `health.every` and `health.timeout`: two turns of the timer wheel; and the longest.
pub const HEALTH_MS_MIN: u64 = 2 * TICK_MS;
pub const HEALTH_MS_LIMIT: u64 = 3_600_000;
/// Largest `health.rise` and `health.fall`.
pub const HEALTH_COUNT_LIMIT: u64 = 100;
/// Default of `concurrency`.
pub const WORKER_CONCURRENCY: u32 = 64;
/// Default of `links`.
pub const WORKER_LINKS: u32 = 2;
// ---- configuration files and the command line ----

/// A configuration file. 256 pools with 20 origins each take some 300 KiB.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// A file of certificates or of a key. A chain is some 5 KiB; all authorities of a system are some 250 KiB.
pub const CERTIFICATE_BYTES_MAX: usize = 1024 * 1024;
/// A certificate that expires sooner is warned of. Its renewal is usually due at a third of 90 days.
pub const CERTIFICATE_EXPIRY_WARNING_S: i64 = 14 * 24 * 3600;
/// The file with a worker's secret: one line.
pub const SECRET_FILE_BYTES_MAX: usize = 4 * 1024;
/// A pool's name or a credential's id. Both become labels, log fields and parts of a path.
pub const NAME_BYTES_MAX: usize = 64;
/// Labels of a worker, and the bytes of a label's name and of its value: 2 KiB for each link at most.
pub const LABELS_MAX: usize = 16;
pub const LABEL_BYTES_MAX: usize = 64;
/// Cores of one edge: one 64-bit word holds a bit for each.
pub const CORES_MAX: u16 = 64;
/// Largest CPU number that `cores` may name (Linux knows at most 8192).
pub const CPU_ID_MAX: u16 = 8191;
/// Longest duration that any key takes: a week.
pub const DURATION_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// Largest `queue.requests_max`: a million waiting requests cost some gigabytes.
pub const QUEUE_REQUESTS_LIMIT: u64 = 1_000_000;
/// Largest `queue.bytes_max`.
pub const QUEUE_BYTES_LIMIT: u64 = 64 << 30;
/// Largest `retries_max`. More dispatches of one request would only spread what kills workers.
pub const RETRIES_LIMIT: u64 = 10;
/// Credentials of one edge, those of `credentials_dir` among them; each takes some 300 bytes, and 80 for each of its secrets. A setup
/// looks up the hash of what it presents, however many there are.
pub const CREDENTIALS_MAX: usize = 4096;
/// Secrets of one credential that are good at once. A rotation needs two.
pub const SECRETS_MAX: usize = 8;
/// How often the files behind the credentials are looked at: one `stat` for each.
pub const CREDENTIALS_LOOK_MS: u64 = 1_000;
/// Links of one core whose certificates are checked anew in one turn of its loop when the authorities have changed: a thousand
/// links have been looked at after two seconds. Some 3 ms of work where one authority vouches for each and nothing between the two
/// ends before the worker's own; with [`CHAIN_ENDS_MAX`] such ends, which hardly any chain has, some 16 ms.
pub const CERTIFICATES_LOOK_MAX: usize = 32;
/// Ends of certificates between a worker's own and its authority that are looked at one by one, each for a signature or two, some
/// 100 us. Real chains have one or two; with more, the first has to do.
pub const CHAIN_ENDS_MAX: usize = 4;
/// A file that was changed so shortly before it was read may change again without another time stamp, and is read again: the
/// coarsest file systems keep times of two seconds.
pub const FILE_FRESH_S: i64 = 2;
/// A file of `credentials_dir`: one credential with a hundred origins takes some 4 KiB.
pub const CREDENTIAL_FILE_BYTES_MAX: usize = 64 * 1024;
/// A signed token of a worker, in a field's line: a header, a signature and 64 origins of 30 bytes. Nothing of a longer one is
/// decoded.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Origins in a token, each of which a setup is held against.
pub const TOKEN_ORIGINS_MAX: usize = 64;
/// A token's `sub`. `system:serviceaccount:` with two names of Kubernetes has up to 339; a name is wanted that fits a log line.
pub const TOKEN_ID_BYTES_MAX: usize = 256;
/// How far the clock of whoever made a token may be ahead of ours; for its begin alone, its end is never late.
pub const TOKEN_SKEW_S: u64 = 30;
/// Default of `tokens.lifetime_max`: how far the end of a token may be ahead. Whoever issues tokens for machines renews them
/// within an hour (Kubernetes' default; GitHub's end in minutes); a day lets somebody issue them once a day, and bounds for how
/// long a stolen one opens something.
pub const TOKEN_LIFETIME_MS_MAX: u64 = 24 * 3600 * 1000;
/// Shortest `tokens.lifetime_max`: clocks of two machines differ by less, and a worker has time to dial again.
pub const TOKEN_LIFETIME_MS_MIN: u64 = 60_000;
/// Names in `tokens.denied_file`; a setup by token asks for one of them. At 256 bytes, with their places, 4 MiB.
pub const TOKENS_DENIED_MAX: usize = 10_000;
/// Names that are denied while their file changes at each look: those that left it are kept until it holds still. Beyond, what
/// stands in it counts. 8 MiB.
pub const TOKENS_DENIED_HELD_MAX: usize = 2 * TOKENS_DENIED_MAX;
/// How long that file has to stand as it is before a name counts as taken out of it. Two looks can be a moment apart (SIGHUP beside
/// the one that is due); whoever writes a file in place writes its rest within a second or two.
pub const DENIED_MISSED_S: u64 = 5;
/// As [`DENIED_MISSED_S`], for a file that is empty, or has less than half of the names that are denied: `curl … > denied.txt` has
/// emptied it before it asks, and its server may be slow. In a minute most that wait for one have an answer, or have given up.
pub const DENIED_LOST_S: u64 = 60;
/// That file: so many names, and their line ends.
pub const DENIED_FILE_BYTES_MAX: usize = TOKENS_DENIED_MAX * (TOKEN_ID_BYTES_MAX + 2);
/// Keys of a JWKS. Two or three are usual; a token is looked up among them by its name.
pub const JWKS_KEYS_MAX: usize = 64;
/// The name of a key. Hashes of keys have 43 (RFC 7638).
pub const KEY_ID_BYTES_MAX: usize = 256;
/// A JWKS file: so many RSA keys of 4096 bits with their certificates.
pub const JWKS_BYTES_MAX: usize = 512 * 1024;
/// `tokens.issuer` and `tokens.audience`.
pub const TOKEN_PARTY_BYTES_MAX: usize = 1024;
/// Default of `links_max`.
pub const CREDENTIAL_LINKS: u32 = 16;
/// Largest `links_max`.
pub const CREDENTIAL_LINKS_LIMIT: u64 = 10_000;
/// Edges of one worker.
pub const WORKER_EDGES_MAX: usize = 64;
/// Services of one worker: `links` connections to each edge for each of them.
pub const WORKER_SERVICES_MAX: usize = 64;
/// Largest `links` of a worker, for each edge address.
pub const WORKER_LINKS_LIMIT: u64 = 64;
/// Largest `concurrency` of a worker.
pub const WORKER_CONCURRENCY_LIMIT: u64 = 65_536;
/// `ptth doctor`: looking whether edges and the server can be reached, all together; a name, a connection and a handshake have
/// their own bounds, and this is as long as all three.
pub const REACH_MS_MAX: u64 = RESOLVE_MS_MAX + CONNECT_MS_MAX + HANDSHAKE_MS_MAX;
/// Addresses of one edge's name that `ptth doctor` tries, one after the other; those behind them are not looked at.
pub const REACH_ADDRESSES_MAX: usize = 16;
/// For so long `ptth doctor` watches how much of the CPUs' time the host takes: 50 ticks of the kernel's clock, so 2 % can be told.
pub const DOCTOR_STEAL_MS: u64 = 500;
/// `ptth status`, `ptth drain`: connecting to the admin address, and the whole answer.
pub const ADMIN_CONNECT_MS_MAX: u64 = 5_000;
pub const ADMIN_ANSWER_MS_MAX: u64 = 10_000;
/// Largest answer that `ptth status` reads: 10,000 links at some 300 bytes, several times over.
pub const ADMIN_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How often `ptth top` asks for `/status`: as often as the edge itself takes a sample.
pub const TOP_MS: u64 = SAMPLE_MS;
/// Depths of each queue that `ptth top` keeps: a minute of them, 480 bytes for each pool, in its own process.
pub const TOP_SAMPLES: usize = 60;
/// For so long `ptth top` waits for a key before it looks for a signal and for an answer.
pub const TOP_KEY_MS: u64 = 100;

const _: () = assert!(LINE_BYTES_MAX <= HEAD_BYTES_MAX);
const _: () = assert!(LEAVE_IDLE_MS + LINK_UNHEARD_MS + REDIAL_MS_MAX < WORKERS_RETURN_MS);
const _: () = assert!(REDIAL_MS_MIN + REDIAL_MS_MAX < LINK_WANTED_MS && LINK_WANTED_MS < LINK_UNHEARD_MS);
const _: () = assert!(READ_AHEAD_BYTES_MAX <= READ_BYTES_LARGE);
const _: () = assert!(2 * FORWARDED_BYTES_MAX <= LINE_BYTES_MAX && FORWARDED_HOPS_MAX * 50 <= FORWARDED_BYTES_MAX);
const _: () = assert!(16 + PROXY_V2_BYTES_MAX <= READ_BYTES_SMALL && PROXY_V1_BYTES_MAX <= PROXY_V2_BYTES_MAX);
const _: () = assert!(WRITE_COPY_BYTES_MAX <= WRITE_BYTES_HIGH);
const _: () = assert!(TAKE_COPY_BYTES_MAX <= READ_BYTES_SMALL);
const _: () = assert!(WHEEL_SLOTS.is_power_of_two());
const _: () = assert!(PACE_SAMPLES <= HISTORY_SAMPLES && FORM_BYTES_MAX > 3 * HEAD_BYTES_MAX && SAMPLE_MS >= TICK_MS);
const _: () = assert!(CHUNK_LINE_BYTES_MAX < READ_BYTES_SMALL);
const _: () = assert!(PER_LINK_MAX <= LINK_STREAMS_MAX);
const _: () = assert!((STREAM_WINDOW_BYTES as u64) * (LINK_STREAMS_MAX as u64) < (1 << 31));
const _: () = assert!(WAKE_BITS.is_multiple_of(64));
const _: () = assert!(QUEUE_REQUESTS_MAX as u64 <= QUEUE_REQUESTS_LIMIT);
const _: () = assert!(QUEUE_BYTES_MAX as u64 <= QUEUE_BYTES_LIMIT && QUEUE_BYTES_MAX >= HEAD_BYTES_MAX);
const _: () = assert!(RETRIES_MAX as u64 <= RETRIES_LIMIT);
const _: () = assert!(TOKEN_BYTES_MAX < LINE_BYTES_MAX);
// A record with the longest texts finds room in an empty spool.
const _: () = assert!(HEAD_BYTES_MAX + 2 * TOKEN_ID_BYTES_MAX <= ACCESS_LOG_LONG_BYTES_MAX);
const _: () = assert!(TOKEN_LIFETIME_MS_MIN <= TOKEN_LIFETIME_MS_MAX && TOKEN_LIFETIME_MS_MAX <= DURATION_MS_MAX);
const _: () = assert!(CREDENTIAL_LINKS as u64 <= CREDENTIAL_LINKS_LIMIT);
const _: () = assert!(CORES_MAX <= 64);
const _: () = assert!(BODY_RATE_MIN <= BODY_RATE_LIMIT);
const _: () = assert!(CONNECTIONS_PER_SOURCE_MAX as u64 <= CONNECTIONS_LIMIT && CONNECTIONS_LIMIT <= u32::MAX as u64);
const _: () = assert!(CLIENT_STREAMS_MAX <= LINK_STREAMS_MAX);
const _: () = assert!(SOURCE_SHARDS.is_power_of_two());
const _: () = assert!(SETUP_FAILURES_PER_SOURCE_MAX <= SETUPS_PER_SOURCE_MAX && ATTEMPT_ROWS_MAX >= SOURCE_SHARDS);
const _: () = assert!(MEMORY_TIGHT_PERCENT < MEMORY_FULL_PERCENT && MEMORY_FULL_PERCENT <= 100 && MEMORY_SHARE <= 100);
// docs/configuration.md tells these two.
const _: () = assert!(REQUEST_BYTES_MAX <= 9 * 1024 * 1024 / 4);
const _: () = assert!(H2_STREAM_BYTES_MAX <= 11 * 1024 * 1024 / 4);
const _: () = assert!(WINDOW_REQUESTS.is_power_of_two());
// A window full of the smallest messages that are to live, each counted at what it lacks to 256 bytes.
const _: () = assert!(CLIENT_WINDOW_BYTES as usize / 56 * (256 - 56) <= CLIENT_SMALL_FRAMES_BYTES);
const _: () = assert!(CONTROL_FRAMES_BURST <= CONTROL_FRAMES_PAID_MAX);
const _: () = assert!(CLIENT_LIST_BYTES_MAX < HEADER_LIST_BYTES_MAX); // what passes here reaches a worker

// ---- priority ----

/// The least urgent class (RFC 9218 §4.1); the most urgent is 0.
pub const URGENCY_MAX: u8 = 7;
/// The class of a request that says nothing (RFC 9218 §4.1), unless the pool has its own `default`.
pub const URGENCY_DEFAULT: u8 = 3;
/// Shortest `age_step`. Waiting requests are looked at every `AGE_LOOK_MS`, so a shorter one would skip classes.
pub const AGE_STEP_MS_MIN: u64 = 1_000;
/// Rules of one pool. A request that no rule takes is held against each of them.
pub const RULES_MAX: usize = 64;
/// Conditions of one rule, every element of a list counted. With all rules: 2,048 comparisons at most for a request, none of
/// which reads its path more often than once.
pub const RULE_CONDITIONS_MAX: usize = 32;
/// A path pattern, or the value of a field, in a rule. An eighth of the longest line that a request may have.
pub const RULE_TEXT_BYTES_MAX: usize = 1024;
/// Largest `concurrency_max`: the requests that may wait in one pool may all run at once, too.
pub const CONCURRENCY_LIMIT: u64 = QUEUE_REQUESTS_LIMIT;

const _: () = assert!(URGENCY_DEFAULT <= URGENCY_MAX);
const _: () = assert!(RULE_TEXT_BYTES_MAX < LINE_BYTES_MAX);
const _: () = assert!(AGE_STEP_MS_MIN >= AGE_LOOK_MS);
