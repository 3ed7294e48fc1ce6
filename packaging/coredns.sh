#!/bin/sh
#
# Runs CoreDNS with the given arguments, and keeps what it says in $CLAWKER_COREDNS_LOG for the collector: a file
# of up to 16 MiB and eight before it. What is said waits while it cannot be written, and CoreDNS with it: no
# name is answered without a line.
set -eu

dir=${CLAWKER_COREDNS_LOG:-/var/log/clawker/coredns}
said=/tmp/said
changed=/var/lib/clawker/coredns/Corefile.changed

printf 's16777216\nn8\n' >"$dir/config"
rm -f "$said"
mkfifo "$said"
# Times in UTC, and lines as long as a name can make them.
svlogd -ttt -l 8192 -b 16384 "$dir" <"$said" &
keeper=$!
/coredns "$@" >"$said" 2>&1 &
server=$!
trap 'kill -TERM "$server" 2>/dev/null || true' TERM INT
# The loader says by a line that it has replaced the file: CoreDNS by itself would look in two seconds. Before it
# answers the signal could end it.
if [ -p "$changed" ]; then
    {
        until nslookup -type=a ready.clawker 127.0.0.1 </dev/null >/dev/null 2>&1; do sleep 0.1; done
        while read -r _ && kill -USR1 "$server"; do :; done
    } 0<>"$changed" &
fi

# wait(1) ends early when the signal comes: what counts is how CoreDNS has ended.
status=0
while kill -0 "$server" 2>/dev/null; do
    status=0
    wait "$server" || status=$?
done
# The last lines are in the pipe.
wait "$keeper" || true
exit "$status"
