//! The policy: the checked form of the file. [`Policy::parse`] is the only way to make one from text.

use crate::check;
use crate::diagnostic::{Diagnostic, Reports};
use crate::document;
use crate::paths::Request;
use crate::rule::{Action, Rule};
use crate::target::Target;
use crate::yaml;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// `mode:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decide and act.
    Enforce,
    /// Let everything pass and record what would have been denied.
    Audit,
    /// Let everything pass.
    Observe,
}

/// One entry of `resolvers:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolver {
    /// What resolv.conf or the engine names.
    System,
    /// The stack's CoreDNS.
    CoreDns,
    /// This address.
    Address(IpAddr),
}

/// Rules of everybody, of a project or of an agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    /// `mode:` of an agent.
    pub(crate) mode: Option<Mode>,
    /// `rules:`, then `domains:`.
    pub(crate) rules: Vec<Rule>,
}

/// One entry of `tests:`.
#[derive(Clone, Debug)]
pub struct Case {
    /// `agent:`, without the project before its slash.
    pub agent: Option<String>,
    /// `project:`, or what stands before the slash of `agent:`.
    pub project: Option<String>,
    /// `to:` with `proto:`.
    pub target: Target,
    /// `method:` and `path:`.
    pub request: Option<Request>,
    /// `expect:`.
    pub expect: Action,
    /// `by:`, what must decide.
    pub by: Option<String>,
    /// Line in the file, from 1.
    pub line: usize,
}

/// Everything the file says, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) mode: Mode,
    pub(crate) default: Action,
    pub(crate) resolvers: Vec<Resolver>,
    pub(crate) common: Section,
    pub(crate) projects: BTreeMap<String, Section>,
    pub(crate) agents: BTreeMap<String, Section>,
    pub(crate) inbound: Action,
    pub(crate) intercept: bool,
    pub(crate) allow_builtin: Vec<IpNet>,
    pub(crate) own: Vec<IpNet>,
    pub(crate) udp_idle: Duration,
    pub(crate) tests: Vec<Case>,
}

/// What came of a source.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The policy, unless there are errors.
    pub policy: Option<Policy>,
    /// Every mistake, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Idle time of a datagram flow unless the file says otherwise.
const UDP_IDLE: Duration = Duration::from_secs(30);

impl Default for Policy {
    /// What an empty file would mean: nothing is allowed.
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            default: Action::Deny,
            resolvers: vec![Resolver::System],
            common: Section::default(),
            projects: BTreeMap::new(),
            agents: BTreeMap::new(),
            inbound: Action::Allow,
            intercept: true,
            allow_builtin: Vec::new(),
            own: Vec::new(),
            udp_idle: UDP_IDLE,
            tests: Vec::new(),
        }
    }
}

impl Policy {
    /// Reads and checks a policy file, reporting every mistake at once.
    #[must_use]
    pub fn parse(source: &str) -> Parsed {
        let mut reports = Reports::new(source);
        let policy = yaml::load(source, &mut reports).map(|root| {
            let read = document::read(&root, &mut reports);
            check::run(&read, &mut reports);
            read.policy
        });
        let policy = policy.filter(|_| !reports.has_errors());
        Parsed {
            policy,
            diagnostics: reports.finish(),
        }
    }

    /// What holds where there is no policy file: everything passes and is recorded, but for the
    /// built-in deny set.
    #[must_use]
    pub fn observe() -> Self {
        Self {
            mode: Mode::Observe,
            default: Action::Allow,
            ..Self::default()
        }
    }

    /// `mode:` of the file; an agent may have its own, see [`Policy::select`].
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// `resolvers:`.
    #[must_use]
    pub fn resolvers(&self) -> &[Resolver] {
        &self.resolvers
    }

    /// `intercept:`.
    #[must_use]
    pub fn intercept(&self) -> bool {
        self.intercept
    }

    /// Adds networks of the monitor itself to the built-in deny set, which holds in every mode and while a
    /// bypass runs. They are no part of the file: where the monitor is, whoever runs it knows.
    pub fn close(&mut self, own: &[IpNet]) {
        self.own = own.to_vec();
    }

    /// Puts everybody under one mode, whatever the file says of it and of agents.
    pub fn put_mode(&mut self, mode: Mode) {
        self.mode = mode;
        let sections = self.projects.values_mut().chain(self.agents.values_mut());
        for section in sections.chain([&mut self.common]) {
            section.mode = None;
        }
    }

    /// Networks of the built-in deny set as it is here: [`crate::BUILTIN`], and those of [`Policy::close`].
    pub fn builtin(&self) -> impl Iterator<Item = IpNet> + '_ {
        crate::builtin::set(&self.own).map(|(net, _)| net)
    }

    /// `allow_builtin:`.
    #[must_use]
    pub fn allow_builtin(&self) -> &[IpNet] {
        &self.allow_builtin
    }

    /// `tests:`.
    #[must_use]
    pub fn tests(&self) -> &[Case] {
        &self.tests
    }

    /// Keys of `projects:`.
    pub fn projects(&self) -> impl Iterator<Item = &str> {
        self.projects.keys().map(String::as_str)
    }

    /// Keys of `agents:`, `agent` or `project/agent`.
    pub fn agents(&self) -> impl Iterator<Item = &str> {
        self.agents.keys().map(String::as_str)
    }

    /// Every section: the common one, the projects', the agents'.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &Section> {
        std::iter::once(&self.common)
            .chain(self.projects.values())
            .chain(self.agents.values())
    }
}
