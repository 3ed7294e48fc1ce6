//! Images under the names and tags of compose.yaml, made here: nothing can be pulled. Each holds the real
//! program, with the libraries of this machine, at the place where the published image has it.
//!
//! What differs from the published ones: `opensearch` is 3.4.0, the newest version whose security plugin can
//! be had, and what no plugin answers there (ISM, data sources) answers `standin.py` before it;
//! `opensearch-dashboards` is `standin.py` alone. It says of itself what it models.

use docker_tests::engine::Engine;
use kernel_tests::cached;
use serde_json::{Value, json};
use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Writes an image's files as a tar archive.
const PACK: &str = include_str!("images.py");
/// Writes the interpreter's.
const PYTHON: &str = include_str!("../../docker/src/image.py");
/// Answers for what cannot be had.
const STANDIN: &str = include_str!("standin.py");
/// Version of the project's own images.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Of OpenSearch and of Dashboards in their images.
const NODE: u32 = 1000;
/// Of the bridge in its image.
const BRIDGE: u32 = 64320;
/// Of CoreDNS in its image.
const COREDNS: u32 = 65532;

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the repository")
}

/// Makes all images of compose.yaml in an engine.
pub fn load(engine: &Engine) {
    let images = [ours(), stock(), proxies(), opensearch(), dashboards()];
    // Two at once: packing is work for one core, taking in for another.
    let mut imports = Vec::new();
    for image in images.into_iter().flatten() {
        let import = image.import(engine);
        imports.push((image.tag, import));
    }
    for (tag, import) in imports {
        let out = import.wait_with_output().expect("docker ends");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "docker import {tag}: {error}");
    }
}

/// What an image is made of.
struct Image {
    tag: String,
    changes: Vec<String>,
    files: Vec<Value>,
}

impl Image {
    fn new(tag: &str, changes: &[&str], files: Vec<Value>) -> Self {
        Self {
            tag: tag.to_owned(),
            changes: changes.iter().map(|&c| c.to_owned()).collect(),
            files,
        }
    }

    fn import(&self, engine: &Engine) -> std::process::Child {
        let mut pack = Command::new("/usr/bin/python3")
            .args(["-S", "-c", PACK])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let list = Value::from(self.files.clone()).to_string();
        let mut stdin = pack.stdin.take().expect("a pipe");
        stdin.write_all(list.as_bytes()).expect("it reads all");
        drop(stdin);
        let archive = pack.stdout.take().expect("a pipe");
        let mut docker = engine.command();
        docker.arg("import");
        for change in &self.changes {
            docker.args(["--change", change]);
        }
        docker.args(["-", &self.tag]).stdin(archive);
        let docker = docker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let packed = pack.wait().expect("the process is ours");
        assert!(packed.success(), "{}: cannot be packed", self.tag);
        docker.expect("docker starts")
    }
}

/// The repository's programs, as its Dockerfiles lay them out.
fn ours() -> Vec<Image> {
    let program = |name: &str| {
        let built = kernel_tests::run::built(name, "--bins");
        json!({"path": format!("/usr/bin/{name}"), "file": built, "strip": true})
    };
    let rootfs = json!({"path": "/", "tree": repository().join("packaging/rootfs")});
    let tag = |name: &str| format!("clawker/{name}:{VERSION}");
    let entry = |name: &str| format!(r#"ENTRYPOINT ["/usr/bin/{name}"]"#);
    let own = |path: &str| json!({"path": path, "directory": true, "owner": BRIDGE});
    vec![
        Image::new(
            &tag("ebpf-manager"),
            &[&entry("ebpf-manager"), r#"CMD ["serve"]"#],
            vec![rootfs.clone(), program("ebpf-manager")],
        ),
        Image::new(
            &tag("otlp-bridge"),
            &[
                &entry("otlp-bridge"),
                r#"CMD ["serve"]"#,
                &format!("USER {BRIDGE}:{BRIDGE}"),
            ],
            vec![
                rootfs.clone(),
                program("otlp-bridge"),
                own("/var/lib/clawker/spool"),
                own("/run/clawker/bridge"),
            ],
        ),
        Image::new(
            &tag("provision"),
            &[&entry("provision"), "USER 65534:65534"],
            vec![rootfs, program("provision")],
        ),
    ]
}

/// Programs that are the published ones, or built from their sources.
fn stock() -> Vec<Image> {
    let mut busybox = vec![json!({"path": "/bin/busybox", "file": "/bin/busybox"})];
    for name in [
        "sh", "cat", "date", "nc", "nslookup", "printf", "sleep", "tftp", "timeout", "touch",
        "wget",
    ] {
        busybox.push(json!({"path": format!("/bin/{name}"), "link": "busybox"}));
    }
    busybox.push(json!({"path": "/tmp", "directory": true, "mode": 0o1777}));
    let mut prometheus = busybox.clone();
    let server = cached("bin/prometheus", "prometheus.sh");
    prometheus.push(json!({"path": "/bin/prometheus", "file": server}));
    prometheus.push(json!({"path": "/prometheus", "directory": true, "owner": 65534}));
    let collector = cached("bin/otelcol", "collector.sh");
    vec![
        Image::new("busybox:1.37.0", &[r#"CMD ["sh"]"#], busybox),
        Image::new(
            "prom/prometheus:v3.12.0",
            &[
                r#"ENTRYPOINT ["/bin/prometheus"]"#,
                "USER 65534",
                "WORKDIR /prometheus",
            ],
            prometheus,
        ),
        Image::new(
            "otel/opentelemetry-collector-contrib:0.155.0",
            &[r#"ENTRYPOINT ["/otelcol-contrib"]"#, "USER 10001"],
            vec![json!({"path": "/otelcol-contrib", "file": collector})],
        ),
    ]
}

/// Envoy and CoreDNS, the latter with what Debian has beside it in the shipped image.
fn proxies() -> Vec<Image> {
    let certificates = "/etc/ssl/certs/ca-certificates.crt";
    let envoy = vec![
        json!({"path": "/usr/local/bin/envoy", "file": cached("bin/envoy", "envoy.sh")}),
        json!({"path": "/bin/bash", "file": "/bin/bash"}),
        json!({"path": certificates, "file": certificates}),
    ];
    let script = repository().join("packaging/coredns.sh");
    let mut coredns = vec![
        json!({"path": "/coredns", "file": cached("bin/coredns", "coredns.sh")}),
        json!({"path": "/usr/bin/svlogd", "file": cached("bin/svlogd", "coredns.sh")}),
        json!({"path": "/usr/bin/coredns-kept", "file": script}),
        json!({"path": "/tmp", "directory": true, "mode": 0o1777}),
        json!({"path": "/var/log/clawker/coredns", "directory": true, "owner": COREDNS}),
    ];
    for name in [
        "busybox", "grep", "mkfifo", "mv", "rm", "sed", "sh", "sleep",
    ] {
        let path = format!("/bin/{name}");
        coredns.push(json!({"path": path, "file": path}));
    }
    vec![
        Image::new("envoyproxy/envoy:v1.40.0", &[r#"CMD ["envoy"]"#], envoy),
        Image::new(
            &format!("clawker/coredns:{VERSION}"),
            &[
                r#"ENTRYPOINT ["/usr/bin/coredns-kept"]"#,
                &format!("USER {COREDNS}:{COREDNS}"),
            ],
            coredns,
        ),
    ]
}

/// What health checks and scripts of both want of their images.
fn tools() -> Vec<Value> {
    let bash = json!({"path": "/bin/bash", "file": "/bin/bash"});
    let curl = json!({"path": "/usr/bin/curl", "file": "/usr/bin/curl"});
    let mut tools = vec![json!({"python": PYTHON}), bash, curl];
    for name in ["dirname", "grep", "realpath", "which"] {
        tools.push(json!({"path": format!("/bin/{name}"), "link": "busybox"}));
    }
    tools.push(json!({"path": "/standin.py", "text": STANDIN}));
    tools
}

fn opensearch() -> Vec<Image> {
    const HOME: &str = "/usr/share/opensearch";
    let laid_out = cached("opensearch-3.4.0", "opensearch.sh");
    let jdk = cached("jdk", "opensearch.sh");
    let at = |path: &str| format!("{HOME}/{path}");
    let mut files = tools();
    files.extend([
        json!({"path": HOME, "tree": laid_out, "owner": NODE}),
        json!({"path": at("jdk"), "tree": jdk, "without": ["jmods", "src.zip", "man", "legal"]}),
        json!({"path": at("config/log4j2.properties"), "text": LOG, "owner": NODE}),
    ]);
    for name in [
        "config",
        "config/opensearch-security",
        "data",
        "logs",
        "tmp",
    ] {
        files.push(json!({"path": at(name), "directory": true, "owner": NODE}));
    }
    vec![Image::new(
        "opensearchproject/opensearch:3.8.0",
        &[
            r#"ENTRYPOINT ["/usr/bin/python3", "-u", "/standin.py", "opensearch"]"#,
            &format!("WORKDIR {HOME}"),
            &format!("ENV JAVA_HOME={HOME}/jdk"),
            &format!("USER {NODE}"),
        ],
        files,
    )]
}

fn dashboards() -> Vec<Image> {
    const HOME: &str = "/usr/share/opensearch-dashboards";
    let mut files = tools();
    for name in ["config", "data"] {
        let path = format!("{HOME}/{name}");
        files.push(json!({"path": path, "directory": true, "owner": NODE}));
    }
    vec![Image::new(
        "opensearchproject/opensearch-dashboards:3.8.0",
        &[
            r#"ENTRYPOINT ["/usr/bin/python3", "-u", "/standin.py", "dashboards"]"#,
            &format!("WORKDIR {HOME}"),
            &format!("USER {NODE}"),
        ],
        files,
    )]
}

/// Everything on the console, as in the published image.
const LOG: &str = "status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
";
