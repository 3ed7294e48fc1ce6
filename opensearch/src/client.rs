//! Asking OpenSearch and Dashboards, and what their answers mean. The only place that talks to the network.

use crate::answer::{CallError, causes, is_certificate, reason, unexpected};
use opensearch::{
    auth::Credentials,
    http::{
        Method, Url,
        headers::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
        transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
    },
};
use serde_json::Value;
use std::{error::Error, time::Duration};

/// A call that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the parts of a form; nothing that JSON contains.
const BOUNDARY: &str = "----clawker-provision";

/// A server, and who asks it.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    url: String,
}

/// What is sent.
enum Body<'a> {
    Json(&'a Value),
    File(&'a str),
    None,
}

impl Client {
    /// Somebody who asks the server at `url`; with a user where there is one.
    ///
    /// # Errors
    ///
    /// The address is none, or the authorities cannot be read.
    pub fn new(url: &str, user: Option<(&str, &str)>) -> Result<Self, CallError> {
        let bad = || CallError::Address {
            url: url.to_owned(),
        };
        let parsed = Url::parse(url).map_err(|_| bad())?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(bad());
        }
        // TLS has no cryptography of its own here. Whoever came first has set up the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(parsed))
            // A proxy between the parts of the stack would only see passwords.
            .disable_proxy()
            // Dashboards wants it, OpenSearch does not mind.
            .header(
                HeaderName::from_static("osd-xsrf"),
                HeaderValue::from_static("true"),
            );
        if let Some((name, password)) = user {
            builder = builder.auth(Credentials::Basic(name.to_owned(), password.to_owned()));
        }
        let transport = builder.build().map_err(|source| CallError::Client {
            url: url.to_owned(),
            source,
        })?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { transport, url })
    }

    /// Whom.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal.
    pub async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.call(Method::Get, "GET", path, Body::None).await
    }

    /// Reads what may not be there.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal for another reason than that it is not there.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, CallError> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_absent() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Puts.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.call(Method::Put, "PUT", path, Body::Json(body)).await
    }

    /// Posts.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.call(Method::Post, "POST", path, Body::Json(body))
            .await
    }

    /// Puts what is acknowledged.
    ///
    /// # Errors
    ///
    /// No answer, a refusal, or an answer that does not acknowledge it.
    pub async fn put_acknowledged(&self, path: &str, body: &Value) -> Result<(), CallError> {
        acknowledged("PUT", path, &self.put(path, body).await?)
    }

    /// Posts what is acknowledged.
    ///
    /// # Errors
    ///
    /// No answer, a refusal, or an answer that does not acknowledge it.
    pub async fn post_acknowledged(&self, path: &str, body: &Value) -> Result<(), CallError> {
        acknowledged("POST", path, &self.post(path, body).await?)
    }

    /// Creates what has no body.
    ///
    /// # Errors
    ///
    /// No answer, a refusal, or an answer that does not acknowledge it.
    pub async fn create(&self, path: &str) -> Result<(), CallError> {
        let answer = self.call(Method::Put, "PUT", path, Body::None).await?;
        acknowledged("PUT", path, &answer)
    }

    /// Posts lines of JSON as the file of a form.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal.
    pub async fn post_file(&self, path: &str, lines: &str) -> Result<Value, CallError> {
        self.call(Method::Post, "POST", path, Body::File(lines))
            .await
    }

    async fn call(
        &self,
        method: Method,
        verb: &'static str,
        path: &str,
        body: Body<'_>,
    ) -> Result<Value, CallError> {
        let no_answer = |e: &dyn Error| {
            let why = causes(e);
            CallError::NoAnswer {
                method: verb,
                url: self.url.clone(),
                path: path.to_owned(),
                passing: !is_certificate(&why),
                why,
            }
        };
        let (kind, text) = match body {
            Body::Json(json) => ("application/json".to_owned(), Some(json.to_string())),
            Body::File(lines) => (
                format!("multipart/form-data; boundary={BOUNDARY}"),
                Some(form(lines)),
            ),
            Body::None => ("application/json".to_owned(), None),
        };
        let mut headers = HeaderMap::new();
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            headers.insert(CONTENT_TYPE, kind);
        }
        let sent = self
            .transport
            .send(method, path, headers, None::<&()>, text, Some(PATIENCE));
        let answer = sent.await.map_err(|e| no_answer(&e))?;
        let status = answer.status_code().as_u16();
        let text = answer.text().await.map_err(|e| no_answer(&e))?;
        if status >= 300 {
            return Err(CallError::Refused {
                method: verb,
                path: path.to_owned(),
                status,
                why: reason(&text),
            });
        }
        // What does not answer in JSON says nothing that matters here.
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

/// That an answer says yes.
fn acknowledged(method: &'static str, path: &str, answer: &Value) -> Result<(), CallError> {
    if answer["acknowledged"] == true {
        return Ok(());
    }
    Err(unexpected(method, path, "no `acknowledged: true`", answer))
}

/// A form with one file.
fn form(lines: &str) -> String {
    format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"clawker.ndjson\"\r\n\
         Content-Type: application/ndjson\r\n\r\n{lines}\r\n--{BOUNDARY}--\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_or_https_with_a_host() {
        for bad in ["opensearch:9200", "ftp://opensearch", "", "http://"] {
            let e = Client::new(bad, None).unwrap_err();
            assert!(matches!(e, CallError::Address { .. }), "{bad}: {e}");
        }
        assert_eq!(
            Client::new("http://h:9200/", None).unwrap().url(),
            "http://h:9200"
        );
    }
}
