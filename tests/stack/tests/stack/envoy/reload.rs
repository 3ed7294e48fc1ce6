//! A policy that is replaced while Envoy, the kernel and `serve` work with it.

use super::{names, plain::upstream};
use kernel_tests::{
    agent::code, eventually, peer::once, run::Bench, stand_in::StandIn, talk::Talk,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use stack_tests::envoy::Envoy;
use std::{fs, io::Read as _, net::TcpListener, path::PathBuf, process::Command};

/// The agent, Envoy and their server are in one network namespace; the agent comes from this address.
const AGENT: &str = "192.0.2.1";

/// Says what becomes of requests for a path, each on a connection of its own.
const REQUESTS: &str = "
def request(path):
    with socket.socket() as s:
        s.settimeout(10)
        code = s.connect_ex(('203.0.113.9', 80))
        if code: return errno.errorcode[code]
        got = b''
        try:
            s.sendall(f'GET {path} HTTP/1.1\\r\\nhost: 203.0.113.9\\r\\nconnection: close\\r\\n\\r\\n'.encode())
            # Not to the end: Envoy keeps a connection for a second that it has refused something on.
            while b'\\n' not in got and (b := s.recv(4096)): got += b
        except OSError as e: return errno.errorcode[e.errno]
        return got.split()[1].decode() if got else 'closed'
for path in iter(hear, ''): say(request(path))
";

/// What `serve` works with.
struct Yard {
    bench: Bench,
    policy: PathBuf,
    agent: Talk,
    serve: Option<Talk>,
    _engine: StandIn,
}

impl Yard {
    /// An agent under a policy, and `serve` with files for Envoy.
    fn new(rules: &str) -> Self {
        let bench = Bench::new();
        let engine = StandIn::start(&bench.path(""));
        let code = code(&format!("say('here')\n{REQUESTS}"));
        let mut agent = Talk::start(Command::new("python3").args(["-c", &code]));
        assert_eq!(agent.hear(), "here");
        let network = json!({"shop": {"IPAddress": AGENT, "IPPrefixLen": 24}});
        engine.add_on(1, agent.pid(), &network);
        let policy = bench.policy(&with(rules));
        let mut serve = bench.serve();
        serve.arg("--policy").arg(&policy);
        serve.args(["--proxy", AGENT, "--resolver", "192.0.2.53:53"]);
        serve.args(["--collector", "192.0.2.1:4317"]);
        serve.arg("--envoy").arg(bench.path("envoy"));
        let serve = Talk::start(&mut serve);
        let yard = Self {
            bench,
            policy,
            agent,
            serve: Some(serve),
            _engine: engine,
        };
        eventually("the agent to be in the files", || {
            yard.listeners().contains(AGENT).then_some(())
        });
        yard
    }

    fn envoy(&self) -> Envoy {
        Envoy::start(&self.bench.path("envoy"), &["192.0.2.1:10080"])
    }

    fn listeners(&self) -> String {
        let file = self.bench.path("envoy").join("listeners.json");
        fs::read_to_string(file).unwrap_or_default()
    }

    /// Puts another file in the policy's place.
    fn replace(&self, rules: &str) {
        let next = self.bench.path("next.yaml");
        fs::write(&next, with(rules)).unwrap();
        fs::rename(&next, &self.policy).unwrap();
    }

    /// Changes of policy that were told.
    fn changes(&self) -> Vec<Value> {
        let mut all = self.bench.events();
        all.retain(|e| e["event_name"] == "clawker.overseer.policy");
        // Every change begins with one that says so.
        let (offered, settled): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|e| e["outcome"] == "offered");
        assert!(offered.len() >= settled.len(), "{settled:?}");
        settled
    }

    /// The last of so many.
    fn told(&self, n: usize) -> Value {
        eventually("the change to be told", || {
            let mut all = self.changes();
            assert!(all.len() <= n, "{all:#?}");
            (all.len() == n).then(|| all.pop()).flatten()
        })
    }

    fn request(&mut self, path: &str) -> String {
        self.agent.say(path);
        self.agent.hear()
    }

    /// Ends it; what `serve` has said.
    fn end(mut self) -> String {
        let serve = self.serve.take().unwrap();
        serve.signal(Signal::SIGTERM);
        let out = serve.end(&self.bench);
        assert_eq!(out.code, 0, "{}", out.stderr);
        out.stderr
    }
}

fn with(rules: &str) -> String {
    format!("version: 1\nresolvers: [192.0.2.53]\nrules:\n{rules}\n")
}

/// Requests below one path.
fn below(path: &str) -> String {
    format!("- {{ name: api, dst: 203.0.113.9, proto: http, path_rules: [{{ path: {path} }}] }}")
}

#[test]
fn a_policy_that_envoy_refuses_is_in_force_nowhere() {
    let mut yard = Yard::new(&below("/first/"));
    let _names = names();
    upstream("203.0.113.9:80");
    let _envoy = yard.envoy();
    assert_eq!(yard.request("/first/x"), "200");
    assert_eq!(yard.request("/second/x"), "403");
    let before = yard.listeners();
    // A port of which Envoy cannot have the listener's.
    let taken = TcpListener::bind("0.0.0.0:10081").unwrap();
    yard.replace(&format!(
        "{}\n- {{ dst: 203.0.113.9, proto: http, port: 81 }}",
        below("/second/")
    ));
    let told = yard.told(1);
    assert_eq!(told["outcome"], "refused", "{told}");
    let said = told["message"].as_str().unwrap();
    assert!(said.contains("Envoy refuses the configuration: "), "{said}");
    assert!(said.contains("10081"), "{said}");
    drop(taken);
    // All three are where they were.
    eventually("the files of the policy in force", || {
        let bare = |text: &str| {
            text.split_once("\"version_info\"")
                .map(|(head, _)| head.to_owned())
        };
        (bare(&yard.listeners()) == bare(&before)).then_some(())
    });
    eventually("Envoy to be where it was", || {
        let said = [yard.request("/first/x"), yard.request("/second/x")];
        (said == ["200", "403"]).then_some(())
    });
    // One that it takes comes into force.
    yard.replace(&below("/second/"));
    let told = yard.told(2);
    assert_eq!(told["outcome"], "applied", "{told}");
    assert_eq!(yard.request("/second/x"), "200");
    assert_eq!(yard.request("/first/x"), "403");
    let said = yard.end();
    assert_eq!(said.matches("Envoy refuses").count(), 1, "{said}");
}

/// Policies by who decides under them, each with whether it allows `/both/x` and `/other/x`.
fn walk() -> [(String, [bool; 2]); 5] {
    let direct = "- { name: direct, dst: 203.0.113.9, proto: tcp, port: 80 }";
    let whole = "- { name: whole, dst: 203.0.113.9, proto: http }";
    let elsewhere = "- { name: elsewhere, dst: 198.51.100.7, proto: http }";
    [
        (below("/both/"), [true, false]),
        (direct.to_owned(), [true, true]),
        (whole.to_owned(), [true, true]),
        (elsewhere.to_owned(), [false, false]),
        (below("/other/"), [false, true]),
    ]
}

/// Between any two of them, under requests: at no moment does one fail that both policies allow, or pass that neither does.
#[test]
fn rules_that_move_between_the_kernel_and_envoy_leave_no_gap() {
    const PATHS: [&str; 2] = ["/both/x", "/other/x"];
    let policies = walk();
    let mut yard = Yard::new(&policies[0].0);
    let _names = names();
    upstream("203.0.113.9:80");
    let _envoy = yard.envoy();
    let (mut before, mut turn) = (0, 0);
    // Every step from each to each other one, in one walk: an Euler circuit of five that are all joined both ways.
    for stride in 1..policies.len() {
        for _ in 0..policies.len() {
            let after = (before + stride) % policies.len();
            turn += 1;
            yard.replace(&policies[after].0);
            let mut more = 0;
            // Until the change has been told, and some time on.
            while more < 10 {
                for (n, path) in PATHS.iter().enumerate() {
                    let may = [before, after].map(|p: usize| policies[p].1[n]);
                    let said = yard.request(path);
                    let passed = said == "200";
                    assert!(
                        passed == may[0] || passed == may[1],
                        "turn {turn}, {path}, {may:?}: {said}"
                    );
                }
                let told = yard.changes().len();
                assert!(told <= turn);
                more += usize::from(told == turn);
            }
            for (n, path) in PATHS.iter().enumerate() {
                eventually("the new policy to decide", || {
                    let passed = yard.request(path) == "200";
                    (passed == policies[after].1[n]).then_some(())
                });
            }
            before = after;
        }
    }
    assert_eq!(turn, 20);
    yard.end();
}

#[test]
fn without_envoy_the_kernel_takes_the_policy_and_what_needs_envoy_fails() {
    let mut yard = Yard::new(&below("/first/"));
    let direct = once("203.0.113.9:80", |mut s| {
        let mut rest = Vec::new();
        let _ = s.read_to_end(&mut rest);
        rest.len() as u64
    });
    assert_eq!(yard.request("/first/x"), "ECONNREFUSED");
    yard.replace("- { name: other, dst: 198.51.100.7, proto: http }");
    let told = yard.told(1);
    assert_eq!(told["outcome"], "applied", "{told}");
    assert_eq!(yard.request("/first/x"), "EPERM");
    let said = yard.end();
    assert!(said.contains("cannot ask Envoy at "), "{said}");
    assert!(
        said.contains("the kernel takes the new policy without it"),
        "{said}"
    );
    drop(direct);
}
