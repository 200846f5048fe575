# What runs in the box: control plane, node, and two small controllers of our own. Sourced by `cluster`.

# Starts a program again whenever it ends, as a service manager would.
keep() { # NAME COMMAND...
  local name=$1
  shift
  while :; do
    "$@" >>"$logs/$name.log" 2>&1 || true
    echo "cluster: $name ended and is started again" >>"$logs/$name.log"
    sleep 1
  done
}

# The first process in the box, and the parent of all.
run_programs() {
  export NO_PROXY='*' no_proxy='*' # whom they speak to is in the box
  furnish_box
  echo "$outer_pid" >"$state/pid.new"
  mv "$state/pid.new" "$state/pid"
  keep etcd etcd --name=plaza --data-dir="$state/etcd" --unsafe-no-fsync --logger=zap --log-level=warn \
    --listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
    --initial-cluster=plaza=http://127.0.0.1:2380 \
    --cert-file="$pki/etcd.crt" --key-file="$pki/etcd.key" --trusted-ca-file="$pki/ca.crt" --client-cert-auth &
  keep kube-apiserver kube-apiserver --bind-address="$node_ip" --advertise-address="$node_ip" --secure-port=6443 \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --etcd-servers=https://127.0.0.1:2379 --etcd-cafile="$pki/ca.crt" \
    --etcd-certfile="$pki/etcd.crt" --etcd-keyfile="$pki/etcd.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
    --requestheader-client-ca-file="$pki/front-ca.crt" --requestheader-allowed-names=front-proxy \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key" \
    --service-cluster-ip-range="$services" --authorization-mode=Node,RBAC --allow-privileged=true \
    --enable-admission-plugins=NodeRestriction,PodSecurity --profiling=false \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" &
  # With a larger budget of requests than the usual 20 a second it starts sooner.
  keep kube-controller-manager kube-controller-manager --kubeconfig="$conf/controller-manager" \
    --use-service-account-credentials --service-account-private-key-file="$pki/sa.key" \
    --root-ca-file="$pki/ca.crt" --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --allocate-node-cidrs --cluster-cidr="$pods" --service-cluster-ip-range="$services" \
    --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-initial-readiness-delay=10s \
    --horizontal-pod-autoscaler-cpu-initialization-period=30s \
    --pvclaimbinder-sync-period=2s --kube-api-qps=100 --kube-api-burst=200 \
    --leader-elect=false --secure-port=0 --profiling=false &
  keep kube-scheduler kube-scheduler --kubeconfig="$conf/scheduler" --leader-elect=false --secure-port=0 --profiling=false &
  keep containerd containerd --config "$conf/containerd.toml" --log-level warn &
  keep kubelet kubelet --config "$conf/kubelet.yaml" --kubeconfig "$conf/kubelet" --hostname-override="$node" --node-ip="$node_ip" &
  keep kube-proxy kube-proxy --config "$conf/kube-proxy.yaml" &
  keep volumes offer_volumes &
  keep policies enforce_policies &
  wait
}

# A volume whose claim is gone is wiped and offered again.
offer_volumes() {
  local name phase
  kube get pv --watch -o 'jsonpath={.metadata.name} {.status.phase}{"\n"}' | while read -r name phase; do
    [[ $phase == Released && $name == local-* ]] || continue
    find "$state/volumes/${name:?}" -mindepth 1 -delete
    kube patch pv "$name" --type=json -p '[{"op": "remove", "path": "/spec/claimRef"}]'
  done
}

# Writes the packet filter anew when policies, namespaces or the addresses of pods change: within about a
# second.
enforce_policies() {
  local what value
  declare -A known
  {
    watched pods 'pod/{.metadata.namespace}/{.metadata.name} {.status.podIP}/{.status.phase}/{.metadata.labels}' &
    watched namespaces 'namespace/{.metadata.name} {.metadata.labels}' &
    watched networkpolicies 'policy changed' &
    wait -n # the others end with it, and all start again
    jobs -p | xargs -r kill
  } | while read -r what value; do
    # Most updates of a pod change nothing here. Of a policy all count, its deletion too.
    [[ $what == policy || ${known[$what]-none} != "$value" ]] || continue
    known[$what]=$value
    while read -r -t 0.2 what value; do known[$what]=$value; done
    kube get pods,namespaces,networkpolicies -A -o json | jq -rf "$here/policies.jq" | nft -f -
  done
}

# KIND TEMPLATE. In the place of the shell: what is killed above must not leave a kubectl behind that keeps the pipe.
watched() { exec kubectl --kubeconfig "$kubeconfig" get "$1" -A --watch -o "jsonpath=$2{'\n'}"; }
