//! Finds in saved objects what Dashboards would refuse, or what would leave a panel empty or outside of the
//! global filters: there is no Dashboards at hand to ask.
//!
//! [`objects`] looks at the objects alone. [`mappings`] compares the fields with the mapping of a
//! live index. Whether a query finds something is not seen here; the stack tier asks each one.

mod fields;
mod filters;
mod layout;
mod references;
mod shape;
mod visual;

use crate::Object;
pub use fields::mappings;
use thiserror::Error;

/// Something that is wrong with an object. `of` is its type and id.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// Another object has the same type and id.
    #[error("{of}: there are two of it")]
    Twice {
        /// Which.
        of: String,
    },
    /// A type that Dashboards does not know, or that is not expected here.
    #[error("{of}: unknown type")]
    Kind {
        /// Which.
        of: String,
    },
    /// The saved object's mapping is strict: an attribute that it does not know is refused.
    #[error("{of}: `{attribute}` is no attribute of this type")]
    Attribute {
        /// Which.
        of: String,
        /// The attribute.
        attribute: String,
    },
    /// An attribute that it cannot be without, or not of the form that Dashboards reads.
    #[error("{of}: `{attribute}` is missing or not what Dashboards expects")]
    Form {
        /// Which.
        of: String,
        /// The attribute, or the part of it.
        attribute: String,
    },
    /// A name of a reference that is used and not given, or given and not used.
    #[error("{of}: the reference `{name}` is {what}")]
    Reference {
        /// Which.
        of: String,
        /// The reference.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A field that records do not have, or that cannot be used like this.
    #[error("{of}: the field `{field}` {what}")]
    Field {
        /// Which.
        of: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An aggregation that cannot be computed or drawn.
    #[error("{of}: aggregation `{id}` {what}")]
    Aggregation {
        /// Which.
        of: String,
        /// Its id.
        id: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Panels of a dashboard that lie over each other or outside of the grid.
    #[error("{of}: panel {panel} {what}")]
    Grid {
        /// Which.
        of: String,
        /// The panel's index.
        panel: String,
        /// What is wrong with it.
        what: String,
    },
    /// A panel that the two global filters do not reach.
    #[error("{of}: {what}")]
    Filter {
        /// Which.
        of: String,
        /// What is wrong.
        what: &'static str,
    },
    /// No dashboard shows it.
    #[error("{of}: no dashboard shows it")]
    Orphan {
        /// Which.
        of: String,
    },
}

/// Everything that is wrong with these objects.
#[must_use]
pub fn objects(all: &[Object]) -> Vec<Fault> {
    let mut faults = shape::twice(all);
    faults.extend(all.iter().flat_map(|object| one(object, all)));
    faults.extend(layout::orphans(all));
    faults
}

/// What is wrong with one of them.
fn one(object: &Object, all: &[Object]) -> Vec<Fault> {
    let mut faults = shape::faults(object);
    faults.extend(references::faults(object, all));
    faults.extend(fields::faults(object));
    faults.extend(visual::faults(object));
    faults.extend(layout::faults(object));
    faults.extend(filters::faults(object, all));
    faults
}

#[cfg(test)]
mod tests;
