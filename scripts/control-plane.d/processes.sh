# Starts and stops the programs of one run, in the folder $CONTROL_PLANE. Sourced.
#
# start [PART...] and stop [PART...]; without names, all of them in order. A part that is started
# again finds its data: etcd's folder and the keys stay.

run=$CONTROL_PLANE
pki=$run/pki
all_parts="etcd apiserver controller-manager scheduler kube-proxy metrics-server"
api=https://127.0.0.1:6443
admin=("$bin/kubectl" --kubeconfig "$pki/admin.kubeconfig")

# launch NAME COMMAND...: a process of its own session, its output in logs/NAME.log.
launch() {
    local name=$1
    shift
    mkdir -p "$run/logs" "$run/pids"
    setsid "$@" >>"$run/logs/$name.log" 2>&1 </dev/null 9>&- &
    printf '%s\n' "$!" >"$run/pids/$name"
}

alive() { [ -f "$run/pids/$1" ] && kill -0 "$(cat "$run/pids/$1")" 2>/dev/null; }

# until_true SECONDS PART WHAT COMMAND...
until_true() {
    local deadline=$((SECONDS + $1)) part=$2 what=$3
    shift 3
    until "$@" >/dev/null 2>&1; do
        alive "$part" || { tail -n 20 "$run/logs/$part.log" >&2; die "$part ended while it started" "its log: $run/logs/$part.log"; }
        [ "$SECONDS" -lt "$deadline" ] || { tail -n 20 "$run/logs/$part.log" >&2; die "$what took too long" "its log: $run/logs/$part.log"; }
        sleep 0.1
    done
}

start() {
    local part
    [ $# -gt 0 ] || set -- $all_parts
    [ -f "$pki/complete" ] || . "$parts/pki.sh"
    for part; do
        alive "$part" && continue
        "start_$part"
    done
}

stop() {
    local part pid reversed= tries
    [ $# -gt 0 ] || set -- $all_parts
    for part; do reversed="$part $reversed"; done
    for part in $reversed; do
        alive "$part" || continue
        pid=$(cat "$run/pids/$part")
        kill "$pid" 2>/dev/null || true
        for ((tries = 0; tries < 50; tries++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        rm -f "$run/pids/$part"
    done
}

start_etcd() {
    launch etcd "$bin/etcd" --name test --data-dir "$run/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster test=http://127.0.0.1:2380
    until_true 60 etcd etcd eval 'exec 3<>/dev/tcp/127.0.0.1/2379'
}

start_apiserver() {
    # The advertised address is one that is up: without it, a machine with no default route ends
    # with "unable to find suitable network address". The agent's serving certificate is verified,
    # which kubeadm and kind leave out. Every request is noted, to count them and to find a 401.
    launch apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
        --bind-address=0.0.0.0 --secure-port=6443 --advertise-address=192.0.2.1 --endpoint-reconciler-type=none \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --enable-bootstrap-token-auth \
        --service-cluster-ip-range=10.96.0.0/16 --allow-privileged \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
        --kubelet-client-certificate="$pki/apiserver-kubelet-client.crt" --kubelet-client-key="$pki/apiserver-kubelet-client.key" \
        --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP,Hostname \
        --requestheader-client-ca-file="$pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- --enable-aggregator-routing \
        --proxy-client-cert-file="$pki/front-proxy-client.crt" --proxy-client-key-file="$pki/front-proxy-client.key" \
        --audit-policy-file="$parts/audit.yaml" --audit-log-path="$run/logs/audit.log" \
        ${CONTROL_PLANE_EMULATE:+--emulated-version=$CONTROL_PLANE_EMULATE}
    until_true 120 apiserver "the API server" "${admin[@]}" get --raw /readyz
    "${admin[@]}" apply -f "$parts/bootstrap.yaml" >/dev/null
}

start_controller-manager() {
    # Quick controllers: a test shall not wait for the usual pauses of the autoscaler.
    launch controller-manager "$bin/kube-controller-manager" --kubeconfig="$pki/controller-manager.kubeconfig" \
        --authentication-kubeconfig="$pki/controller-manager.kubeconfig" --authorization-kubeconfig="$pki/controller-manager.kubeconfig" \
        --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials --controllers='*,bootstrapsigner,tokencleaner' \
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" --root-ca-file="$pki/ca.crt" \
        --service-account-private-key-file="$pki/sa.key" --allocate-node-cidrs --cluster-cidr=10.244.0.0/16 \
        --kube-api-qps=500 --kube-api-burst=1000 --flex-volume-plugin-dir="$run/flex" \
        --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-initial-readiness-delay=5s \
        --horizontal-pod-autoscaler-cpu-initialization-period=15s \
        --cluster-signing-duration="${CONTROL_PLANE_SIGNING:-720h}" \
        ${CONTROL_PLANE_EMULATE:+--emulated-version=$CONTROL_PLANE_EMULATE}
    # Admission refuses pods of a namespace whose ServiceAccount does not exist yet.
    until_true 60 controller-manager "the default ServiceAccount" "${admin[@]}" -n default get serviceaccount default
}

start_scheduler() {
    launch scheduler "$bin/kube-scheduler" --kubeconfig="$pki/scheduler.kubeconfig" \
        --authentication-kubeconfig="$pki/scheduler.kubeconfig" --authorization-kubeconfig="$pki/scheduler.kubeconfig" \
        --bind-address=127.0.0.1 --leader-elect=false ${CONTROL_PLANE_EMULATE:+--emulated-version=$CONTROL_PLANE_EMULATE}
}

start_kube-proxy() {
    # It begins when the node is there whose name it is given; all nodes share its rules here.
    # The limits of connection tracking belong to the machine, not to this namespace: 0 leaves them.
    launch kube-proxy "$bin/kube-proxy" --kubeconfig="$pki/kube-proxy.kubeconfig" --proxy-mode=nftables \
        --hostname-override="${CONTROL_PLANE_NODE:-edge-1}" --bind-address=192.0.2.1 --healthz-bind-address=127.0.0.1:10256 --metrics-bind-address=127.0.0.1:10249 \
        --conntrack-max-per-core=0 --conntrack-min=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

start_metrics-server() {
    # As in a cluster, it shows agents a ServiceAccount's token and verifies their certificates.
    local config=$run/pki/metrics-server.kubeconfig token
    token=$("${admin[@]}" -n kube-system create token metrics-server --duration=24h)
    "$bin/kubectl" --kubeconfig "$config" config set-cluster test --server="$api" --certificate-authority="$pki/ca.crt" --embed-certs >/dev/null
    "$bin/kubectl" --kubeconfig "$config" config set-credentials metrics-server --token="$token" >/dev/null
    "$bin/kubectl" --kubeconfig "$config" config set-context test --cluster=test --user=metrics-server >/dev/null
    "$bin/kubectl" --kubeconfig "$config" config use-context test >/dev/null
    launch metrics-server "$bin/metrics-server" --kubeconfig="$config" --authentication-kubeconfig="$config" --authorization-kubeconfig="$config" \
        --secure-port=4443 --cert-dir="$run/metrics-server" --metric-resolution=10s --kubelet-request-timeout=5s \
        --kubelet-preferred-address-types=InternalIP --kubelet-use-node-status-port --kubelet-certificate-authority="$pki/ca.crt"
}
