# Runs a command beside a control plane of its own. Sourced by scripts/control-plane.

if [ "${CONTROL_PLANE_INSIDE:-}" != 1 ]; then
    [ "$(id -u)" = 0 ] || die "a control plane runs in a network namespace of its own, which needs root" "run it with sudo"
    packages "what a control plane in a network namespace needs" iproute2 nftables openssl util-linux
    "$root/scripts/control-plane" build
    folder=${GRAPHLET_RUN_DIR:-}
    if [ -z "$folder" ]; then
        folder=$(mktemp -d "${TMPDIR:-/tmp}/graphlet-run.XXXXXX")
        trap 'rm -rf "$folder"' EXIT
    fi
    mkdir -p "$folder"
    # The command is process 1 of a namespace: when it ends, or this script does, the kernel ends
    # everything that was started in there.
    CONTROL_PLANE_INSIDE=1 CONTROL_PLANE=$(cd "$folder" && pwd) unshare --net --mount --pid --fork --kill-child=SIGKILL --mount-proc \
        bash "$root/scripts/control-plane" run "$@" <&0 &
    child=$!
    trap 'kill -KILL "$child" 2>/dev/null' INT TERM
    status=0
    wait "$child" || status=$?
    exit "$status"
fi
unset CONTROL_PLANE_INSIDE
export CONTROL_PLANE PATH=$bin:$PATH
. "$parts/processes.sh"

ip link set lo up
# The machine's own address, and two for nodes: documentation addresses (RFC 5737).
for address in 192.0.2.1 192.0.2.11 192.0.2.12; do ip address add "$address/32" dev lo; done
# Services: kube-proxy's rules rewrite the destination, but a route must be there first.
ip route add 10.96.0.0/16 dev lo src 192.0.2.1
for setting in net.ipv4.ip_forward=1 net.ipv4.ip_local_port_range="15000 60999"; do
    printf '%s\n' "${setting#*=}" >"/proc/sys/$(printf %s "${setting%%=*}" | tr . /)"
done

began=$(date +%s%N)
start
export KUBECONFIG=$CONTROL_PLANE/pki/admin.kubeconfig
say "control plane $KUBERNETES_VERSION${CONTROL_PLANE_EMULATE:+ as $CONTROL_PLANE_EMULATE} up after $((($(date +%s%N) - began) / 1000000)) ms"
# Not exec: this shell is process 1 and must reap what others leave behind.
status=0
"$@" || status=$?
exit "$status"
