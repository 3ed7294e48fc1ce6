//! One file a command; here, what they share.

mod bypass;
mod ca;
mod detach;
mod doctor;
mod dump;
mod follow;
mod man;
mod metrics;
mod otlp;
mod pace;
mod policy;
mod progress;
mod run;
mod serve;
mod version;
mod watch;

pub use bypass::OperateError;
pub use policy::{AskError, RenderError};
pub use run::LearningError;

use crate::{
    bypass::BypassError,
    ca::CaError,
    cgroup::{Cgroup, CgroupError},
    cli::{Cli, Command, Mode},
    contain::StartError,
    control::ControlError,
    docker::WatchError,
    enrol::Leads,
    fleet::FleetError,
    instance::{Found, InstanceError, Root},
    kernel::KernelError,
    machine::{self, FLOOR},
    policy_file::PolicyFileError,
    render::line::printable,
    resolvers::{self, Place, ResolverError},
    seen::RecordsError,
    sink::SinkError,
    user::UserError,
};
use ::policy::{CompileError, Compiled, LearnError, Policy, Selected};
use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use bypass::Places;
pub use run::ReloadError;
use std::{io::IsTerminal as _, net::IpAddr, path::PathBuf};
use wire::EndpointError;

/// Something failed.
pub const FAILED: u8 = 1;
/// The user made a mistake.
pub const WRONG_USE: u8 = 2;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not root.
    #[error("{0} needs root: run it with sudo")]
    NotRoot(&'static str),
    /// See [`KernelError`].
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// See [`InstanceError`].
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// See [`CgroupError`].
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// See [`StartError`].
    #[error(transparent)]
    Start(#[from] StartError),
    /// See [`PolicyFileError`].
    #[error(transparent)]
    PolicyFile(#[from] PolicyFileError),
    /// See [`CompileError`].
    #[error("policy {file}: {source}")]
    Compile {
        /// Name of the file.
        file: String,
        /// What does not fit.
        source: CompileError,
    },
    /// Rules that only the proxy can hold.
    #[error(
        "policy {file} has path rules, which need a proxy: {rules}; remove `path_rules` there, or name the proxy with --proxy"
    )]
    NeedsProxy {
        /// Name of the file.
        file: String,
        /// Names and lines.
        rules: String,
    },
    /// See [`AskError`].
    #[error(transparent)]
    Ask(#[from] AskError),
    /// See [`RenderError`].
    #[error(transparent)]
    Render(#[from] RenderError),
    /// See [`CaError`].
    #[error(transparent)]
    Ca(#[from] CaError),
    /// See [`RecordsError`].
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// See [`LearnError`].
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// See [`LearningError`].
    #[error(transparent)]
    Learning(#[from] LearningError),
    /// See [`ResolverError`].
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// See [`SinkError`].
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// See [`UserError`].
    #[error(transparent)]
    User(#[from] UserError),
    /// `policy apply` where there is more than the kernel to put under it.
    #[error(
        "{0} is under the file that it follows, and so are its proxies: change that file, which holds at once (`docs/serve.md`)"
    )]
    Followed(String),
    /// A changed policy file that is left aside.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// See [`ControlError`].
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Sockets that may not be opened.
    #[error(
        "cannot open the control socket of {0}: permission denied; run this as root (sudo), or as a member of the instance's control group"
    )]
    NotAMember(String),
    /// The terminal resists.
    #[error("cannot use the terminal: {0}")]
    Terminal(std::io::Error),
    /// See [`EndpointError`].
    #[error("--otlp: {0}")]
    Otlp(#[from] EndpointError),
    /// A header that is no pair.
    #[error("--otlp-header: write NAME=VALUE, or NAME=@FILE to take the value from a file")]
    OtlpHeader,
    /// A file with a header's value.
    #[error("--otlp-header {name}: cannot read {}: {source}", path.display())]
    OtlpHeaderFile {
        /// Name of the header.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A capability that does not exist or is not withheld.
    #[error("--cap-add {given}: not one of the withheld capabilities ({withheld})")]
    Capability {
        /// As typed.
        given: String,
        /// What could be given back.
        withheld: String,
    },
    /// A ring of an impossible size.
    #[error("--ring-kib {0}: must be a power of two from 4 to 1048576")]
    RingSize(u32),
    /// Not the kernel for this.
    #[error(
        "this kernel is {found}, and {}.{} or newer is needed: boot a newer one",
        FLOOR.0,
        FLOOR.1
    )]
    OldKernel {
        /// As it calls itself.
        found: String,
    },
    /// A wait failed.
    #[error("cannot wait for the command or a signal: {0}")]
    Wait(nix::Error),
    /// See [`BypassError`].
    #[error(transparent)]
    Bypass(#[from] BypassError),
    /// See [`OperateError`].
    #[error(transparent)]
    Operate(#[from] OperateError),
    /// Somebody who was meant too.
    #[error("{}", printable(.0))]
    Unchanged(String),
    /// See [`FleetError`].
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// See [`WatchError`].
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Standard output is gone or full.
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
    /// Man pages cannot be written.
    #[error("cannot write man pages to {}: {source}; the directory must exist", dir.display())]
    Pages {
        /// Where to.
        dir: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// An instance that is still in use.
    #[error("{id} is still in use: {why}; --force detaches it all the same")]
    InUse {
        /// Name of the instance.
        id: String,
        /// By whom.
        why: String,
    },
}

/// Mistakes of the user are told from failures by their exit code.
#[must_use]
pub fn exit_code(e: &CommandError) -> u8 {
    match e {
        CommandError::PolicyFile(_)
        | CommandError::Compile { .. }
        | CommandError::NeedsProxy { .. }
        | CommandError::Ask(_)
        | CommandError::Records(_)
        | CommandError::Operate(OperateError::Nobody { .. })
        | CommandError::Resolver(ResolverError::CoreDns)
        | CommandError::User(UserError::Unknown(_) | UserError::Name(_))
        | CommandError::Control(ControlError::NoGroup(_))
        | CommandError::Capability { .. }
        | CommandError::RingSize(_)
        | CommandError::Reload(_)
        | CommandError::Otlp(_)
        | CommandError::OtlpHeader
        | CommandError::OtlpHeaderFile { .. }
        | CommandError::Start(StartError::Exec { .. } | StartError::Argument(_))
        | CommandError::Kernel(KernelError::TooBig { .. })
        | CommandError::Instance(InstanceError::Unknown { .. } | InstanceError::NotBpffs(_)) => {
            WRONG_USE
        }
        CommandError::Render(e) if e.wrong_use() => WRONG_USE,
        CommandError::Learning(e) if e.wrong_use() => WRONG_USE,
        _ => FAILED,
    }
}

/// What failed, as it is shown, with the end of its last line. Policy mistakes bring their own layout.
fn error_text(e: &CommandError) -> String {
    const RED: Style = AnsiColor::Red.on_default().bold();
    if let CommandError::PolicyFile(PolicyFileError::Mistakes { .. }) = e {
        format!("{e}\n")
    } else {
        format!("{RED}error{RED:#}: {e}\n")
    }
}

/// Says what failed.
pub fn report(e: &CommandError) {
    anstream::eprint!("{}", error_text(e));
}

/// Warns in one line.
fn warn(text: &str) {
    const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
    eprintln!("{YELLOW}warning{YELLOW:#}: {text}");
}

/// Warns in one line, and tells those who look after the machine.
fn alarm(text: &str) {
    tracing::warn!(target: wire::log_layer::SECURITY, "{text}");
    warn(text);
}

/// Runs what was typed.
pub fn execute(cli: Cli) -> Result<u8, CommandError> {
    let root = Root::new(&cli.pin_root);
    let places = Places {
        root: &root,
        control_dir: &cli.control_dir,
    };
    match cli.command {
        Command::Run(args) => run::run(&root, &cli.control_dir, &args),
        Command::Serve(args) => serve::serve(&root, &cli.control_dir, &args),
        Command::Watch(args) => watch::watch(&cli.control_dir, &args),
        Command::Dump(args) => dump::dump(&root, &args),
        Command::Bypass(args) => bypass::bypass(places, &args),
        Command::Enforce(args) => bypass::enforce(places, &args),
        Command::Detach(args) => detach::detach(&root, &cli.control_dir, &args),
        Command::Doctor(args) => doctor::doctor(&root, &args),
        Command::Version { json } => version::version(json),
        Command::Policy(command) => policy::policy(&root, command),
        Command::Ca(command) => ca::ca(command),
        Command::Man { dir } => man::man(dir.as_deref()),
        Command::Completions { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "ebpf-manager", &mut std::io::stdout());
            Ok(0)
        }
    }
}

/// Undoes what the standard library does to SIGPIPE before `main`.
pub fn default_sigpipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default action runs no code of ours. It cannot fail for this signal.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

fn kernel_is_new_enough() -> Result<(), CommandError> {
    let found = machine::release();
    if machine::new_enough(&found) {
        Ok(())
    } else {
        Err(CommandError::OldKernel { found })
    }
}

/// Bytes of a ring of so many KiB.
fn ring_bytes(kib: u32) -> Result<u32, CommandError> {
    if !kib.is_power_of_two() || !(4..=1 << 20).contains(&kib) {
        return Err(CommandError::RingSize(kib));
    }
    Ok(kib.saturating_mul(1024))
}

fn need_root(what: &'static str) -> Result<(), CommandError> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(CommandError::NotRoot(what))
    }
}

/// Colours only where somebody looks, and not where they are not wanted.
fn color_on_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Compiles a selection. Where there is no proxy, rules that need it are refused.
pub(crate) fn compile(
    file: &str,
    selected: &Selected<'_>,
    id: u32,
    mode: Option<Mode>,
    proxy: bool,
) -> Result<Compiled, CommandError> {
    let paths: Vec<String> = selected
        .rules_with_paths()
        .map(|r| format!("{:?} (line {})", r.title(), r.line))
        .collect();
    if !paths.is_empty() && !proxy {
        return Err(CommandError::NeedsProxy {
            file: file.to_owned(),
            rules: paths.join(", "),
        });
    }
    let compiled = if proxy {
        selected.compile_with_proxy(id)
    } else {
        selected.compile(id)
    };
    let mut compiled = compiled.map_err(|source| CommandError::Compile {
        file: file.to_owned(),
        source,
    })?;
    match mode {
        Some(Mode::Enforce) => compiled.mode = abi::MODE_ENFORCE,
        Some(Mode::Audit) => compiled.mode = abi::MODE_AUDIT,
        Some(Mode::Observe) => compiled.mode = abi::MODE_OBSERVE,
        None => {}
    }
    Ok(compiled)
}

/// An agent and a project, by their labels.
type Who<'a> = (Option<&'a str>, Option<&'a str>);

/// What a policy comes to for an agent: compiled under an id, with the addresses of its resolvers.
fn rules(
    file: &str,
    policy: &Policy,
    (agent, project): Who<'_>,
    (id, place): (u32, Place),
    mode: Option<Mode>,
    leads: Leads,
) -> Result<(Compiled, Vec<IpAddr>), CommandError> {
    let selected = policy.select(agent, project);
    let compiled = compile(file, &selected, id, mode, leads.proxy)?;
    let resolvers = resolvers::resolve(&compiled.resolvers, place, leads.names)?;
    Ok((compiled, resolvers))
}

/// Why an instance should not be touched; nothing when it is over.
fn in_use(found: &Found) -> Option<String> {
    if found.alive {
        return Some("its loader is running".to_owned());
    }
    let populated = |c: &Cgroup| c.populated().unwrap_or(true);
    let busy = found.cgroups().ok()?.into_iter().find(populated)?;
    Some(format!("processes live in {}", busy.path().display()))
}
