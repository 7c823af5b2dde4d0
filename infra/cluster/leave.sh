#!/usr/bin/env bash
# What a node does when its machine or pod is about to be taken away: `leave [SECONDS]`, 75 by default.
#
# Where the driver of a run is: SIGTERM to it, so that it publishes what is complete, and wait for its end.
# Elsewhere: tell Ray that the node is going. It gets no new work; what it has in work, 10 to 20 seconds
# of it, is finished and committed; its actors start again on other nodes. Always exits 0: the node goes anyway.
set -u

seconds="${1:-75}"

runs() { # a process with exactly this name
    grep -qsx "$1" /proc/[0-9]*/comm
}

wait_for_end_of() {
    local end=$((SECONDS + seconds))
    while runs "$1" && ((SECONDS < end)); do
        sleep 1
    done
}

if runs dawnchorus; then
    grep -lsx dawnchorus /proc/[0-9]*/comm | while IFS=/ read -r _ _ pid _; do
        kill -TERM "$pid" 2>/dev/null
    done
    wait_for_end_of dawnchorus
elif runs raylet; then
    timeout "$seconds" ray drain-node --address "${RAY_ADDRESS:-auto}" \
        --reason DRAIN_NODE_REASON_PREEMPTION \
        --reason-message "the machine is taken away" \
        --deadline-remaining-seconds "$seconds" >&2
    wait_for_end_of raylet
fi
exit 0
