# From the JSON list of all pods, namespaces and NetworkPolicies: rules for `nft -f` that enforce the
# policies. A pod that a policy selects for a direction has a chain for it, which returns what any of its
# policies allows and drops the rest. Answers pass, and what comes from the node itself (probes).
# Selectors, ipBlock, and ports by number, name and range are covered; IPv4 only.

def selects($labels): # whether a label selector does
  ((.matchLabels // {}) | to_entries | all(. as $want | $labels[$want.key] == $want.value))
  and ((.matchExpressions // []) | all(. as $want | $labels[$want.key] as $has |
    {"In": ($want.values // [] | index($has) != null), "NotIn": ($want.values // [] | index($has) == null),
     "Exists": ($has != null), "DoesNotExist": ($has == null)}[$want.operator]));

[.items[] | select(.kind == "Namespace").metadata | {name, labels: (.labels // {})}] as $namespaces
| [.items[] | select(.kind == "NetworkPolicy") | {ns: .metadata.namespace} + .spec] as $policies
| [.items[] | select(.kind == "Pod" and .status.podIP != null and (.spec.hostNetwork | not))
    | select(.status.phase != "Succeeded" and .status.phase != "Failed")
    | {ns: .metadata.namespace, labels: (.metadata.labels // {}), ip: .status.podIP,
       ports: [.spec.containers[], (.spec.initContainers // [])[] | (.ports // [])[]]}] as $pods

# Matches of a peer's address, none where its selectors meet no pod.
| def peers($policy; $field):
    if .ipBlock then
      "ip \($field) \(.ipBlock.cidr)" + ((.ipBlock.except // []) | map(" ip \($field) != \(.)") | add // "")
    else
      . as $peer
      | (if $peer.namespaceSelector
         then [$namespaces[] | . as $n | select($peer.namespaceSelector | selects($n.labels)).name]
         else [$policy.ns] end) as $in
      | [$pods[] | . as $pod | select($in | index($pod.ns))
          | select(($peer.podSelector // {}) | selects($pod.labels)).ip] | unique
      | select(. != []) | "ip \($field) { \(join(", ")) }"
    end;

  # Matches of a port. A name means what the receiving pod calls so.
  def ports($receivers):
    . as $want | (.protocol // "TCP" | ascii_downcase) as $protocol
    | if .port == null then "meta l4proto \($protocol)"
      elif .port | type == "number" then "\($protocol) dport \(.port)" + (if .endPort then "-\(.endPort)" else "" end)
      else $receivers[] | .ip as $ip | .ports[]
        | select(.name == $want.port and (.protocol // "TCP" | ascii_downcase) == $protocol)
        | "ip daddr \($ip) \($protocol) dport \(.containerPort)"
      end;

  # The chains of a direction: $own is the field of the packet that holds the pod, $other its peer's.
  def chains($direction; $own; $other):
    $pods[] | . as $pod
    | [$policies[] | select(.ns == $pod.ns and (.policyTypes | index($direction)))
        | select(.podSelector | selects($pod.labels))]
    | select(. != [])
    | {own: $own, ip: $pod.ip, name: "\($direction)-\($pod.ip)", rules: [
        "ip \($other) \($pod.ip) return",
        (.[] | . as $policy
          | (if $direction == "Ingress" then .ingress else .egress end // [])[]
          | ((.from // .to // []) | if . == [] then "" else .[] | peers($policy; $other) end) as $peer
          | ((.ports // []) | if . == [] then "" else .[]
              | ports(if $direction == "Ingress" then [$pod] else $pods end) end) as $port
          | "\($peer) \($port) return"),
        "drop"]};

  [chains("Egress"; "saddr"; "daddr")] as $egress
| [chains("Ingress"; "daddr"; "saddr")] as $ingress
| def jumps: .[] | "ip \(.own) \(.ip) jump \(.name)";

  "table ip plaza-policies {}", "delete table ip plaza-policies", "table ip plaza-policies {",
  (($egress + $ingress)[] | "chain \(.name) {", .rules[], "}"),
  "chain forward { type filter hook forward priority filter;",
  "ct state established,related accept", ($egress | jumps), ($ingress | jumps), "}",
  # From pods to programs of the node, such as the API server.
  "chain input { type filter hook input priority filter;",
  "ct state established,related accept", ($egress | jumps), "}",
  "}"
