//! The trace: which request is due when, how long it takes, and how urgent it is, all from a seed. Who sends it, and what
//! comes of it, never enters.
//!
//! Gaps, service times and classes come from three generators of their own. So a seed has the same service times at every
//! load, and the same gaps, stretched, with every distribution.

use std::fmt;

/// How urgent a request is. The order is that of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Urgent,
    Normal,
    Background,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Urgent, Class::Normal, Class::Background];

    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the `Priority` field (RFC 9218).
    pub fn priority(self) -> &'static str {
        match self {
            Class::Urgent => "u=1",
            Class::Normal => "u=3",
            Class::Background => "u=6",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Class::Urgent => "urgent",
            Class::Normal => "normal",
            Class::Background => "background",
        }
    }
}

/// How service times are distributed around their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dist {
    /// Exponential.
    Exp,
    /// 90 % half the mean, 10 % five and a half times the mean.
    Bimodal,
    /// Lognormal with sigma 1.
    Lognormal,
}

impl fmt::Display for Dist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dist::Exp => "exp",
            Dist::Bimodal => "bimodal",
            Dist::Lognormal => "lognormal",
        })
    }
}

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Since the beginning of the trace; never before its predecessor.
    pub due_ns: u64,
    /// At least 1.
    pub service_us: u32,
    pub class: Class,
}

/// What a trace is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub requests: usize,
    pub workers: u32,
    pub mean_us: u32,
    /// Offered work in parts of what the workers can do.
    pub load: f64,
    pub dist: Dist,
    /// 10 % urgent, 30 % normal, 60 % background; else all are normal.
    pub has_classes: bool,
}

/// The trace of a seed: Poisson arrivals at `load * workers / mean`.
pub fn plan(shape: &Shape, seed: u64) -> Vec<Planned> {
    let mut gaps = Random::new(seed, 1);
    let mut services = Random::new(seed, 2);
    let mut classes = Random::new(seed, 3);
    let mean_us = f64::from(shape.mean_us);
    let mean_gap_ns = mean_us * 1_000.0 / (shape.load * f64::from(shape.workers));
    let mut due_ns = 0.0;
    let one = |_| {
        due_ns += mean_gap_ns * gaps.exponential();
        let service_us = (mean_us * shape.dist.draw(&mut services)).round().max(1.0) as u32;
        let class = match classes.unit() {
            _ if !shape.has_classes => Class::Normal,
            part if part < 0.1 => Class::Urgent,
            part if part < 0.4 => Class::Normal,
            _ => Class::Background,
        };
        Planned { due_ns: due_ns as u64, service_us, class }
    };
    (0..shape.requests).map(one).collect()
}

impl Dist {
    /// With mean 1.
    fn draw(self, random: &mut Random) -> f64 {
        match self {
            Dist::Exp => random.exponential(),
            Dist::Bimodal if random.unit() < 0.9 => 0.5,
            Dist::Bimodal => 5.5,
            // The mean of exp(mu + sigma Z) is exp(mu + sigma^2 / 2).
            Dist::Lognormal => (random.normal() - 0.5).exp(),
        }
    }
}

/// splitmix64: one addition and two multiplications, 2^64 values before it repeats.
struct Random(u64);

impl Random {
    /// Streams of one seed have nothing to do with each other: each begins at a value that was mixed.
    fn new(seed: u64, stream: u64) -> Random {
        let begin = Random(seed).next();
        Random(Random(begin ^ stream).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Box and Muller's, one of the pair.
    fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
#[allow(unused)] // see main.rs
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { requests: 200_000, workers: 16, mean_us: 5_000, load: 0.9, dist: Dist::Exp, has_classes: true };
    const DISTS: [Dist; 3] = [Dist::Exp, Dist::Bimodal, Dist::Lognormal];

    #[track_caller]
    fn near(got: f64, want: f64, part: f64) {
        assert!((got / want - 1.0).abs() < part, "{got} is not within {part} of {want}");
    }

    fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = values.len() as f64;
        values.sum::<f64>() / count
    }

    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = Random(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        for dist in DISTS {
            let shape = Shape { requests: 1_000, dist, ..SHAPE };
            assert_eq!(plan(&shape, 7), plan(&shape, 7), "{dist}");
            assert_ne!(plan(&shape, 7), plan(&shape, 8), "{dist}");
        }
    }

    #[test]
    fn a_shorter_trace_is_the_beginning_of_a_longer_one() {
        let long = plan(&Shape { requests: 1_000, ..SHAPE }, 7);
        assert_eq!(plan(&Shape { requests: 300, ..SHAPE }, 7), long[..300]);
    }

    #[test]
    fn service_times_and_classes_do_not_depend_on_the_load() {
        let of = |load| plan(&Shape { requests: 1_000, load, ..SHAPE }, 7);
        let kept = |trace: Vec<Planned>| trace.into_iter().map(|p| (p.service_us, p.class)).collect::<Vec<_>>();
        assert_eq!(kept(of(0.05)), kept(of(2.0)));
    }

    #[test]
    fn arrivals_are_poisson_at_the_rate_that_was_asked_for() {
        for load in [0.05, 0.9, 2.0] {
            let trace = plan(&Shape { load, ..SHAPE }, 1);
            assert!(trace.windows(2).all(|pair| pair[0].due_ns <= pair[1].due_ns));
            let gaps: Vec<f64> = trace.windows(2).map(|pair| (pair[1].due_ns - pair[0].due_ns) as f64).collect();
            let mean_gap = mean(gaps.iter().copied());
            near(mean_gap, 5_000_000.0 / (16.0 * load), 0.01);
            // Exponential: the variance is the square of the mean, and 1 - 1/e lie below the mean.
            near(mean(gaps.iter().map(|gap| (gap - mean_gap).powi(2))), mean_gap * mean_gap, 0.03);
            let below = gaps.iter().filter(|gap| **gap < mean_gap).count() as f64 / gaps.len() as f64;
            near(below, 1.0 - (-1.0_f64).exp(), 0.01);
        }
    }

    #[test]
    fn each_distribution_has_its_mean_and_its_variance() {
        let e = std::f64::consts::E;
        for (dist, variance, part) in
            [(Dist::Exp, 1.0, 0.03), (Dist::Bimodal, 2.25, 0.02), (Dist::Lognormal, e - 1.0, 0.1)]
        {
            let trace = plan(&Shape { dist, ..SHAPE }, 3);
            let services: Vec<f64> = trace.iter().map(|planned| f64::from(planned.service_us) / 5_000.0).collect();
            near(mean(services.iter().copied()), 1.0, 0.015);
            near(mean(services.iter().map(|service| (service - 1.0).powi(2))), variance, part);
        }
    }

    #[test]
    fn a_bimodal_service_time_is_one_of_two() {
        let trace = plan(&Shape { dist: Dist::Bimodal, ..SHAPE }, 5);
        assert!(trace.iter().all(|planned| [2_500, 27_500].contains(&planned.service_us)));
        let short = trace.iter().filter(|planned| planned.service_us == 2_500).count() as f64;
        near(short / trace.len() as f64, 0.9, 0.01);
    }

    #[test]
    fn one_in_ten_is_urgent_and_six_are_background() {
        let trace = plan(&SHAPE, 2);
        let part = |class| trace.iter().filter(|planned| planned.class == class).count() as f64 / trace.len() as f64;
        near(part(Class::Urgent), 0.1, 0.02);
        near(part(Class::Normal), 0.3, 0.02);
        near(part(Class::Background), 0.6, 0.02);
        let plain = plan(&Shape { has_classes: false, ..SHAPE }, 2);
        assert!(plain.iter().all(|planned| planned.class == Class::Normal));
        assert!(trace.iter().zip(&plain).all(|(a, b)| (a.due_ns, a.service_us) == (b.due_ns, b.service_us)));
    }
}
