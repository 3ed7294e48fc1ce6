//! Arguments for sending records to an OTLP receiver.

use clap::Args;
use std::path::PathBuf;

/// Where records go as OTLP, and how.
#[derive(Clone, Debug, Args)]
pub struct OtlpArgs {
    /// Also send every record to this OpenTelemetry receiver
    ///
    /// http://HOST:PORT or https://HOST:PORT: OTLP over gRPC. The same with /v1/logs: OTLP over HTTP.
    /// unix:///PATH: OTLP over gRPC on a unix socket. The command does not wait for it; records that are
    /// not known to have arrived at the end are counted, and the exit code is 1. The run's own metrics and
    /// warnings go there too, as far as it takes them.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// Header of every request, several times if need be
    ///
    /// K=@FILE takes the value from a file. A value on the command line can be read by every process of
    /// this machine, the command included.
    #[arg(long, value_name = "K=V", requires = "otlp")]
    pub otlp_header: Vec<String>,
    /// Authorities to check the receiver's certificate with, PEM (default: this machine's)
    #[arg(long, value_name = "FILE", requires = "otlp")]
    pub otlp_ca: Option<PathBuf>,
    /// Certificate to show to the receiver, PEM, with its chain
    #[arg(long, value_name = "FILE", requires_all = ["otlp", "otlp_key"])]
    pub otlp_cert: Option<PathBuf>,
    /// Key of --otlp-cert, PEM
    #[arg(long, value_name = "FILE", requires_all = ["otlp", "otlp_cert"])]
    pub otlp_key: Option<PathBuf>,
}
