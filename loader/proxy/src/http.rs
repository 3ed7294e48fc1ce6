//! How Envoy reads requests: strictly, and as the policy judges them.

use crate::access;
use crate::chain::{Layer, Way};
use crate::route::{SNI_FILTER, UPSTREAM_FILTER, virtual_hosts};
use crate::settings::Settings;
use crate::upstream::{addresses, dns_cache};
use policy::Policy;
use serde_json::{Value, json};

/// The filter that reads the requests of a way in.
pub(crate) fn manager(policy: &Policy, way: &Way<'_, '_>, settings: &Settings) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": way.layer.l7(),
            "codec_type": "AUTO",
            // The path that is judged is the path that goes on: dots resolved, slashes merged; what a
            // server could read as another slash is refused.
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            // Nothing that an agent says about addresses, and none of Envoy's own headers, is believed
            // or passed on.
            "use_remote_address": true,
            "skip_xff_append": true,
            "internal_address_config": {"unix_sockets": false, "cidr_ranges": []},
            "generate_request_id": false,
            "server_header_transformation": "PASS_THROUGH",
            "max_request_headers_kb": 64,
            "request_headers_timeout": "10s",
            "stream_idle_timeout": "3600s",
            "common_http_protocol_options": {"max_headers_count": 200, "idle_timeout": "3600s"},
            "http_protocol_options": {
                "allow_chunked_length": false,
                "override_stream_error_on_invalid_http_message": false,
            },
            "http2_protocol_options": {
                "max_concurrent_streams": 128,
                "initial_stream_window_size": 1_048_576,
                "initial_connection_window_size": 4_194_304,
                "allow_connect": false,
                "override_stream_error_on_invalid_http_message": false,
            },
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "http_filters": filters(policy, way, settings),
            "route_config": {
                "name": way.layer.l7(),
                "validate_clusters": false,
                "virtual_hosts": virtual_hosts(policy, way),
            },
            "access_log": access::requests(),
        },
    })
}

fn filters(policy: &Policy, way: &Way<'_, '_>, settings: &Settings) -> Vec<Value> {
    let mut filters = Vec::new();
    if way.layer == Layer::Tls && way.enforced {
        // Every virtual host brings its own; without one nobody agrees.
        filters.push(json!({
            "name": SNI_FILTER,
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                "rules": {"action": "ALLOW", "policies": {}},
            },
        }));
    }
    filters.push(json!({
        "name": "envoy.filters.http.dynamic_forward_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
            "dns_cache_config": dns_cache(settings),
            "save_upstream_address": true,
        },
    }));
    filters.push(json!({"name": UPSTREAM_FILTER, "typed_config": addresses(policy, way, false)}));
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        },
    }));
    filters
}
