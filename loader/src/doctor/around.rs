//! Findings about what is around the firewall: resolvers, ways past it, the clock, and what is left of
//! other instances.

use super::Finding;
use crate::resolvers::Answer;
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// When this was written, seconds since 1970: no clock that is right shows less.
const WRITTEN: u64 = 1_767_225_600;

/// What was seen around.
#[derive(Clone, Debug)]
pub struct Around {
    /// Resolvers of the machine with what they answered, else why they cannot be told.
    pub resolvers: Result<Vec<(IpAddr, Answer)>, String>,
    /// A service for lookups that no packet shows.
    pub lookups: Option<&'static str>,
    /// Who called, for people.
    pub user: String,
    /// Sockets through which they can have things started outside.
    pub doors: Vec<&'static str>,
    /// Time of day in seconds since 1970; 0 when it is before that or cannot be read.
    pub wall: u64,
    /// Whether something keeps the clock right; unknown when the kernel does not say.
    pub synchronised: Option<bool>,
    /// The boot clock of this process less that of the kernel's programs, nanoseconds.
    pub boot_offset: i64,
    /// Directories of pins of another version.
    pub other_versions: Vec<PathBuf>,
    /// Cgroups of ours with processes and without programs.
    pub unguarded: Vec<PathBuf>,
}

/// Everything there is to say about what is around.
#[must_use]
pub fn findings(a: &Around) -> Vec<Finding> {
    let mut all = resolvers(a);
    all.extend(lookups(a));
    all.extend(doors(a));
    all.push(clock(a));
    all.extend(left(a));
    all
}

fn resolvers(a: &Around) -> Vec<Finding> {
    const COST: &str = "names cannot be looked up, so rules for names open nothing";
    let list = match &a.resolvers {
        Ok(list) => list,
        Err(why) => {
            let mend = "name the resolvers in the policy (`resolvers: [192.0.2.53]`)";
            return vec![Finding::problem("resolver", why.clone(), COST, mend)];
        }
    };
    let one = |(server, answer): &(IpAddr, Answer)| match answer {
        Answer::Answered(took) => Finding::ok(
            "resolver",
            format!("resolver {server} answers ({} ms)", took.as_millis()),
        ),
        Answer::Refused(code) => Finding::note(
            "resolver",
            format!(
                "resolver {server} answers with error {code} ({})",
                rcode(*code)
            ),
            "lookups may fail",
            "ask whoever runs it",
        ),
        Answer::Silent(after) => Finding::problem(
            "resolver",
            format!(
                "resolver {server} does not answer within {}",
                seconds(*after)
            ),
            COST,
            "check the way to it, or put another one into /etc/resolv.conf",
        ),
        Answer::Unreachable(why) => Finding::problem(
            "resolver",
            format!("resolver {server} cannot be reached: {why}"),
            COST,
            "check the way to it, or put another one into /etc/resolv.conf",
        ),
        Answer::NotAsked => Finding::note(
            "resolver",
            format!(
                "resolver {server} was not asked: a link-local address says nothing without its interface"
            ),
            "whether it answers is not known",
            "",
        ),
    };
    list.iter().map(one).collect()
}

fn seconds(d: Duration) -> String {
    format!("{} s", d.as_secs())
}

/// Name of a response code (RFC 1035 §4.1.1).
fn rcode(code: u8) -> &'static str {
    match code {
        1 => "format error",
        2 => "server failure",
        4 => "not implemented",
        5 => "refused",
        _ => "unusual",
    }
}

fn lookups(a: &Around) -> Option<Finding> {
    let service = a.lookups?;
    Some(Finding::note(
        "lookups",
        format!("programs may look names up through {service}, over AF_UNIX"),
        "those lookups are neither filtered nor learned: rules for names may not hold, records show addresses",
        format!("stop {service}, or take it out of `hosts:` in /etc/nsswitch.conf"),
    ))
}

fn doors(a: &Around) -> Option<Finding> {
    if a.doors.is_empty() {
        return None;
    }
    Some(Finding::note(
        "doors",
        format!("{} can reach {}", a.user, a.doors.join(", ")),
        "a command of theirs can have programs started there, outside the firewall",
        "run the command as a user who cannot: --user NAME",
    ))
}

fn clock(a: &Around) -> Finding {
    if a.boot_offset != 0 {
        return Finding::problem(
            "clock",
            "this process is in a time namespace: its boot clock is not the kernel's",
            "times in records are wrong, and a bypass ends at another time than it says",
            "run it outside, in the time namespace of the machine",
        );
    }
    if a.wall < WRITTEN {
        return Finding::problem(
            "clock",
            "the clock shows a time in the past",
            "times in records are wrong",
            "set it: timedatectl set-ntp true",
        );
    }
    match a.synchronised {
        Some(false) => Finding::note(
            "clock",
            "nothing keeps the clock synchronised",
            "times in records may not fit those of other machines",
            "timedatectl set-ntp true",
        ),
        Some(true) => Finding::ok("clock", "clock, synchronised"),
        None => Finding::ok("clock", "clock"),
    }
}

fn left(a: &Around) -> Vec<Finding> {
    let versions = a.other_versions.iter().map(|path| {
        Finding::note(
            "leftover",
            format!("{} has pins of another version", path.display()),
            "this binary cannot read or remove them; what they guard is still guarded",
            format!(
                "use the ebpf-manager of that version; to give it up: rm -r {}",
                path.display()
            ),
        )
    });
    let cgroups = a.unguarded.iter().map(|path| {
        Finding::problem(
            "leftover",
            format!("processes run in {} without the firewall", path.display()),
            "nothing they do is judged or recorded; `detach --force` leaves it so",
            format!("end them: echo 1 > {}", path.join("cgroup.kill").display()),
        )
    });
    versions.chain(cgroups).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    fn well() -> Around {
        let answered = Answer::Answered(Duration::from_millis(3));
        Around {
            resolvers: Ok(vec![([192, 0, 2, 53].into(), answered)]),
            lookups: None,
            user: "alice".into(),
            doors: vec![],
            wall: WRITTEN + 1,
            synchronised: Some(true),
            boot_offset: 0,
            other_versions: vec![],
            unguarded: vec![],
        }
    }

    #[test]
    fn surroundings_that_are_well_have_only_good_findings() {
        let all = findings(&well());
        assert!(all.iter().all(|f| f.state == State::Ok), "{all:#?}");
        assert!(
            all.iter()
                .any(|f| f.what == "resolver 192.0.2.53 answers (3 ms)")
        );
    }

    #[test]
    fn what_is_wrong_around_is_named() {
        let server = |answer| Ok(vec![([192, 0, 2, 53].into(), answer)]);
        let cases = [
            (
                Around {
                    resolvers: server(Answer::Silent(Duration::from_secs(3))),
                    ..well()
                },
                State::Problem,
                "resolver",
                "192.0.2.53 does not answer within 3 s",
            ),
            (
                Around {
                    resolvers: server(Answer::Unreachable("Network is unreachable".into())),
                    ..well()
                },
                State::Problem,
                "resolver",
                "Network is unreachable",
            ),
            (
                Around {
                    resolvers: server(Answer::Refused(5)),
                    ..well()
                },
                State::Note,
                "resolver",
                "error 5 (refused)",
            ),
            (
                Around {
                    resolvers: server(Answer::NotAsked),
                    ..well()
                },
                State::Note,
                "resolver",
                "was not asked",
            ),
            (
                Around {
                    resolvers: Err("cannot read /etc/resolv.conf".into()),
                    ..well()
                },
                State::Problem,
                "resolver",
                "resolv.conf",
            ),
            (
                Around {
                    lookups: Some("nscd"),
                    ..well()
                },
                State::Note,
                "lookups",
                "nscd",
            ),
            (
                Around {
                    doors: vec!["/run/docker.sock"],
                    ..well()
                },
                State::Note,
                "doors",
                "alice can reach /run/docker.sock",
            ),
            (
                Around {
                    wall: WRITTEN - 1,
                    ..well()
                },
                State::Problem,
                "clock",
                "in the past",
            ),
            (
                Around {
                    synchronised: Some(false),
                    ..well()
                },
                State::Note,
                "clock",
                "synchronised",
            ),
            (
                Around {
                    boot_offset: -5,
                    ..well()
                },
                State::Problem,
                "clock",
                "time namespace",
            ),
            (
                Around {
                    other_versions: vec!["/sys/fs/bpf/clawker/v0".into()],
                    ..well()
                },
                State::Note,
                "leftover",
                "clawker/v0",
            ),
            (
                Around {
                    unguarded: vec!["/c/clawker/run-1".into()],
                    ..well()
                },
                State::Problem,
                "leftover",
                "/c/clawker/run-1 without",
            ),
        ];
        for (around, state, check, says) in cases {
            let mut bad = findings(&around);
            bad.retain(|f| f.state != State::Ok);
            assert_eq!(bad.len(), 1, "{bad:#?}");
            assert_eq!((bad[0].state, bad[0].check), (state, check));
            assert!(
                bad[0].what.contains(says) && !bad[0].cost.is_empty(),
                "{bad:#?}"
            );
        }
    }
}
