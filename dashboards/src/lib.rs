//! Saved objects of OpenSearch Dashboards, joined from the files of `objects/`.
