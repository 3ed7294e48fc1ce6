//! Sizes and offsets of everything that crosses the kernel boundary, against `layout.txt`. A change here
//! without a new `ABI_VERSION` would make a loader misread what another version has pinned.

use abi::*;
use std::mem::{offset_of, size_of};

macro_rules! layout {
    ($($t:ident { $($f:ident),+ $(,)? })+) => {{
        let mut out = format!("ABI_VERSION {ABI_VERSION}\n");
        $(
            out.push_str(&format!("{} {}\n", stringify!($t), size_of::<$t>()));
            $(out.push_str(&format!("  {} {}\n", stringify!($f), offset_of!($t, $f)));)+
        )+
        out
    }};
}

#[test]
fn the_layout_is_the_one_written_down() {
    let now = layout! {
        SlotConfig { slot, index, policy, generation, bypass_until, udp_idle_ns, mode, flags, resolver_count, phase, resolvers, proxies, name_servers }
        SlotInfo { slot, loader, cgroup_id, since, agent, project, command, policy_file, cgroup, container_id, container_name, bypass_since, bypass_by, bypass_reason, weaknesses }
        SlotMetrics { slot, rate, max_names, max_addrs, max_folds, opened, ended, folded, bytes_in, bytes_out, trouble, denied, names_used, addrs_used, folds_used, rate_window, rate_count, catch_all, recorded }
        ConfigCopies { turn, configs }
        Device { slot, index, held, versions, addresses }
        Control { fold_epoch, end_slot, end_close }
        FoldKey { slot, epoch, dst, port, proto, verdict, reason, direction, flags }
        FoldRow { count, bytes_in, bytes_out, packets_in, packets_out, first, last, rule, policy }
        LearnedAddrKey { slot, addr }
        LearnedAddr { names }
        LearnedNameKey { slot, hash }
        LearnedName { reversed, len, expires }
        NameRef { hash, expires }
        AddrKey { prefix_len, policy, family, addr }
        NameKey { prefix_len, policy, name }
        ChainKey { prefix_len, policy, set }
        RuleTextKey { prefix_len, policy, rule }
        RuleText { name, text }
        RuleSet { rules, count, next }
        PortRule { lo, hi, proto, action, flags, rule }
        Flow { start, names, dst, src, comm, pid, slot, index, policy, rule, generation, dst_port, src_port, proto, verdict, reason, direction, flags, name_count, sock_type }
        Tail { end, bytes_in, bytes_out, packets_in, packets_out, rtt_us, retransmits, cut_rule, cut_policy, close, proxy, proxy_port }
        FlowEvent { flow, tail, seq }
        LiveFlow { flow, tail, cookie }
        Mark { slot, index, told }
        TcpFlow { flow, live, cut, hints, fin_out, fin_in, dns_next, dns_synced, wire, wire_port, fin_in_seen, mid, sent_end, arrived_end }
        TcpCounts { acked, received, segs_in, segs_out, snd_nxt, snd_una, rcv_nxt, srtt, retrans }
        Handled { left }
        HeirKey { cookie, peer, port, proto, kind }
        DgramPeer { flow, last, idle_ns, bytes_in, bytes_out, packets_in, packets_out, state, peer_port, peer }
    };
    let written = include_str!("layout.txt");
    assert_eq!(
        now, written,
        "raise ABI_VERSION, then write the new layout down:\n{now}"
    );
}
