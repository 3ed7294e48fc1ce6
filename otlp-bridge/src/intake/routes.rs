//! Which path is for what, on each of the two sockets.

use super::{
    Status,
    door::Door,
    speech::{Signal, Speech, is_grpc, plain},
};
use crate::{incoming::Keeper, status};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use wire::{flow_id::is_boot, held};

const GRPC_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const GRPC_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What both sockets have.
fn common<K: Keeper>(door: Arc<Door<K>>) -> Router {
    Router::new()
        .route(GRPC_LOGS, post(grpc_logs))
        .route(GRPC_METRICS, post(grpc_metrics))
        .with_state(door)
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(nothing)
}

/// The socket of the loader.
pub(super) fn loader<K: Keeper>(door: Arc<Door<K>>, status: Status) -> Router {
    let asked = Router::new()
        .route(held::PATH, get(what_is_held))
        .route(status::PATH, get(what_is_up))
        .with_state((Arc::clone(&door), status));
    common(door).merge(asked)
}

/// The sockets of the collector.
pub(super) fn collector<K: Keeper>(door: Arc<Door<K>>) -> Router {
    let http = Router::new()
        .route("/v1/logs", post(http_logs))
        .route("/v1/metrics", post(http_metrics))
        .with_state(Arc::clone(&door));
    common(door).merge(http)
}

async fn grpc_logs<K: Keeper>(State(door): State<Arc<Door<K>>>, request: Request) -> Response {
    grpc(&door, Signal::Logs, request).await
}

async fn grpc_metrics<K: Keeper>(State(door): State<Arc<Door<K>>>, request: Request) -> Response {
    grpc(&door, Signal::Metrics, request).await
}

async fn grpc<K: Keeper>(door: &Door<K>, signal: Signal, request: Request<Body>) -> Response {
    if is_grpc(request.headers()) {
        door.export(signal, Speech::Grpc, request).await
    } else {
        let why = b"only gRPC is spoken here\n".to_vec();
        plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT, why)
    }
}

async fn http_logs<K: Keeper>(State(door): State<Arc<Door<K>>>, request: Request) -> Response {
    http(&door, Signal::Logs, request).await
}

async fn http_metrics<K: Keeper>(State(door): State<Arc<Door<K>>>, request: Request) -> Response {
    http(&door, Signal::Metrics, request).await
}

async fn http<K: Keeper>(door: &Door<K>, signal: Signal, request: Request<Body>) -> Response {
    match Speech::of_http(request.headers()) {
        Ok(speech) => door.export(signal, speech, request).await,
        Err(refused) => Speech::Json.refuse(&refused),
    }
}

async fn nothing(request: Request) -> Response {
    if is_grpc(request.headers()) {
        return tonic::Status::unimplemented("the bridge takes logs and metrics only").into_http();
    }
    let why = b"there is nothing at this path\n".to_vec();
    plain(StatusCode::NOT_FOUND, TEXT, why)
}

async fn what_is_held<K: Keeper>(
    State((door, _)): State<(Arc<Door<K>>, Status)>,
    request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let boot = query.strip_prefix("boot=").filter(|boot| is_boot(boot));
    let Some(boot) = boot.map(str::to_owned) else {
        let why = b"ask with ?boot=ID, 32 hexadecimal digits without dashes\n".to_vec();
        return plain(StatusCode::BAD_REQUEST, TEXT, why);
    };
    door.settle().await;
    let keeper = Arc::clone(&door.house.keeper);
    let found = spawn_blocking(move || keeper.held(&boot).map_err(|e| e.to_string())).await;
    let found = found.unwrap_or_else(|_| Err("the search ended half-way".to_owned()));
    match found.map(|held| serde_json::to_vec(&held::Answer { held })) {
        Ok(Ok(text)) => plain(StatusCode::OK, JSON, text),
        Ok(Err(e)) => failed(&e.to_string()),
        Err(e) => failed(&e),
    }
}

async fn what_is_up<K: Keeper>(State((door, status)): State<(Arc<Door<K>>, Status)>) -> Response {
    // Whoever answers may have to ask the disk.
    let Ok(mut told) = spawn_blocking(move || status()).await else {
        return failed("the bridge could not tell");
    };
    let house = &door.house;
    let leases = house.book.read().iter().len();
    let age = house.book.age().as_millis();
    told.insert("intake".to_owned(), json!(house.counters.counts()));
    told.insert(
        "leases".to_owned(),
        json!({"count": leases, "age_ms": u64::try_from(age).unwrap_or(u64::MAX)}),
    );
    axum::Json(told).into_response()
}

fn failed(why: &str) -> Response {
    let text = format!("{why}\n").into_bytes();
    plain(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
}
