# Keys and certificates of one run, and kubeconfigs. Sourced by processes.sh.

mkdir -p "$pki"
(
    cd "$pki"
    umask 077
    key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" 2>/dev/null; }
    # authority NAME
    authority() {
        key "$1"
        openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 30 -out "$1.crt" \
            -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
    }
    # leaf AUTHORITY NAME SUBJECT USAGE [NAMES]
    leaf() {
        key "$2"
        openssl req -new -key "$2.key" -subj "$3" -out "$2.csr"
        {
            printf 'basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n' "$4"
            [ -z "${5:-}" ] || printf 'subjectAltName=%s\n' "$5"
        } >"$2.ext"
        openssl x509 -req -in "$2.csr" -CA "$1.crt" -CAkey "$1.key" -CAcreateserial -days 30 -extfile "$2.ext" -out "$2.crt" 2>/dev/null
        rm -f "$2.csr" "$2.ext"
    }
    # config NAME: a kubeconfig with that client certificate.
    config() {
        local kubectl=("$bin/kubectl" --kubeconfig "$1.kubeconfig" config)
        "${kubectl[@]}" set-cluster test --server="$api" --certificate-authority=ca.crt --embed-certs >/dev/null
        "${kubectl[@]}" set-credentials "$1" --client-certificate="$1.crt" --client-key="$1.key" --embed-certs >/dev/null
        "${kubectl[@]}" set-context test --cluster=test --user="$1" >/dev/null
        "${kubectl[@]}" use-context test >/dev/null
    }
    authority ca
    # The aggregation layer's own: the API server shows its leaf to metrics-server.
    authority front-proxy-ca
    leaf front-proxy-ca front-proxy-client /CN=front-proxy-client clientAuth
    leaf ca apiserver /CN=kube-apiserver serverAuth \
        "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:192.0.2.1,IP:10.96.0.1"
    leaf ca apiserver-kubelet-client /O=test:kubelet-api-admin/CN=kube-apiserver-kubelet-client clientAuth
    leaf ca admin /O=system:masters/CN=admin clientAuth
    leaf ca controller-manager /CN=system:kube-controller-manager clientAuth
    leaf ca scheduler /CN=system:kube-scheduler clientAuth
    leaf ca kube-proxy /CN=system:kube-proxy clientAuth
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    for name in admin controller-manager scheduler kube-proxy; do config "$name"; done
    touch complete
)
