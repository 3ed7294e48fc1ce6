//! A tour of the firewall in a few seconds, without a network: in a network namespace of its own, servers
//! on loopback addresses stand for the world, `ebpf-manager run` stands around a client that tries one
//! thing after the other.
//!
//! `tour MANAGER` serves and starts the manager with `tour client` as its command.

use nix::sched::{CloneFlags, unshare};
use std::{
    env,
    error::Error,
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

/// Loopback addresses are plenty, and under `run` they are destinations like any other.
const RESOLVER: &str = "127.0.0.153:53";
const NAMED: &str = "127.0.0.200:8443";
const DIRECT: &str = "127.0.0.201:8080";
const ECHO: &str = "127.0.0.202:9000";
const NOBODY: &str = "127.0.0.203:8080";
const STRANGER: &str = "127.0.0.204:8080";

const POLICY: &str = r#"version: 1
default: deny
resolvers: [127.0.0.153]
rules:
  - { name: by address, dst: 127.0.0.201, proto: tcp, port: 8080 }
  - { name: by name, dst: tour.example, proto: tcp, port: 8443, private: true }
  - { name: echo, dst: 127.0.0.202, proto: udp, port: 9000 }
  - { name: nobody listens, dst: 127.0.0.203, proto: tcp, port: 8080 }
"#;

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let result = match args.next() {
        Some(role) if role == "client" => client(),
        Some(manager) => guide(&manager),
        None => Err("usage: tour MANAGER".into()),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: the tour cannot go on: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the world and starts the manager.
fn guide(manager: &str) -> Result<ExitCode, Box<dyn Error>> {
    isolate().map_err(|e| format!("no network namespace of its own: {e} (it needs root)"))?;
    for address in [NAMED, DIRECT] {
        let listener = TcpListener::bind(address)?;
        thread::spawn(move || serve(&listener));
    }
    let echo = UdpSocket::bind(ECHO)?;
    thread::spawn(move || answer(&echo, <[u8]>::to_vec));
    let resolver = UdpSocket::bind(RESOLVER)?;
    thread::spawn(move || answer(&resolver, resolve));
    let policy: PathBuf = env::temp_dir().join(format!("clawker-tour-{}.yaml", std::process::id()));
    fs::write(&policy, POLICY)?;
    println!(
        "The policy of this tour:\n\n{POLICY}\nA client tries one thing after the other under it:\n"
    );
    let status = Command::new(manager)
        .args(["run", "--user", "root", "--policy"])
        .arg(&policy)
        .arg("--")
        .arg(env::current_exe()?)
        .arg("client")
        .status();
    fs::remove_file(&policy)?;
    Ok(ExitCode::from(
        u8::try_from(status?.code().unwrap_or(1)).unwrap_or(1),
    ))
}

/// Moves into a fresh network namespace, where every port is free and ICMP sockets are the firewall's
/// business alone, not the kernel's.
fn isolate() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut lo: libc::ifreq = unsafe { std::mem::zeroed() };
    lo.ifr_name[0] = b'l' as libc::c_char;
    lo.ifr_name[1] = b'o' as libc::c_char;
    lo.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the argument is an `ifreq` with a name and flags, as this request wants it.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const lo) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Answers every connection with what it sent, once.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            let mut stream = stream;
            let mut buf = [0; 1024];
            // A client that goes away early is part of the tour.
            if let Ok(n) = stream.read(&mut buf) {
                let _ = stream.write_all(&buf[..n]);
            }
        });
    }
}

/// Answers every datagram.
fn answer(socket: &UdpSocket, reply: impl Fn(&[u8]) -> Vec<u8>) {
    let mut buf = [0; 512];
    while let Ok((n, from)) = socket.recv_from(&mut buf) {
        // Loopback loses nothing that matters here.
        let _ = socket.send_to(&reply(&buf[..n]), from);
    }
}

/// Answers any question for an IPv4 address with that of the named server.
fn resolve(query: &[u8]) -> Vec<u8> {
    let mut m = query.to_vec();
    if m.len() > 12 {
        m[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        m.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 200]);
    }
    m
}

/// A question for the IPv4 address of a name.
fn question(name: &str) -> Vec<u8> {
    let mut m = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        m.push(label.len() as u8);
        m.extend_from_slice(label.as_bytes());
    }
    m.extend([0, 0, 1, 0, 1]);
    m
}

fn client() -> Result<ExitCode, Box<dyn Error>> {
    step("a TCP connection to an address that a rule allows", || {
        talk(DIRECT)
    });
    step("a TCP connection to an address that no rule names", || {
        talk(STRANGER)
    });
    step("a UDP datagram to an address that a rule allows", || {
        datagram(ECHO, b"hello")
    });
    step(
        "the allowed address behind a name, before the name was asked",
        || talk(NAMED),
    );
    step("the name itself", || {
        datagram(RESOLVER, &question("tour.example"))
    });
    step("the same address again, now that its name is known", || {
        talk(NAMED)
    });
    step("a name that no rule could allow", || {
        datagram(RESOLVER, &question("secrets.exfil.example"))
    });
    step("a connection that nobody accepts", || talk(NOBODY));
    step("an ICMP echo request", ping);
    Ok(ExitCode::SUCCESS)
}

/// Says what is tried and what came of it.
fn step(what: &str, attempt: impl FnOnce() -> Result<String, Box<dyn Error>>) {
    match attempt() {
        Ok(done) => println!("  {what}: {done}"),
        Err(e) => println!("  {what}: {e}"),
    }
}

fn talk(address: &str) -> Result<String, Box<dyn Error>> {
    let to: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.write_all(&[b'x'; 700])?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(format!("{} bytes came back", back.len()))
}

/// Makes an ICMP socket, as `ping` does.
fn ping() -> Result<String, Box<dyn Error>> {
    // SAFETY: takes three numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP) };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the kernel made this descriptor for us.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok("got a socket for it".to_owned())
}

fn datagram(address: &str, payload: &[u8]) -> Result<String, Box<dyn Error>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send_to(payload, address)?;
    let mut buf = [0; 512];
    let n = socket.recv(&mut buf)?;
    Ok(format!("{n} bytes came back"))
}
