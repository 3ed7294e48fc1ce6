#!/bin/sh
# The demo agent: what an agent in a container does in a minute, in small. It needs a busybox and nothing
# else. No prompt, answer or tool input is in what it sends.
collector=http://clawker-collector:4318
session=$(cat /proc/sys/kernel/random/uuid)

say() { echo "demo: $*"; }

# attempt WHAT COMMAND...: it may well fail, that is what the firewall is for.
attempt() {
    what=$1
    shift
    if timeout 5 "$@" >/dev/null 2>&1; then say "$what: passed"; else say "$what: did not pass"; fi
}

# post PATH JSON: as OTLP over HTTP.
post() { timeout 5 wget -q -O /dev/null --header 'Content-Type: application/json' --post-data "$2" "$collector$1" || say "telemetry was not taken ($1)"; }

resource='"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"claude-code"}}]}'

text() { printf '{"key":"%s","value":{"stringValue":"%s"}}' "$1" "$2"; }
whole() { printf '{"key":"%s","value":{"intValue":"%s"}}' "$1" "$2"; }
real() { printf '{"key":"%s","value":{"doubleValue":%s}}' "$1" "$2"; }

# event NAME ATTRIBUTES: one record, as Claude Code shapes it.
event() {
    printf '{"timeUnixNano":"%s","severityNumber":9,"body":{"stringValue":"claude_code.%s"},"attributes":[%s,%s,%s]}' \
        "$now" "$1" "$(text event.name "$1")" "$(text session.id "$session")" "$2"
}

# sum NAME UNIT POINTS: a counter; delta, which is what Claude Code sends.
sum() { printf '{"name":"%s","unit":"%s","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[%s]}}' "$1" "$2" "$3"; }

# point VALUE ATTRIBUTES
point() { printf '{"startTimeUnixNano":"%s","timeUnixNano":"%s","asDouble":%s,"attributes":[%s]}' "$before" "$now" "$1" "$2"; }

flows() {
    attempt "http to example.com, which the policy allows" wget -q -O /dev/null http://example.com/
    attempt "a POST there, which it does not" wget -q -O /dev/null --post-data x http://example.com/upload
    attempt "a name that no rule allows" nslookup exfiltration.example.net
    attempt "another resolver" nslookup example.com 192.0.2.53
    attempt "TCP to an address that no rule allows" nc -w 2 198.51.100.7 443
    attempt "UDP to an address that no rule allows" tftp -g -r x -l /tmp/x 198.51.100.9
    attempt "cloud metadata" wget -q -O /dev/null http://169.254.169.254/latest/meta-data/
    attempt "OpenSearch, which is none of its business" nc -w 2 10.237.68.130 9200
}

telemetry() {
    model=claude-sonnet-4-5
    logs=$(event user_prompt "$(whole prompt_length 42)"
        printf ,
        event api_request "$(text model $model),$(real cost_usd 0.0123),$(whole duration_ms 1830),$(whole input_tokens 1200),$(whole output_tokens 340)"
        printf ,
        event tool_result "$(text tool_name Bash),$(text success true),$(whole duration_ms 210)")
    post /v1/logs "{\"resourceLogs\":[{$resource,\"scopeLogs\":[{\"logRecords\":[$logs]}]}]}"
    metrics=$(sum claude_code.token.usage tokens \
        "$(point 1200 "$(text type input),$(text model $model)"),$(point 340 "$(text type output),$(text model $model)")"
        printf ,
        sum claude_code.cost.usage USD "$(point 0.0123 "$(text model $model)")")
    post /v1/metrics "{\"resourceMetrics\":[{$resource,\"scopeMetrics\":[{\"metrics\":[$metrics]}]}]}"
}

now=$(date +%s)000000000
while :; do
    before=$now
    now=$(date +%s)000000000
    flows
    telemetry
    touch /tmp/round
    say "round done; the next one in 15 s"
    sleep 15
done
