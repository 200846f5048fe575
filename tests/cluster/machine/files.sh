# Certificates, kubeconfigs and configurations of a cluster. Sourced by `cluster`.

write_files() {
  chmod 700 "$pki"
  authority ca plaza-ca
  authority front-ca plaza-front-ca
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$pki/sa.key" 2>/dev/null
  openssl pkey -in "$pki/sa.key" -pubout -out "$pki/sa.pub"
  local server=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
  certificate etcd ca /CN=etcd IP:127.0.0.1
  certificate apiserver ca /CN=kube-apiserver \
    "IP:127.0.0.1,IP:$node_ip,IP:${services%.0/*}.1,$server,DNS:kubernetes.default.svc.cluster.local"
  certificate front-proxy front-ca /CN=front-proxy
  certificate kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate admin ca /O=system:masters/CN=admin
  certificate controller-manager ca /CN=system:kube-controller-manager
  certificate scheduler ca /CN=system:kube-scheduler
  certificate kube-proxy ca /CN=system:kube-proxy
  certificate kubelet ca "/O=system:nodes/CN=system:node:$node" "IP:$node_ip,DNS:$node"
  local who
  for who in controller-manager scheduler kube-proxy kubelet; do write_kubeconfig "$conf/$who" $who; done
  write_kubeconfig "$kubeconfig" admin
  write_node_files
}

p256=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

authority() { # FILE NAME
  openssl req -x509 "${p256[@]}" -days 365 -subj "/CN=$2" -addext keyUsage=critical,keyCertSign,digitalSignature \
    -keyout "$pki/$1.key" -out "$pki/$1.crt" 2>/dev/null
}

certificate() { # FILE AUTHORITY SUBJECT [ALTERNATIVE-NAMES]
  {
    echo keyUsage=critical,digitalSignature
    echo extendedKeyUsage=serverAuth,clientAuth
    [[ ! ${4-} ]] || echo "subjectAltName=$4"
  } >"$pki/$1.ext"
  openssl req -new "${p256[@]}" -subj "$3" -keyout "$pki/$1.key" 2>/dev/null | openssl x509 -req -days 365 \
    -CA "$pki/$2.crt" -CAkey "$pki/$2.key" -extfile "$pki/$1.ext" -out "$pki/$1.crt" 2>/dev/null
}

write_kubeconfig() { # FILE WHO: with everything inside, for whoever may read it
  (umask 077 && cat >"$1") <<END
apiVersion: v1
kind: Config
current-context: plaza
contexts: [{ name: plaza, context: { cluster: plaza, user: "$2" } }]
clusters:
  - name: plaza
    cluster: { server: "https://$node_ip:6443", certificate-authority-data: $(base64 -w0 <"$pki/ca.crt") }
users:
  - name: "$2"
    user:
      client-certificate-data: $(base64 -w0 <"$pki/$2.crt")
      client-key-data: $(base64 -w0 <"$pki/$2.key")
END
}

write_node_files() {
  local plugins
  for plugins in /usr/lib/cni /opt/cni/bin; do [[ ! -x $plugins/ptp ]] || break; done
  : >"$conf/resolv.conf" # the cluster's DNS asks nobody
  cat >"$conf/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { x509: { clientCAFile: $pki/ca.crt }, anonymous: { enabled: false } }
tlsCertFile: $pki/kubelet.crt
tlsPrivateKeyFile: $pki/kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/plugins-exec
clusterDomain: cluster.local
clusterDNS: [$dns_ip]
resolvConf: $conf/resolv.conf
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
# The usual, lower one needs a capability that a box inside of a container lacks.
oomScoreAdj: 0
# The disk belongs to the whole machine and may be fairly full: no reason to evict pods or drop images.
imageGCHighThresholdPercent: 100
evictionHard: { memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1% }
END
  cat >"$conf/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: $conf/kube-proxy }
mode: nftables
clusterCIDR: $pods
hostnameOverride: $node
nodePortAddresses: [$node_ip/32]
oomScoreAdj: 0
# The machine's own table of connections: left as it is.
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
END
  # Each pod has a pair of devices of its own, and packets between pods are routed: all pass the packet filter.
  mkdir -p "$conf/cni"
  cat >"$conf/cni/10-plaza.conflist" <<END
{ "cniVersion": "1.0.0", "name": "plaza", "plugins": [
  { "type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": { "type": "host-local",
    "ranges": [[{ "subnet": "${pods%.0/*}.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true } }] }
END
  cat >"$conf/containerd.toml" <<END
version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '$(name_of pause)'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['$plugins']
  conf_dir = '$conf/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins.'io.containerd.nri.v1.nri']
  disable = true
END
}
