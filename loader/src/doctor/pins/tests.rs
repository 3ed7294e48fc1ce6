use super::{
    super::{
        State,
        instance::sample::{after, map_id, only, the_slot},
    },
    *,
};
use abi::{Ip, programs};

fn config(i: &mut Instance) -> &mut SlotConfig {
    the_slot(i).config.as_mut().unwrap().as_mut().unwrap()
}

#[test]
fn every_map_that_is_replaced_or_gone_is_named_with_what_it_costs() {
    for name in maps::ALL {
        let at = |i: &Instance| i.maps.iter().position(|(n, _)| *n == name).unwrap();
        let found = after(|i| {
            let at = at(i);
            let pinned = i.maps[at].1.as_mut().unwrap();
            (pinned.id, pinned.types) = (500, 8);
        });
        // An iterator over a map that was replaced goes over another too.
        let mut maps_only = found;
        maps_only.retain(|f| f.check != "iterators");
        only(
            &maps_only,
            State::Problem,
            "maps",
            &[name, "replaced", "map 500"],
        );
        assert!(!maps_only[0].cost.contains("what is read there"), "{name}");
        let mut gone = after(|i| {
            let at = at(i);
            i.maps[at].1 = Err("No such file".into());
        });
        gone.retain(|f| f.check != "iterators");
        only(&gone, State::Problem, "maps", &[name, "No such file"]);
    }
}

#[test]
fn a_map_of_the_same_load_under_another_pin_is_replaced_too() {
    let found = after(|i| {
        let at = i
            .maps
            .iter()
            .position(|(n, _)| *n == maps::POLICY_ADDRS)
            .unwrap();
        i.maps[at].1.as_mut().unwrap().id = map_id(maps::POLICY_NAMES);
    });
    only(
        &found,
        State::Problem,
        "maps",
        &["POLICY_ADDRS", "replaced"],
    );
}

#[test]
fn iterators_that_are_gone_or_replaced_are_named() {
    let gone = after(|i| i.iterators[1].2 = Err("No such file".into()));
    only(
        &gone,
        State::Problem,
        "iterators",
        &[programs::ITER_DGRAM, "No such file"],
    );
    let other = after(|i| i.iterators[0].2 = i.iterators[1].2.clone());
    only(
        &other,
        State::Problem,
        "iterators",
        &[programs::ITER_TCP, "does not go over TCP_FLOWS"],
    );
}

#[test]
fn a_configuration_that_is_zero_absent_or_of_another_slot_is_named() {
    let zero = after(|i| config(i).slot = 0);
    only(&zero, State::Problem, "slot", &["clawker/run-1 is zero"]);
    let absent = after(|i| the_slot(i).config = Ok(None));
    only(
        &absent,
        State::Problem,
        "slot",
        &["slot 3", "no configuration"],
    );
    let unread = after(|i| the_slot(i).config = Err("not permitted".into()));
    only(&unread, State::Problem, "slot", &["not permitted"]);
    for other in [
        after(|i| config(i).slot = 4),
        after(|i| config(i).index = 2),
        after(|i| the_slot(i).books.after.slot = 9),
    ] {
        only(
            &other,
            State::Problem,
            "slot",
            &["slot 3 was enrolled in row 1"],
        );
    }
}

#[test]
fn modes_that_let_pass_and_a_bypass_are_noted() {
    only(
        &after(|i| config(i).mode = MODE_OBSERVE),
        State::Note,
        "mode",
        &["observes"],
    );
    only(
        &after(|i| config(i).mode = MODE_AUDIT),
        State::Note,
        "mode",
        &["audits"],
    );
    let lifted = after(|i| config(i).bypass_until = i.now + 300_000_000_000);
    only(&lifted, State::Note, "bypass", &["5 min more"]);
    assert_eq!(after(|i| config(i).bypass_until = i.now - 1), []);
}

#[test]
fn resolvers_of_the_machine_that_are_not_trusted_are_noted() {
    let found = after(|i| i.resolvers.push([198, 51, 100, 1].into()));
    only(&found, State::Note, "resolvers", &["198.51.100.1"]);
}

#[test]
fn a_dead_loader_is_a_problem_and_what_waits_is_counted() {
    let needed = after(|i| {
        i.alive = false;
        the_slot(i).books.folded = 4;
    });
    only(
        &needed,
        State::Problem,
        "loader",
        &["dead", "enforcement goes on", "5 flows waiting"],
    );
    assert!(needed[0].mend.contains("detach --instance run-1"));
    let over = after(|i| {
        (i.alive, i.over) = (false, true);
    });
    only(
        &over,
        State::Problem,
        "loader",
        &["nothing needs it", "never recorded: 1 flow"],
    );
}

#[test]
fn of_an_instance_in_the_making_nothing_is_missed() {
    let making = after(|i| {
        (i.making, i.slots) = (true, Err("No such file".into()));
        i.maps[0].1 = Err("No such file".into());
    });
    only(&making, State::Note, "slot", &["no slot yet"]);
    let died = after(|i| (i.alive, i.slots) = (false, Err("No such file".into())));
    assert!(
        died.iter().any(|f| f.what.contains("not whole")),
        "{died:#?}"
    );
}

#[test]
fn an_instance_without_a_slot_is_in_the_making_or_died_in_it() {
    let none = |i: &mut Instance| i.slots = Ok(vec![]);
    only(&after(none), State::Note, "slot", &["no slot yet"]);
    let found = after(|i| {
        none(i);
        i.alive = false;
    });
    assert!(
        found.iter().any(|f| f.what.contains("died before a slot")),
        "{found:#?}"
    );
    let unread = after(|i| i.slots = Err("cannot open map SLOT_INFO".into()));
    only(&unread, State::Problem, "slot", &["SLOT_INFO"]);
}

#[test]
fn an_upgrade_that_was_left_half_way_is_named_until_a_loader_goes_on_with_it() {
    let half_way = |alive| {
        let mut found = after(|i| {
            i.alive = alive;
            config(i).phase = abi::PHASE_HEIR;
        });
        found.retain(|f| f.check == "slot" && f.state == State::Problem);
        found
    };
    only(&half_way(false), State::Problem, "slot", &["handed over"]);
    assert!(half_way(true).is_empty());
}

#[test]
fn an_agent_without_a_way_to_what_it_is_led_to_is_named_with_what_to_do() {
    let there = crate::enrol::ip([192, 0, 2, 53].into());
    let found = |flags: u8, proxies: [Ip; 2], name_servers: [Ip; 2]| {
        let mut found = after(|i| {
            let c = config(i);
            c.flags |= flags;
            (c.proxies, c.name_servers) = (proxies, name_servers);
        });
        found.retain(|f| f.check == "proxy");
        found
    };
    let (none, one) = ([Ip::default(); 2], [there, Ip::default()]);
    assert!(found(0, none, none).is_empty());
    assert!(found(abi::SLOT_PROXY | abi::SLOT_NAME_SERVER, one, one).is_empty());
    let names = found(abi::SLOT_PROXY | abi::SLOT_NAME_SERVER, one, none);
    only(&names, State::Note, "proxy", &["name server"]);
    assert!(names[0].mend.contains("docker network connect"));
    let requests = found(abi::SLOT_PROXY, none, none);
    only(&requests, State::Note, "proxy", &["proxy"]);
    assert!(requests[0].cost.contains("no_proxy_path"));
}

#[test]
fn resolvers_do_not_matter_where_dns_is_led_to_one() {
    let strange = |flags: u8| {
        let found = after(|i| {
            i.resolvers = vec![[203, 0, 113, 7].into()];
            config(i).flags |= flags;
        });
        found.iter().any(|f| f.check == "resolvers")
    };
    assert!(strange(0));
    assert!(!strange(abi::SLOT_NAME_SERVER));
}
