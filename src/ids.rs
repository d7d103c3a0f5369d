//! Names of things that could be swapped by mistake. Only numbers enter here, nothing that they name.

/// A core of this process, counted from 0 in the order of `cores`; not a CPU number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u16);

/// A `[[pool]]` of the configuration, counted from 0 in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// A link on its core. Never used again on that core, so a late message cannot hit a newer link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A request that waits on its core. Never used again on that core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// How urgent a request is: 0 most urgent to 7 (the urgency of RFC 9218).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(u8);

impl Class {
    /// Number of classes.
    pub const COUNT: usize = 8;

    /// The class of an urgency; what is above 7 is taken as 7.
    #[must_use]
    pub const fn of(urgency: u8) -> Class {
        Class(if urgency < Self::COUNT as u8 { urgency } else { Self::COUNT as u8 - 1 })
    }

    #[must_use]
    pub const fn urgency(self) -> u8 {
        self.0
    }

    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every class, the most urgent first.
    pub fn all() -> impl Iterator<Item = Class> {
        (0..Self::COUNT as u8).map(Class)
    }
}
