#!/bin/sh
# Runs a command as a task: what it prints is the answer while it is printed, and how it ends is the end.
#
#     worker.sh TASK COMMAND [ARGUMENT …]
#
# A cancel interrupts the request; the command then gets SIGPIPE with what it prints next.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 TASK COMMAND [ARGUMENT …]" >&2
    exit 2
fi
task=${BRIDGE_URL:-http://127.0.0.1:8620}/tasks/$1
shift
attempt=$(date +%s)-$$

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# In a file that only we can read: everybody on the machine sees command lines.
(umask 077 && echo "Authorization: Bearer ${BRIDGE_REPORT_KEY:?is not set}" >"$folder/key")

post() { # PATH [OPTION …]: prints the answer; fails where it is none, or an error
    path=$1
    shift
    curl --no-progress-meter --fail-with-body -X POST -H "@$folder/key" "$@" "$task/$path"
}

end() { # JSON; what isn't heard is said again, and counts once
    post "end?attempt=$attempt" --retry 5 --retry-connrefused -H 'Content-Type: application/json' -d "$1"
    echo
}

if { "$@" || echo $? >"$folder/status"; } |
    post "events?attempt=$attempt&lease=30&until=cancel" -H 'Content-Type: text/plain' -T . >"$folder/answer"
then
    if [ -s "$folder/status" ]; then
        status=$(cat "$folder/status")
        end "{\"state\":\"failed\",\"error\":{\"code\":\"exit\",\"message\":\"The command exited with status $status.\"}}"
        exit "$status"
    fi
    end '{"state":"succeeded"}'
elif grep -q cancel_requested.:true "$folder/answer"; then
    end '{"state":"cancelled"}'
else
    echo "The gateway didn't take it: $(cat "$folder/answer")" >&2
    exit 1
fi
