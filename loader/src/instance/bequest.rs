//! What a slot of one set of programs becomes in another.

use super::Seat;
use crate::kernel::Learned;
use abi::{
    DIRECTION_EGRESS, FLOW_PROXIED, Flow, HeirKey, IPPROTO_TCP, LiveFlow, NO_RULE, PHASE_GONE,
    PHASE_HEIR, PHASE_WAITING, SlotConfig, SlotInfo, reason,
};

/// A new seat in the row of the old one. If the old set stands aside already, nothing is waited for.
pub(super) fn seated(
    old: &Seat,
    theirs: &SlotConfig,
    info: SlotInfo,
    config: SlotConfig,
) -> (SlotInfo, SlotConfig) {
    let phase = if theirs.phase == PHASE_GONE {
        PHASE_HEIR
    } else {
        PHASE_WAITING
    };
    let config = SlotConfig {
        index: old.index,
        phase,
        ..config
    };
    let info = SlotInfo {
        slot: config.slot,
        cgroup_id: old.info.cgroup_id,
        cgroup: old.info.cgroup,
        ..info
    };
    (info, config)
}

/// What one slot has learned, for another.
pub(super) fn resettle(learned: &mut Learned, slot: u32) {
    for (key, _) in &mut learned.names {
        key.slot = slot;
    }
    for (key, _) in &mut learned.addrs {
        key.slot = slot;
    }
}

/// A flow as it goes on. Its generation is none of the slot's: it is judged before anything passes.
pub(super) fn heir(live: &LiveFlow, new: &SlotConfig) -> (HeirKey, Flow) {
    let (flow, tail) = (&live.flow, &live.tail);
    let mut key = HeirKey {
        cookie: live.cookie,
        ..HeirKey::default()
    };
    if flow.proto != IPPROTO_TCP {
        let (peer, port) = if flow.flags & FLOW_PROXIED != 0 {
            // A port, in a field of the ABI's width.
            (tail.proxy, tail.proxy_port as u16)
        } else if flow.direction == DIRECTION_EGRESS {
            (flow.dst, flow.dst_port)
        } else {
            (flow.src, flow.src_port)
        };
        (key.peer, key.port, key.proto) = (peer, port, flow.proto);
    }
    let flow = Flow {
        slot: new.slot,
        index: new.index,
        // Rules are counted anew.
        rule: NO_RULE,
        generation: 0,
        reason: reason::MID_STREAM,
        ..*flow
    };
    (key, flow)
}
