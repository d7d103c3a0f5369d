//! What happened to each request of a pass, as the generator and the workers write it down. What it means is for
//! `figures`; nobody here reads a clock.

use super::trace::Planned;

/// One request's life. Times are the clock's, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub planned: Planned,
    pub due_ns: u64,
    /// Just before its bytes went to the kernel; in the floor, when it entered the queue.
    pub sent_ns: Option<u64>,
    /// When a worker began with it: the last time, if it came twice.
    pub start_ns: Option<u64>,
    /// Just before the worker's answer went to the kernel.
    pub end_ns: Option<u64>,
    pub fate: Fate,
    /// Which of the workers had it.
    pub seat: Option<u32>,
    /// How often a worker began with it.
    pub starts: u16,
}

/// Open --answer--> Answered;   Open --connection broke, silence--> Lost;   Open --no connection left--> Unsent
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Open,
    Answered {
        at_ns: u64,
        status: u16,
    },
    /// The connection ended before its answer, or the answer never came.
    Lost,
    /// All connections were in use; it was never sent.
    Unsent,
}

/// The records of one pass. Numbers go on from pass to pass, so a late word about an earlier one is noticed.
pub struct Book {
    records: Vec<Record>,
    first_number: u64,
    open: usize,
    /// Words about requests that are not of this pass.
    pub strays: u64,
}

impl Book {
    pub fn new(planned: &[Planned], began_ns: u64, first_number: u64) -> Book {
        let record = |&planned: &Planned| Record {
            planned,
            due_ns: began_ns + planned.due_ns,
            sent_ns: None,
            start_ns: None,
            end_ns: None,
            fate: Fate::Open,
            seat: None,
            starts: 0,
        };
        Book { records: planned.iter().map(record).collect(), first_number, open: planned.len(), strays: 0 }
    }

    /// Requests whose fate is not known yet.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The number under which request `index` travels.
    pub fn number(&self, index: usize) -> u64 {
        self.first_number + index as u64
    }

    /// `None` if it is not of this pass.
    pub fn planned(&self, number: u64) -> Option<Planned> {
        self.index(number).map(|index| self.records[index].planned)
    }

    pub fn sent(&mut self, number: u64, now_ns: u64) {
        if let Some(record) = self.record(number) {
            record.sent_ns = Some(now_ns);
        }
    }

    pub fn started(&mut self, number: u64, seat: Option<u32>, now_ns: u64) {
        if let Some(record) = self.record(number) {
            record.start_ns = Some(now_ns);
            record.end_ns = None;
            record.seat = seat;
            record.starts = record.starts.saturating_add(1);
        }
    }

    pub fn ended(&mut self, number: u64, now_ns: u64) {
        if let Some(record) = self.record(number) {
            record.end_ns = Some(now_ns);
        }
    }

    /// The first word about a request's fate counts.
    pub fn settle(&mut self, number: u64, fate: Fate) {
        let Some(record) = self.record(number) else { return };
        if record.fate == Fate::Open {
            record.fate = fate;
            self.open -= 1;
        }
    }

    /// The pass is over: what is open is lost.
    pub fn close(mut self) -> Vec<Record> {
        for record in &mut self.records {
            if record.fate == Fate::Open {
                record.fate = Fate::Lost;
            }
        }
        self.records
    }

    fn record(&mut self, number: u64) -> Option<&mut Record> {
        match self.index(number) {
            Some(index) => Some(&mut self.records[index]),
            None => {
                self.strays += 1;
                None
            }
        }
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.first_number)?).ok()?;
        (index < self.records.len()).then_some(index)
    }
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::super::trace::Class;
    use super::*;

    fn book() -> Book {
        let planned = |due_ns| Planned { due_ns, service_us: 1, class: Class::Normal };
        Book::new(&[planned(0), planned(5)], 100, 40)
    }

    #[test]
    fn the_first_word_about_a_fate_counts_and_the_rest_is_lost_at_the_end() {
        let mut book = book();
        let answered = Fate::Answered { at_ns: 120, status: 200 };
        book.settle(41, answered);
        book.settle(41, Fate::Lost);
        assert_eq!(book.open(), 1);
        let records = book.close();
        assert_eq!((records[0].fate, records[1].fate), (Fate::Lost, answered));
        assert_eq!((records[0].due_ns, records[1].due_ns), (100, 105));
    }

    #[test]
    fn words_about_another_pass_change_nothing() {
        let mut book = book();
        for number in [0, 39, 42, u64::MAX] {
            book.sent(number, 1);
            book.settle(number, Fate::Lost);
        }
        assert_eq!((book.strays, book.open()), (8, 2));
    }

    #[test]
    fn a_request_that_comes_twice_keeps_its_last_service() {
        let mut book = book();
        book.started(40, Some(3), 10);
        book.ended(40, 20);
        book.started(40, Some(4), 30);
        let records = book.close();
        let record = &records[0];
        assert_eq!((record.start_ns, record.end_ns, record.seat, record.starts), (Some(30), None, Some(4), 2));
    }
}
