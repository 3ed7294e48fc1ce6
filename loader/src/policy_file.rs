//! The policy file on disk: read, checked, and told about.

use policy::{Diagnostic, Policy, Severity};
use std::{fs, io, path::Path};

/// Why a policy file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It cannot be read.
    #[error("cannot read policy {path}: {source}")]
    Read {
        /// Name of the file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It has mistakes; all of them, rendered.
    #[error("{report}{summary}")]
    Mistakes {
        /// The mistakes with their places.
        report: String,
        /// How many.
        summary: String,
    },
}

/// A policy file that can be used.
#[derive(Debug)]
pub struct PolicyFile {
    /// Name as given.
    pub name: String,
    /// Its text.
    pub source: String,
    /// Its meaning.
    pub policy: Policy,
    /// Warnings; there are no errors.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a policy file. `color`: the report is for a terminal.
pub fn load(path: &Path, color: bool) -> Result<PolicyFile, PolicyFileError> {
    let name = path.display().to_string();
    let source = fs::read_to_string(path).map_err(|source| PolicyFileError::Read {
        path: name.clone(),
        source,
    })?;
    let parsed = Policy::parse(&source);
    match parsed.policy {
        Some(policy) => Ok(PolicyFile {
            name,
            source,
            policy,
            warnings: parsed.diagnostics,
        }),
        None => Err(PolicyFileError::Mistakes {
            report: policy::render(&parsed.diagnostics, &name, &source, color),
            summary: policy::summary(&parsed.diagnostics),
        }),
    }
}

impl PolicyFile {
    /// The warnings as text, empty when there are none.
    #[must_use]
    pub fn report(&self, color: bool) -> String {
        if self.warnings.is_empty() {
            return String::new();
        }
        policy::render(&self.warnings, &self.name, &self.source, color)
    }

    /// Whether anything is worth a warning.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.warnings
            .iter()
            .any(|d| d.severity == Severity::Warning)
    }
}
