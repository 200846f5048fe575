# The box: a mount, process, network, host name, IPC and cgroup namespace of its own, joined to this machine
# by one pair of network devices. When its first process ends, every program and container in it ends, and
# mounts, links and packet filters are gone with it. Sourced by `cluster`.

in_box() { nsenter -t "$(<"$state/pid")" -m -u -i -n -p -- "$@"; }

# The control groups that this process is in, as "NAME FOLDER" lines: cgroup v1 has a tree for each
# controller, v2 one for all ("unified"). The box gets a group below each of them, so that limits hold.
control_groups() {
  local kind controllers path
  kind=$(stat -fc %T /sys/fs/cgroup)
  while IFS=: read -r _ controllers path; do
    case $kind:$controllers in
      cgroup2fs:) echo "unified /sys/fs/cgroup${path%/}" ;;
      cgroup2fs:* | *:) ;;
      *) echo "$controllers /sys/fs/cgroup/${controllers#name=}${path%/}" ;;
    esac
  done </proc/self/cgroup
}

make_control_groups() {
  local name folder file
  : >"$state/cgroups"
  while read -r name folder; do
    if [[ $name == unified ]]; then
      sed 's/\</+/g' "$folder/cgroup.controllers" >"$folder/cgroup.subtree_control" ||
        die "$folder cannot hand its controllers on: run this in a control group without processes of its own"
    fi
    mkdir "$folder/plaza-cluster.$$"
    echo "$name $folder/plaza-cluster.$$" >>"$state/cgroups"
    [[ $name != unified ]] || continue
    for file in cpuset.cpus cpuset.mems; do # a new cpuset of v1 is empty, and takes no process in
      [[ ! -e $folder/$file ]] || cat "$folder/$file" >"$folder/plaza-cluster.$$/$file"
    done
  done < <(control_groups)
}

start_box() {
  local link pid
  make_control_groups
  (
    while read -r _ folder; do echo "$BASHPID" >"$folder/cgroup.procs"; done <"$state/cgroups"
    exec setsid unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child \
      "$here/cluster" __programs "$state" </dev/null >>"$logs/box.log" 2>&1 9>&-
  ) &
  await 10 box test -s "$state/pid"
  pid=$(<"$state/pid")
  link=plz$(cksum <<<"$state" | cut -d' ' -f1)
  link=${link:0:15}
  ip link add "$link" type veth peer name eth0 netns "$pid"
  ip addr add "$outer_ip/30" dev "$link"
  ip link set "$link" up
  in_box ip addr add "$node_ip/30" dev eth0
  in_box ip link set eth0 up
  # Packets to a Service must come as far as the rules that send them on.
  in_box ip route add "$services" dev eth0
  ip route add "$pods" via "$node_ip"
  ip route add "$services" via "$node_ip"
}

# The first steps of the first process in the box; `outer_pid` is its id outside.
furnish_box() {
  local name folder value
  read -r outer_pid _ </proc/self/stat # /proc is still the outer one
  mount --make-rshared / # the kubelet's mounts must reach containers; none of them leaves this namespace
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  if grep -q ^unified "$state/cgroups"; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /sys/fs/cgroup/programs # v2 wants no processes beside child groups
    echo $$ >/sys/fs/cgroup/programs/cgroup.procs
  else
    mount -t tmpfs tmpfs /sys/fs/cgroup
    while read -r name folder; do
      mkdir -p "/sys/fs/cgroup/${name#name=}"
      [[ $name != name=* ]] || name=none,$name
      mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/${name##*name=}"
    done <"$state/cgroups"
  fi
  # The usual paths of these programs, not shared with this machine's.
  mount -t tmpfs tmpfs /run
  mkdir -p /run/lock
  mount --bind "$state/node/log" /var/log
  mount --bind "$state/node/lib" /var/lib
  # The kubelet wants these so, and would set them for the whole machine: it finds them set.
  while read -r name value; do
    echo "$value" >"/run/${name//\//.}"
    mount --bind "/run/${name//\//.}" "/proc/sys/$name"
  done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END
  hostname "$node"
  ip link set lo up
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

end_box() {
  local pid tries
  pid=$(<"$state/pid")
  kill -KILL "$pid"
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  die "process $pid does not end"
}

memory_of_box() {
  local folder
  folder=$(awk '$1 ~ /(^|,)(memory|unified)(,|$)/ { print $2 }' "$state/cgroups")
  cat "$folder"/memory.usage_in_bytes 2>/dev/null || cat "$folder"/memory.current
}

# Removes what a cluster made; none runs any more.
clean() {
  local folder tries
  if [[ -s $state/cgroups ]]; then
    while read -r _ folder; do
      for ((tries = 0; tries < 50; tries++)); do # the kernel lets ended processes go a little later
        [[ -e $folder ]] || break
        find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
      done
      [[ ! -e $folder ]] || say "$folder cannot be removed"
    done <"$state/cgroups"
  fi
  rm -rf "${state:?}"/{pid,net,cgroups,pki,conf,etcd,node,volumes,kubeconfig,logs}
}
