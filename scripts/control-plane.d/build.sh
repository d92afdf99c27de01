# Builds the programs into $bin. Sourced by scripts/control-plane.
#
# Kubernetes requires its own staging modules at v0.0.0 and replaces them by folders; replaces do
# not travel with a module, so modules/kubernetes/go.mod replaces them by the published ones.

programs="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl etcd metrics-server"

complete() {
    local program
    for program in $programs; do [ -f "$bin/$program" ] && [ -x "$bin/$program" ] || return 1; done
}

if complete; then
    note "control plane $KUBERNETES_VERSION: $bin"
    exit 0
fi
[ -z "${GRAPHLET_CONTROL_PLANE_BIN:-}" ] || die "$bin lacks some of: $programs"

mkdir -p "$cache"
have go || packages "a Go compiler, for the control plane that tests run against" golang-go
work=$bin.build
mkdir -p "$work" "$bin"
exec 9>"$work/lock"
flock -n 9 || { note "another build is under way: waiting"; flock 9; }
if complete; then exit 0; fi

# Caches that the environment names are used and kept; ours are deleted at the end.
export GOMODCACHE=${GOMODCACHE:-$work/modules} GOCACHE=${GOCACHE:-$work/objects}
export CGO_ENABLED=0 GOFLAGS="-mod=mod -trimpath -modcacherw" GOWORK=off

# Go itself, when what is here is too old: the toolchain is a module like any other.
found=$(go env GOVERSION | sed 's/^go//; s/[^0-9.].*//')
if [ "$(printf '%s\n%s\n' "$GO_VERSION" "$found" | sort -V | head -n1)" != "$GO_VERSION" ]; then
    case $(uname -m) in
    x86_64) machine=amd64 ;;
    aarch64) machine=arm64 ;;
    *) die "Go $found is older than $GO_VERSION" "install a newer Go" ;;
    esac
    toolchain=golang.org/toolchain@v0.0.1-go$GO_VERSION.linux-$machine
    say "Go $GO_VERSION, which Kubernetes needs ($found is here)"
    (cd / && go mod download "$toolchain") >"$work/go.log" 2>&1 ||
        die "Go $GO_VERSION could not be fetched" "see $work/go.log; or install it from go.dev/dl"
    chmod -R u+x "$GOMODCACHE/$toolchain/bin" "$GOMODCACHE/$toolchain/pkg/tool"
    export PATH=$GOMODCACHE/$toolchain/bin:$PATH
fi
export GOTOOLCHAIN=local

# go_build MODULE PACKAGE NAME [LINKER FLAGS]: modules/MODULE pins the sources.
go_build() {
    local module=$1 package=$2 name=$3 flags=${4:-} began=$SECONDS
    [ ! -f "$bin/$name" ] || return 0
    # Programs in a folder of their own: `go build -o` a folder's name would write into that.
    mkdir -p "$work/from/$module" "$work/made"
    cp "$parts/modules/$module/go.mod" "$parts/modules/$module/go.sum" "$work/from/$module/"
    (cd "$work/from/$module" && go build -ldflags "-s -w $flags" -o "$work/made/$name" "$package") >"$work/$name.log" 2>&1 ||
        die "$name could not be built" "see $work/$name.log; is the Go module proxy reachable?"
    mv "$work/made/$name" "$bin/$name"
    note "$name: $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
}

say "building Kubernetes $KUBERNETES_VERSION, etcd $ETCD_VERSION and metrics-server $METRICS_SERVER_VERSION (about 7 minutes, once)"
# Without these the programs would call themselves v0.0.0-master.
stamp=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    minor=${KUBERNETES_VERSION#v1.}
    stamp+=" -X $package.gitVersion=$KUBERNETES_VERSION -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    stamp+=" -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
done
for name in kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
    go_build kubernetes "k8s.io/kubernetes/cmd/$name" "$name" "$stamp"
done
go_build etcd go.etcd.io/etcd/server/v3 etcd
go_build metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server metrics-server
rm -rf "$work"
note "done: $bin, $(du -sm "$bin" | cut -f1) MB"
