//! Chance from a seed, and the seeds of a run. Nothing else in a simulation is left to chance.

/// Marsaglia's xorshift64*, enough for a walk.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % bound
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// From the first to the last, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + (self.next() >> 1) % (last - first + 1)
    }

    pub fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Of an exponential distribution: the pauses between independent arrivals, and service times that vary as much.
    pub fn exponential(&mut self, mean: f64) -> u64 {
        let unit = ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64; // never 0, never 1
        (-unit.ln() * mean) as u64
    }
}

/// Runs one simulation for each seed: `PTTH_SEED` alone and with a trace, else `PTTH_SEEDS` of them, else `seeds`. Says how
/// many there were.
pub fn each_seed(test: &str, seeds: u64, mut run: impl FnMut(u64, bool)) -> u64 {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, count, is_traced) = match (number("PTTH_SEED"), number("PTTH_SEEDS")) {
        (Some(seed), _) => (seed, 1, true),
        (None, Some(seeds)) => (0, seeds, false),
        (None, None) => (0, seeds, false),
    };
    for seed in first..first + count {
        let _seed = Seed(seed, test);
        run(seed, is_traced);
    }
    count
}

/// Prints the seed of a simulation that failed.
struct Seed<'a>(u64, &'a str);

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this one again: PTTH_SEED={} cargo test --test simulator {}", self.0, self.1);
        }
    }
}
