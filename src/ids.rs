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

/// A `[[credential]]` of the configuration, counted from 0 in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId(pub u16);
