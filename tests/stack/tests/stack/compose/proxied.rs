//! What goes through the stack's own Envoy and CoreDNS.

use docker_tests::{
    container::Container,
    image::{IMAGE, PYTHON},
};
use kernel_tests::talk::Talk;
use serde_json::{Value, json};
use stack_tests::compose::Stack;
use std::{fs, process::Command};

/// A rule for requests to a server that the test starts.
const RULE: &str = "
  - name: web
    dst: web.example
    proto: https
    private: true
    insecure_skip_tls_verify: true
    path_rules: [{ path: /open/, action: allow }]
    path_default: deny
";

/// A server of TLS under this name, in the agents' network. It ends with the conversation.
fn server<'e>(stack: &'e Stack, name: &str) -> (Container<'e>, Talk) {
    let pem = stack.engine.dir().join("web.pem");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
    openssl.args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj"]);
    openssl.arg(format!("/CN={name}")).arg("-keyout").arg(&pem);
    let out = openssl.output().expect("openssl starts");
    assert!(out.status.success(), "{out:?}");
    let key = fs::read_to_string(&pem).expect("a key");
    let both = Value::from(format!("{}{key}", String::from_utf8_lossy(&out.stdout)));
    let container = stack.engine.run(
        "web",
        &["--network", "clawker-agents", "--network-alias", name],
    );
    let mut talk = Talk::start(&mut container.program(&format!(
        "import http.server, ssl\n\
         class Answer(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       self.send_response(200); self.send_header('content-length', '5'); self.end_headers()\n\
         \x20       self.wfile.write(b'hello')\n\
         \x20   def log_message(self, *_): pass\n\
         open('/tmp/web.pem', 'w').write({both})\n\
         context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)\n\
         context.load_cert_chain('/tmp/web.pem')\n\
         server = http.server.ThreadingHTTPServer(('', 443), Answer)\n\
         server.socket = context.wrap_socket(server.socket, server_side=True)\n\
         say('listens')\n\
         server.serve_forever()"
    )));
    assert_eq!(talk.hear(), "listens");
    (container, talk)
}

/// An agent's requests over TLS are decided by their paths once the policy says so, and flow, requests and query are
/// found by its name and joined by address and port.
pub(super) fn requests_are_found(stack: &Stack, agent: &Container<'_>) {
    let name = "web.example";
    let (web, _serves) = server(stack, name);
    let policy = stack.files.dir().join("stack/policy.yaml");
    let text = fs::read_to_string(&policy).expect("the policy");
    let text = text.replacen("\nrules:\n", &format!("\nrules:{RULE}"), 1);
    fs::write(&policy, text).expect("it can be written");

    let export = ["exec", "-T", "loader", "ebpf-manager", "ca", "export"];
    let authority =
        Value::from(stack.compose(&[&export[..], &["--dir", "/var/lib/clawker/ca"]].concat()));
    let get = |paths: &[&str]| {
        let paths = Value::from(paths);
        format!(
            "import http.client, ssl\n\
             context = ssl.create_default_context(cadata={authority})\n\
             web = http.client.HTTPSConnection('{name}', timeout=10, context=context)\n\
             def get(path):\n\
             \x20   web.request('GET', path); answer = web.getresponse(); answer.read()\n\
             \x20   return answer.status\n\
             try: print(*map(get, {paths}))\n\
             except Exception as e: print(e)"
        )
    };
    // One connection, so that the flow is that of both requests.
    let program = get(&["/open/x?token=secret", "/closed"]);
    stack.eventually("requests to be decided by their paths", || {
        (agent.exec(&program) == "200 403").then_some(())
    });

    let own = agent.ip("clawker-agents");
    let envoy = stack.address("envoy", "clawker-agents");
    let found = |index, wanted: &[(&str, Value)]| stack.record(index, "reviewer", wanted);
    let passed = found(
        "clawker-envoy",
        &[
            ("verdict", json!("ALLOWED")),
            ("path", json!("/open/x")),
            ("request_host", json!(name)),
            ("response_code", json!(200)),
            ("project", json!("acme")),
            ("src_ip", json!(own)),
        ],
    );
    let port = passed["_source"]["attributes"]["src_port"].clone();
    let joined = [("src_ip", json!(own)), ("src_port", port)];
    let of_the_connection = |more: &[(&'static str, Value)]| [&joined[..], more].concat();
    found(
        "clawker-envoy",
        &of_the_connection(&[
            ("verdict", json!("DENIED")),
            ("path", json!("/closed")),
            ("rule", json!("web")),
            ("response_code", json!(403)),
        ]),
    );
    found(
        "clawker-egress",
        &of_the_connection(&[
            ("verdict", json!("ALLOWED")),
            ("rule", json!("web")),
            ("dst_ip", json!(web.ip("clawker-agents"))),
            ("dst_host", json!(name)),
            ("dst_port", json!(443)),
            ("proxy_ip", json!(envoy)),
            ("proxy_port", json!(10443)),
        ]),
    );
    found(
        "clawker-coredns",
        &[
            ("verdict", json!("ALLOWED")),
            ("qname", json!(format!("{name}."))),
            ("rcode", json!("NOERROR")),
            ("src_ip", json!(own)),
            ("project", json!("acme")),
        ],
    );
    let all = stack.search("clawker-*", &super::of("reviewer"));
    assert!(
        !json!(all).to_string().contains("secret"),
        "a query string is on record"
    );
    the_first_request_of_a_container_passes(stack, &get(&["/open/first"]));
    web.remove();
}

/// Both proxies know an agent before its first process runs. Where the machine has too much to do for that, one fails;
/// without it all would.
fn the_first_request_of_a_container_passes(stack: &Stack, program: &str) {
    let network = ["--network", "clawker-agents", IMAGE, PYTHON, "-c", program];
    let said: Vec<String> = (0..5)
        .map(|n| {
            let name = format!("first-{n}");
            let agent = stack.engine.agent(&name, "acme", &network);
            agent.act("wait");
            let said = stack.engine.docker(&["logs", &agent.id]);
            if said == "200" {
                // It is on record as this agent's, from its first question on.
                for index in ["clawker-coredns", "clawker-envoy", "clawker-egress"] {
                    stack.record(index, &name, &[]);
                }
            }
            agent.remove();
            said
        })
        .collect();
    let passed = said.iter().filter(|said| *said == "200").count();
    assert!(passed >= 3, "{said:?}");
}
