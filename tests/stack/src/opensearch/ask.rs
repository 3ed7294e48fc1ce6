//! Requests by `curl`: a client that is not the one under test.

use serde_json::Value;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body if it is JSON, or else its text.
    pub body: Value,
}

/// Who asks, and whom.
#[derive(Clone, Debug)]
pub struct Asker {
    url: String,
    ca: Option<PathBuf>,
    user: Option<(String, String)>,
    authorization: Option<String>,
}

impl Asker {
    /// Somebody without a name who asks the server of a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca: None,
            user: None,
            authorization: None,
        }
    }

    /// The same, who trusts certificates of this authority only.
    #[must_use]
    pub fn with_ca(mut self, ca: PathBuf) -> Self {
        self.ca = Some(ca);
        self
    }

    /// The same with a name.
    #[must_use]
    pub fn as_user(&self, name: &str, password: &str) -> Self {
        let mut other = self.clone();
        other.user = Some((name.to_owned(), password.to_owned()));
        other
    }

    /// The same with the name that a header gives; without one, nobody.
    #[must_use]
    pub fn with_authorization(&self, header: Option<&str>) -> Self {
        let mut other = self.clone();
        other.user = None;
        other.authorization = header.map(str::to_owned);
        other
    }

    /// Whom.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority that is trusted.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Asks; an error is that there is no answer.
    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let body = body.map(Value::to_string);
        self.send(
            method,
            path,
            "application/json",
            body.as_deref().unwrap_or_default(),
        )
    }

    /// Asks, and there must be an answer.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_ask(method, path, body)
            .unwrap_or_else(|e| panic!("{method} {}{path}: {e}", self.url))
    }

    /// Asks, and the answer must be good; its body.
    #[track_caller]
    pub fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let Answer { status, body } = self.ask(method, path, body);
        assert!(status < 300, "{method} {path}: {status} {body}");
        body
    }

    /// Writes documents into an index or data stream in one bulk of `create`; the answer's items.
    #[track_caller]
    pub fn create(&self, index: &str, documents: &[Value]) -> Vec<Value> {
        let lines: String = documents
            .iter()
            .map(|d| format!("{{\"create\":{{}}}}\n{d}\n"))
            .collect();
        let answer = self
            .send(
                "POST",
                &format!("/{index}/_bulk"),
                "application/x-ndjson",
                &lines,
            )
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let items = answer.body["items"].as_array().expect("items");
        items.iter().map(|i| i["create"].clone()).collect()
    }

    /// Sends a body of any type, as it is.
    pub fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<Answer, String> {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "60",
        ]);
        curl.args(["--write-out", "\n%{http_code}", "--request", method]);
        curl.args(["--header", &format!("Content-Type: {kind}")]);
        // Dashboards asks for it, OpenSearch does not mind.
        curl.args(["--header", "osd-xsrf: true"]);
        if let Some(ca) = &self.ca {
            curl.arg("--cacert").arg(ca);
        }
        if let Some((name, password)) = &self.user {
            curl.args(["--user", &format!("{name}:{password}")]);
        }
        if let Some(header) = &self.authorization {
            curl.args(["--header", &format!("Authorization: {header}")]);
        }
        if !body.is_empty() {
            curl.args(["--data-binary", "@-"]);
        }
        curl.arg(format!("{}{path}", self.url));
        curl.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = curl.spawn().expect("curl is installed");
        let mut stdin = child.stdin.take().expect("it is piped");
        // Who does not read it says so in its answer.
        let _ = stdin.write_all(body.as_bytes());
        drop(stdin);
        let out = child.wait_with_output().expect("it is our child");
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&out.stdout);
        let (text, status) = text.rsplit_once('\n').expect("--write-out");
        Ok(Answer {
            status: status.parse().expect("a status"),
            body: serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        })
    }
}
