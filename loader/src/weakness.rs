//! Weaknesses of a container's set-up as the bits that are kept in the kernel, and as people read them.

use crate::docker::Weakness;

/// Every weakness, in the order of its bit. New ones go to the end.
const ALL: [Weakness; 6] = [
    Weakness::Privileged,
    Weakness::HostNetwork,
    Weakness::SharedNetwork,
    Weakness::HostPid,
    Weakness::EngineSocket,
    Weakness::Capability,
];

/// What a weakness is, what it costs, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its word, in records and for `--accept`: one list everywhere.
    pub word: &'static str,
    /// What is the matter, behind "its container".
    pub what: &'static str,
    /// What that costs.
    pub cost: &'static str,
    /// What to do.
    pub mend: &'static str,
}

/// As kept in `SlotInfo::weaknesses`.
#[must_use]
pub fn bits(all: &[Weakness]) -> u32 {
    let bit = |w: &Weakness| ALL.iter().position(|a| a == w).map_or(0, |at| 1 << at);
    all.iter().map(bit).fold(0, |sum, bit| sum | bit)
}

/// Out of `SlotInfo::weaknesses`; bits of a later version are left out.
#[must_use]
pub fn of(bits: u32) -> Vec<Weakness> {
    let set = |at: usize| bits & (1 << at) != 0;
    let all = ALL.iter().enumerate().filter(|(at, _)| set(*at));
    all.map(|(_, w)| *w).collect()
}

/// For people.
#[must_use]
pub fn told(w: Weakness) -> Told {
    let (word, what, cost, mend) = match w {
        Weakness::Privileged => (
            "privileged",
            "runs with --privileged",
            "root in it can detach the firewall or leave its cgroup",
            "run it without --privileged",
        ),
        Weakness::HostNetwork => (
            "host_network",
            "shares the machine's network",
            "services on the machine's loopback are within its reach, and no interface of its own can be guarded",
            "give it a network of its own",
        ),
        Weakness::SharedNetwork => (
            "shared_network",
            "shares the network of another container",
            "the two have one address: records of proxies cannot be told apart by it",
            "give it a network of its own",
        ),
        Weakness::HostPid => (
            "host_pid",
            "sees the machine's processes",
            "it can reach into processes outside the firewall that run as its user",
            "run it without --pid host",
        ),
        Weakness::EngineSocket => (
            "engine_socket",
            "has the engine's socket mounted",
            "it can start containers that are not enforced",
            "remove the mount",
        ),
        Weakness::Capability => (
            "capability",
            "has a capability of NET_ADMIN, SYS_ADMIN, BPF, SYS_MODULE or SYS_PTRACE",
            "with it the firewall can be lifted or gone around",
            "drop the capability",
        ),
    };
    Told {
        word,
        what,
        cost,
        mend,
    }
}

/// Every word of [`Told::word`].
#[must_use]
pub fn words() -> [&'static str; ALL.len()] {
    ALL.map(|w| told(w).word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_hold_what_was_put_in(set in 0u32..1 << ALL.len(), later in any::<u32>()) {
            prop_assert_eq!(bits(&of(set)), set);
            prop_assert_eq!(of(set | (later << ALL.len())), of(set));
        }
    }

    #[test]
    fn papers_list_every_word() {
        let list = words().map(|w| format!("`{w}`")).join(", ");
        for paper in ["serve.md", "doctor.md", "fields.md"] {
            let path = format!("{}/../docs/{paper}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains(&list), "{paper} does not say {list}");
        }
    }

    #[test]
    fn every_weakness_has_a_word_of_its_own() {
        let mut all = words().to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), ALL.len());
    }
}
