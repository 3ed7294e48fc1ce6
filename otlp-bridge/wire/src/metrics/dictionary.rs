//! Every metric, once, with its kind, its unit and its labels. `docs/metrics.md` is made from this table.

use super::{Counter, Entry, Gauge, Kind, Metric};
use std::marker::PhantomData;

macro_rules! metrics {
    ($($program:literal {
        $($(#[doc = $doc:literal])+
        $constant:ident: $kind:ident[$n:literal] = $name:literal in $unit:literal by [$($label:literal)*];)+
    })+) => {
        $($(
            $(#[doc = $doc])+
            pub const $constant: Metric<$kind, $n> = Metric {
                name: $name,
                unit: $unit,
                labels: [$($label),*],
                meaning: concat!($($doc),+),
                kind: PhantomData,
            };
        )+)+

        /// The whole dictionary, in the order of the documentation.
        pub const ALL_METRICS: &[Entry] = &[$($(
            Entry {
                program: $program,
                name: $name,
                kind: <$kind as Kind>::NAME,
                unit: $unit,
                labels: &[$($label),*],
                meaning: concat!($($doc),+),
            },
        )+)+];
    };
}

metrics! {
    "loader" {
        /// Agents under the firewall now.
        AGENTS: Gauge[0] = "clawker.loader.agents" in "{agent}" by [];
        /// 1 where every hook of every enrolled agent is in force, as the kernel says; 0 where one is not, or cannot be checked.
        HOOKS: Gauge[0] = "clawker.loader.hooks.effective" in "{state}" by [];
        /// Flows that began, those denied at once included. Less `ended`: what lives.
        FLOWS_OPENED: Counter[0] = "clawker.loader.flows.opened" in "{flow}" by [];
        /// Flows that ended in the kernel, by verdict.
        FLOWS_ENDED: Counter[1] = "clawker.loader.flows.ended" in "{flow}" by ["verdict"];
        /// Flows that written records tell of, by verdict: `ended` after every drain, unless flows were lost.
        FLOWS_RECORDED: Counter[1] = "clawker.loader.flows.recorded" in "{flow}" by ["verdict"];
        /// Denied flows by reason.
        FLOWS_DENIED: Counter[1] = "clawker.loader.flows.denied" in "{flow}" by ["reason"];
        /// Flows that went into records with a count, by cause: `ring_full`, `rate`.
        FLOWS_FOLDED: Counter[1] = "clawker.loader.flows.folded" in "{flow}" by ["cause"];
        /// Flows that are in no record and never will be, and were declared.
        FLOWS_LOST: Counter[0] = "clawker.loader.flows.lost" in "{flow}" by [];
        /// Flows refused in cgroups that had no slot.
        FLOWS_UNENROLLED: Counter[0] = "clawker.loader.flows.unenrolled" in "{flow}" by [];
        /// What did not fit, could not be parsed or failed in the kernel, by cause; it was folded, not learned, or denied.
        TROUBLE: Counter[1] = "clawker.loader.trouble" in "{event}" by ["cause"];
        /// Entries of the rings that were no records.
        MALFORMED: Counter[0] = "clawker.loader.ring.malformed" in "{entry}" by [];
        /// Records that wait to be sent.
        QUEUE: Gauge[0] = "clawker.loader.queue.records" in "{record}" by [];
        /// Records that may wait to be sent; what comes on top is lost and counted as undelivered.
        QUEUE_LIMIT: Gauge[0] = "clawker.loader.queue.limit" in "{record}" by [];
        /// Requests of records by outcome: `delivered`, `partial`, `retry`, `refused`.
        BATCHES: Counter[1] = "clawker.loader.batches" in "{request}" by ["outcome"];
        /// Records that were given up: the queue was full, or the receiver would not take them.
        UNDELIVERED: Counter[0] = "clawker.loader.records.undelivered" in "{record}" by [];
    }
    "bridge" {
        /// Records that are on the disk or were, by stream.
        KEPT: Counter[1] = "clawker.bridge.records.kept" in "{record}" by ["stream"];
        /// Records that the collector confirmed, by stream.
        DELIVERED: Counter[1] = "clawker.bridge.records.delivered" in "{record}" by ["stream"];
        /// Records thrown away and declared because the spool was full, by stream.
        SHED: Counter[1] = "clawker.bridge.records.shed" in "{record}" by ["stream"];
        /// How often a record was set aside because the store did not take it, which is announced, by stream.
        SET_ASIDE: Counter[1] = "clawker.bridge.records.set_aside" in "{record}" by ["stream"];
        /// Records that the entrances refused one at a time while others of the request were taken, by cause: `malformed`, `too_large`, `too_many`, `no_stream`.
        RECORDS_REFUSED: Counter[1] = "clawker.bridge.records.refused" in "{record}" by ["cause"];
        /// Requests at the entrances by outcome: `accepted`, `refused` for good, `put_off`: the sender has to come again.
        REQUESTS: Counter[1] = "clawker.bridge.requests" in "{request}" by ["outcome"];
        /// Answers of the leases to whose a record is: `held`, `nobody`, `ambiguous`, `beyond`, `no_address`.
        STAMPS: Counter[1] = "clawker.bridge.stamps" in "{record}" by ["answer"];
        /// Records in the spool.
        SPOOL_RECORDS: Gauge[0] = "clawker.bridge.spool.records" in "{record}" by [];
        /// Size of the records in the spool.
        SPOOL_SIZE: Gauge[0] = "clawker.bridge.spool.size" in "By" by [];
        /// Size that the records in the spool may have.
        SPOOL_LIMIT: Gauge[0] = "clawker.bridge.spool.limit" in "By" by [];
        /// Age of the oldest record in the spool; 0 when it is empty.
        SPOOL_AGE: Gauge[0] = "clawker.bridge.spool.age" in "s" by [];
        /// Age of the leases that records are stamped by.
        LEASES_AGE: Gauge[0] = "clawker.bridge.leases.age" in "s" by [];
    }
    "both" {
        /// Own log records that were not sent: too many at once, or nobody took them.
        LOG_SUPPRESSED: Counter[0] = "clawker.log.suppressed" in "{record}" by [];
    }
}
