//! Who may speak to a loader: nobody inside a container that it, or any other loader, guards.

use docker_tests::{
    container::Container,
    engine::Engine,
    stack::{Stack, is_denied, send},
};
use kernel_tests::eventually;
use serde_json::Value;

/// Asks a control socket, as root of the container, and says what came.
const ASK: &str = "
def order(name, what):
    s = socket.socket(socket.AF_UNIX); s.settimeout(10)
    s.connect('/run/clawker/' + name + '.sock')
    # A refusal may come before there was anything to refuse.
    tried(lambda: s.sendall(what.encode() + b'\\n'))
    return s.makefile().readline().strip()
";

const STATUS: &str = r#"{"v":1,"status":{}}"#;
const WATCH: &str = r#"{"v":1,"watch":{}}"#;
const BYPASS: &str = r#"{"v":1,"bypass":{"for_ms":60000,"reason":"let me out"}}"#;

#[track_caller]
fn is_refused(agent: &Container<'_>, before: &str, instance: &str) {
    for what in [STATUS, WATCH, BYPASS] {
        let said = agent.exec(&format!(
            "{ASK}{before}\nprint(order('{instance}', '{what}'))"
        ));
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{said}: {e}"));
        let why = said["error"].as_str().unwrap_or_else(|| panic!("{said}"));
        assert!(why.contains("under the firewall"), "{what}: {why}");
    }
}

#[test]
fn root_in_a_guarded_container_that_has_the_control_socket_may_ask_nothing() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let sockets = format!("{}:/run/clawker", stack.bench.control().display());
    let inside = [
        "--volume",
        &sockets,
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
    ];
    let agent = stack.agent(&engine, "web", "shop", &inside);
    is_refused(&agent, "", "serve");
    // From a cgroup of its own making, too.
    let child = "assert ctypes.CDLL(None).mount(b'none', b'/sys/fs/cgroup', None, 32, None) == 0\n\
        os.mkdir('/sys/fs/cgroup/inner')\n\
        open('/sys/fs/cgroup/inner/cgroup.procs', 'w').write('0')";
    for (n, before) in ["", child].into_iter().enumerate() {
        let said = agent.exec(&format!("{ASK}{before}\nprint(order('serve', '{BYPASS}'))"));
        assert!(said.contains("under the firewall"), "{n}: {said}");
    }
    // Nor a loader that guards somebody else.
    let beside = stack.bench.beside();
    let mut other = beside.converse(
        None::<&str>,
        &[
            "--control-dir",
            &stack.bench.control().display().to_string(),
        ],
        &["sh", "-c", "echo up; read x"],
    );
    assert_eq!(other.hear(), "up");
    let run = other.instance();
    eventually("its socket", || {
        let path = stack.bench.control().join(format!("{run}.sock"));
        path.exists().then_some(())
    });
    is_refused(&agent, "", &run);
    is_denied(&agent, 9000);
    assert!(stack.audits("bypass").is_empty());
    // Root outside may, and a container that nobody guards is outside.
    let out = stack.bench.operate(&[
        "bypass", "--agent", "web", "--for", "60s", "--reason", "why",
    ]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    send(&agent, 9001, 5);
    assert_eq!(stack.flow_to(9001).attributes["verdict"], "BYPASSED");
    let stranger = engine.run("stranger", &["--volume", &sockets]);
    let said = stranger.exec(&format!("{ASK}print(order('serve', '{STATUS}'))"));
    assert!(said.contains("\"instance\":\"serve\""), "{said}");
    other.say("");
    stack.end();
}
