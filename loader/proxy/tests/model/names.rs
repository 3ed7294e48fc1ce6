//! Queries through the rendered zones against the policy: a model of how CoreDNS finds a block.

use crate::random::{host, source};
use policy::{Mode, Policy};
use proptest::prelude::*;
use proxy::{Agent, Fleet, READY_NAME, Settings, coredns};
use regex::Regex;

/// A server block, as far as it decides.
#[derive(Debug, Default)]
struct Block {
    zones: Vec<String>,
    clients: String,
    spelling: Option<Regex>,
    verdict: String,
    forwards: bool,
    denies: bool,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines() {
        if !line.starts_with([' ', '}', '#']) && !line.is_empty() {
            let zones = line.strip_suffix(" {").unwrap().split(' ');
            let zone = |zone: &str| {
                zone.strip_suffix(":53")
                    .unwrap()
                    .trim_end_matches('.')
                    .to_owned()
            };
            blocks.push(Block {
                zones: zones.map(zone).collect(),
                ..Block::default()
            });
            continue;
        }
        let Some(block) = blocks.last_mut() else {
            continue;
        };
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match word {
            "expr" => {
                let (clients, spelling) = rest.split_once(" && ").unwrap_or((rest, ""));
                block.clients = clients.to_owned();
                let spelling = spelling.split('\'').nth(1);
                block.spelling = spelling.map(|one| Regex::new(one).unwrap());
            }
            "log" => block.verdict = rest.split(' ').nth(2).unwrap().to_owned(),
            "forward" => block.forwards = true,
            "rcode" => block.denies |= rest != "NOERROR",
            _ => {}
        }
    }
    blocks
}

/// The longest zone first, of each the blocks in order.
fn forwarded(blocks: &[Block], client: &str, name: &str) -> bool {
    let dotted = format!("{name}.");
    let mut zone = name;
    loop {
        let of = |block: &&Block| {
            let spelled = |one: &Regex| one.is_match(&dotted);
            block.zones.iter().any(|one| one == zone)
                && (block.clients.is_empty() || block.clients.contains(&format!("'{client}/")))
                && block.spelling.as_ref().is_none_or(spelled)
        };
        if let Some(block) = blocks.iter().find(of) {
            return block.forwards;
        }
        zone = match zone.split_once('.') {
            Some((_, rest)) => rest,
            None if !zone.is_empty() => "",
            None => panic!("no block for the root"),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn zones_are_forwarded_that_the_policy_lets_ask_for(
        source in source(),
        names in prop::collection::vec(host(), 40),
    ) {
        let Some(policy) = Policy::parse(&source).policy else { return Ok(()) };
        let agents = ["p/a@10.9.0.2", "c@10.9.0.4"].map(|text| Agent::parse(text).unwrap());
        let fleet = Fleet::new(agents.to_vec()).unwrap();
        let text = coredns::render(&policy, &fleet, &Settings::default());
        let blocks = blocks(&text);
        for block in &blocks {
            if block.zones == [READY_NAME] {
                // For its own machine, which asks nobody else by it.
                prop_assert!(block.clients == "incidr(client_ip(), '127.0.0.1/32')" && !block.forwards, "{}", text);
                continue;
            }
            let verdict = if block.forwards { "ALLOWED" } else { "DENIED" };
            prop_assert!(block.verdict == verdict && block.denies != block.forwards, "{}", text);
        }
        for name in names.iter().map(String::as_str).chain([READY_NAME]) {
            for (client, agent, project) in [("10.9.0.2", Some("a"), Some("p")), ("10.9.0.4", Some("c"), None)] {
                let selected = policy.select(agent, project);
                let may = selected.may_resolve(name) || selected.mode != Mode::Enforce;
                prop_assert_eq!(forwarded(&blocks, client, name), may, "{} {}\n{}\n{}", client, name, source, text);
                for odd in [r"a\ b", "a-", "-", "a--b", "_a"].map(|label| format!("{label}.{name}")) {
                    let may = selected.may_resolve(&odd) || selected.mode != Mode::Enforce;
                    prop_assert_eq!(forwarded(&blocks, client, &odd), may, "{} {}\n{}\n{}", client, odd, source, text);
                }
            }
            prop_assert!(!forwarded(&blocks, "10.9.0.9", name), "nobody is answered");
        }
    }
}
