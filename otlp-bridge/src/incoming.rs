//! What goes into the spool, and who takes it: the seam between the entrances and the disk.

pub use wire::{BatchId, Held};

/// What a full spool throws away first. In the order in which it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// Flows that were allowed.
    Allowed,
    /// Records of other sources.
    Other,
    /// Denied and bypassed flows, and audit.
    Kept,
}

/// Flows that a record stands for, as the accounting identity counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    /// Boot id without dashes.
    pub boot: String,
    /// Slot of the kernel's maps.
    pub slot: u32,
    /// ALLOWED, DENIED or BYPASSED.
    pub verdict: String,
    /// How many: 1, or the count of a folded record.
    pub count: u64,
}

/// One record on its way to the disk: stamped, with an id, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Data stream it belongs to.
    pub stream: String,
    /// Unique for ever: the flow's, or one of ours.
    pub id: String,
    /// What it is worth when there is no room.
    pub weight: Weight,
    /// The flows it stands for; nothing for records of other sources.
    pub flows: Option<Flows>,
    /// `ResourceLogs` with one scope and this one record, encoded.
    pub bytes: Vec<u8>,
}

/// Keeps records. When it has said yes they are on the disk.
pub trait Keeper: Send + Sync + 'static {
    /// Why it cannot.
    type Error: std::error::Error + Send + Sync;

    /// Keeps all of them or none; blocks until they are on the disk. A batch that was kept before is not
    /// kept again.
    fn keep(&self, batch: Option<&BatchId>, records: &[Incoming]) -> Result<(), Self::Error>;

    /// What is on record of a boot.
    fn held(&self, boot: &str) -> Result<Vec<Held>, Self::Error>;
}
