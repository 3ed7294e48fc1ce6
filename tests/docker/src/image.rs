//! The image of the tests' containers. Nothing can be pulled, so it is made of this machine's Python,
//! which agents' programs are written in, and of its static busybox, for those that must be small.

use std::process::{Command, Stdio};

/// Its name in the engine.
pub const IMAGE: &str = "agent";
/// The interpreter in it.
pub const PYTHON: &str = "/usr/bin/python3";

/// Writes the image's files to standard output as a tar archive.
const PACK: &str = include_str!("image.py");

/// Puts it into an engine.
pub(crate) fn load(mut docker: Command) {
    let mut pack = Command::new("/usr/bin/python3")
        .args(["-S", "-c", PACK])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let files = pack.stdout.take().expect("a pipe");
    let load = docker
        .args([
            "import",
            "--change",
            "CMD [\"/bin/busybox\", \"sleep\", \"1000000\"]",
            "-",
            IMAGE,
        ])
        .stdin(files)
        .output()
        .expect("docker starts");
    let error = String::from_utf8_lossy(&load.stderr);
    assert!(load.status.success(), "docker import: {error}");
    let packed = pack.wait().expect("the process is ours");
    assert!(packed.success(), "the image cannot be packed: see above");
}
