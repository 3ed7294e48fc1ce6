#!/bin/sh
#
# Runs CoreDNS by the file that the loader writes, and keeps what it says for the collector: a file of up to 16 MiB
# and eight before it. What cannot be written waits in the memory of CoreDNS. The keeper ends with CoreDNS, and CoreDNS
# with its keeper.
set -eu

config=${CLAWKER_COREFILE:-/var/lib/clawker/coredns/Corefile}
logs=${CLAWKER_COREDNS_LOG:-/var/log/clawker/coredns}
coredns=${CLAWKER_COREDNS:-/coredns}
# The loader writes a line into this FIFO when it has replaced the file.
changed=$config.changed
own=${CLAWKER_COREDNS_DIR:-/tmp}
said=$own/said

# The file without its own `reload`: of two who have CoreDNS read it anew, one would start it twice at once.
take() {
    sed '/^ *reload /d' "$config" >"$own/Corefile.new" && mv "$own/Corefile.new" "$own/Corefile"
}

until [ -w "$changed" ]; do sleep 0.1; done
# Open for both, from before the file is read: no line is missed.
exec 3<>"$changed"
take

printf 's16777216\nn8\n' >"$logs/config"
rm -f "$said"
mkfifo "$said"
# Times in UTC.
svlogd -ttt "$logs" <"$said" 3<&- &
keeper=$!
"$coredns" -conf "$own/Corefile" >"$said" 2>&1 3<&- &
server=$!
trap 'kill -TERM "$server" 2>/dev/null || true' TERM INT

{
    # Before it listens on port 53 the signal would end it.
    until grep -qs ':0035 ' /proc/net/udp /proc/net/udp6; do sleep 0.1; done
    while read -r _ <&3; do
        if take; then kill -USR1 "$server"; fi
    done
} &
follower=$!

# wait(1) ends early when a signal comes, and tells of that instead of the process, even of one that ended meanwhile.
until_end_of() {
    while kill -0 "$1" 2>/dev/null; do wait "$1" || true; done
}

until_end_of "$server"
# A shell that has just been started would lose another signal.
kill -KILL "$follower" 2>/dev/null || true
# The last lines are in the pipe.
until_end_of "$keeper"
wait "$server"
