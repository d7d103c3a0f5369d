//! The access log: one line for each exchange, at its end. A core leaves a record of it in a spool of its own and goes on; one
//! thread of the process makes lines of them and writes them. A full spool loses the line, and the loss is counted, so that a
//! slow disk never delays a request.

pub mod record;
pub mod rules;

mod line;
mod scribe;
mod sink;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use self::line::Writer;
use self::record::{Record, Tells};
use self::rules::{Rules, Target};
use self::scribe::{Order, Source, Tally, scribe};
use self::sink::Sink;
use super::config::EdgeConfig;
use crate::limits::{ACCESS_LOG_END_MS_MAX, ACCESS_LOG_LONG_BYTES_MAX, ACCESS_LOG_RECORDS_MAX};
use crate::settings::Mistakes;
use crate::xcore::{SpoolTx, spool};

/// One core's way to its lines.
pub struct Book {
    pub tells: Tells,
    spool: SpoolTx<Record>,
}

impl Book {
    /// False: the line is lost.
    #[must_use]
    pub fn put(&self, record: Record) -> bool {
        self.spool.give(record)
    }
}

/// The process's access log, over all its generations.
#[derive(Default)]
pub struct AccessLog {
    /// Of the thread, as soon as some configuration wants one.
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    tally: Arc<Mutex<Tally>>,
}

/// A target that is open, and will have a generation's lines.
pub struct Opened {
    rules: Rules,
    sink: Sink,
}

/// Opens what the configuration names; `None`: it wants no log. Nothing is written yet.
///
/// # Errors
/// The mistake, with its place in the file.
pub fn open(config: &EdgeConfig) -> Result<Option<Opened>, String> {
    let Some(rules) = config.access_log.clone() else { return Ok(None) };
    match Sink::open(&rules.to.value) {
        Ok(sink) => Ok(Some(Opened { rules, sink })),
        Err(error) => {
            let mut mistakes = Mistakes::new(&config.file);
            tell(&rules, &error, &mut mistakes);
            Err(mistakes.to_string())
        }
    }
}

/// As [`open`], without opening anything: for a look at a file whose edge may run.
pub fn look(config: &EdgeConfig, mistakes: &mut Mistakes) {
    if let Some(rules) = &config.access_log
        && let Err(error) = sink::look(&rules.to.value)
    {
        tell(rules, &error, mistakes);
    }
}

fn tell(rules: &Rules, error: &std::io::Error, mistakes: &mut Mistakes) {
    let (what, mend) = match (&rules.to.value, error.raw_os_error()) {
        (Target::Stdout, _) => (format!("the access log cannot be written to standard output: {error}"), "name a file"),
        (Target::File(path), Some(libc::ENXIO)) => {
            (format!("nobody reads the FIFO {}", path.display()), "start its reader first")
        }
        (Target::File(path), _) => (
            format!("the access log {} cannot be written: {error}", path.display()),
            "make its folder, and let this user write there",
        ),
    };
    mistakes.error(rules.to.place, what, mend);
}

impl AccessLog {
    /// From now on the thread reads one more generation's records, and each of its cores has a book. `pools` are the names of
    /// its pools, in their order.
    pub fn begin(
        &self,
        opened: Opened,
        generation: u64,
        pools: Vec<String>,
        cores: usize,
    ) -> Result<Vec<Book>, String> {
        let Opened { rules, sink } = opened;
        let (txs, rxs): (Vec<_>, Vec<_>) =
            (0..cores).map(|_| spool(ACCESS_LOG_RECORDS_MAX, ACCESS_LOG_LONG_BYTES_MAX)).unzip();
        let source = Source { spools: rxs, writer: Writer::new(rules.format, generation, pools) };
        let order = Order::Begin { target: rules.to.value, sink, source: Box::new(source) };
        let mut orders = self.orders();
        let unheard = match &*orders {
            Some(orders) => orders.send(order).err().map(|mpsc::SendError(order)| order),
            None => Some(order),
        };
        // There is none yet, or it has ended with an edge that was told to end.
        if let Some(order) = unheard {
            let (told, tells) = mpsc::channel();
            let tally = self.tally.clone();
            let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || scribe(&tells, &tally));
            thread.map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))?;
            let _ = told.send(order); // it has just begun
            *orders = Some(told);
        }
        Ok(txs.into_iter().map(|spool| Book { tells: rules.tells, spool }).collect())
    }

    /// Files are opened anew by their names, as whoever has renamed them wants it.
    pub fn reopen(&self) {
        if let Some(orders) = &*self.orders() {
            let _ = orders.send(Order::Reopen); // one that has ended has no files
        }
    }

    /// Everything that was given is written, unless that takes too long. Whatever is given later may be lost.
    pub fn end(&self) {
        let Some(orders) = self.orders().take() else { return };
        let (told, done) = mpsc::channel();
        if orders.send(Order::End(told)).is_ok() {
            let _ = done.recv_timeout(Duration::from_millis(2 * ACCESS_LOG_END_MS_MAX));
        }
    }

    /// What the thread has counted.
    pub fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> MutexGuard<'_, Option<mpsc::Sender<Order>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
