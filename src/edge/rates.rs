//! What one core tells of its links' work, and the first core's estimate of how long a pool's requests take. Looked at once in
//! a while, by a task of its own; no request waits for it.

use std::sync::Arc;

use crate::clock::Now;
use crate::events::Counters;
use crate::ids::{CoreId, PoolId};
use crate::sched::{Sched, ServiceTime};
use crate::xcore::{PoolFlow, Teller, Told};

/// One core's.
pub struct Rates {
    /// One for each pool.
    tellers: Vec<Teller>,
    /// One for each pool, on the first core.
    times: Vec<ServiceTime>,
    looked: Option<Now>,
}

impl Rates {
    pub fn new(core: CoreId, flows: &[Arc<PoolFlow>]) -> Rates {
        let times = if core == CoreId(0) { vec![ServiceTime::default(); flows.len()] } else { Vec::new() };
        Rates { tellers: flows.iter().map(PoolFlow::teller).collect(), times, looked: None }
    }

    pub fn look<W>(&mut self, sched: &Sched<W>, counters: &Counters, flows: &[Arc<PoolFlow>], now: Now) {
        let mut told = vec![Told::default(); self.tellers.len()];
        sched.each_seat(|pool, in_flight, free| {
            let told = &mut told[usize::from(pool.0)];
            told.in_flight += u64::from(in_flight);
            told.slots += u64::from(in_flight) + u64::from(free);
        });
        for (pool, (teller, mut told)) in (0..).map(PoolId).zip(self.tellers.iter_mut().zip(told)) {
            let sent = counters.pools[usize::from(pool.0)].dispatches.sum();
            told.ended = sent.saturating_sub(told.in_flight);
            teller.tell(told);
        }
        let ns = self.looked.replace(now).map_or(0, |looked| now.ns_since(looked));
        for (time, flow) in self.times.iter_mut().zip(flows) {
            let Told { ended, in_flight, .. } = flow.told();
            if let Some(service_ns) = time.look(ended, in_flight, ns) {
                flow.set_service_ns(service_ns);
            }
        }
    }
}
