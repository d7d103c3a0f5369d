//! Who won when a client leaves while another core takes its request: one state, decided once. The request itself never
//! enters.

use super::sync::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const CANCELLED: u8 = 2;

/// ```text
///              try_take                        try_cancel
///  Waiting ----------------> Taken    Waiting -----------> Cancelled (for good)
///     ^        put_back        |
///     +------------------------+
/// ```
/// Shared by the core whose client waits and the core that may grant; both hold it in one `Arc`.
pub struct Claim {
    /// Partners: the compare-exchanges of the two cores. Only a change from one state to the next decides, so exactly
    /// one wins. Acquire and release, because the winner goes on with what the other side wrote into the request.
    state: AtomicU8,
}

impl Claim {
    #[must_use]
    #[allow(clippy::new_without_default)] // a claim without a request means nothing
    pub fn new() -> Claim {
        Claim { state: AtomicU8::new(WAITING) }
    }

    /// The granting core. True: the request is its own now. False: its client left.
    #[must_use]
    pub fn try_take(&self) -> bool {
        self.change(WAITING, TAKEN)
    }

    /// The client's core. True: nobody will take it any more. False: somebody has it; the pipes tell them.
    #[must_use]
    pub fn try_cancel(&self) -> bool {
        self.change(WAITING, CANCELLED)
    }

    /// The core that took the request returns it to a queue (the link was lost before anything was sent).
    pub fn put_back(&self) {
        assert!(self.change(TAKEN, WAITING), "put back what was not taken");
    }

    /// The client has left. May be late: only [`try_take`](Self::try_take) decides.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) == CANCELLED
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
