// Reads a list of objects from standard input and checks each against the schema of its kind: those of Gateway API,
// KEDA and prometheus-operator, which extend Kubernetes. Writes a list with the problems of each.
//
// The schemas are programs, and say nothing of a field that they do not know. But they read every field that they do
// know, whether it is there or not: so what nobody has read, the API server would not know either.

import { readFileSync } from "node:fs";

const GATEWAY = "gateway-api/_schemas/IoK8sSigsGatewayApiApisV1";
const KEDA = "keda/_schemas/ComGithubKedacoreKedaV2ApisKedaV1alpha1";
const PROMETHEUS = "prometheus-operator/_schemas/ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1";
const SCHEMAS = {
  "gateway.networking.k8s.io/v1 GRPCRoute": `${GATEWAY}GRPCRoute`,
  "gateway.networking.k8s.io/v1 HTTPRoute": `${GATEWAY}HTTPRoute`,
  "keda.sh/v1alpha1 ScaledObject": `${KEDA}ScaledObject`,
  "monitoring.coreos.com/v1 PodMonitor": `${PROMETHEUS}PodMonitor`,
  "monitoring.coreos.com/v1 PrometheusRule": `${PROMETHEUS}PrometheusRule`,
};

/** A view of a value that notes which fields are read, in `read` by object. */
function watched(value, read) {
  if (typeof value !== "object" || value === null) return value;
  const keys = new Set();
  read.set(value, keys);
  const below = new Map();
  const child = (key) => {
    if (!below.has(key)) below.set(key, watched(value[key], read));
    return below.get(key);
  };
  return new Proxy(value, {
    get(target, key) {
      keys.add(key);
      return Object.hasOwn(target, key) ? child(key) : target[key];
    },
    // Who lists the fields takes any: it is a map.
    ownKeys(target) {
      Object.keys(target).forEach((key) => keys.add(key));
      return Reflect.ownKeys(target);
    },
  });
}

/** The paths below a value that nobody has read. */
function unread(value, path, read) {
  if (typeof value !== "object" || value === null) return [];
  const keys = read.get(value);
  // A schema that looks at no field takes any object.
  if (!keys?.size) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const here = `${path}/${key}`;
    return keys.has(key) ? unread(inner, here, read) : [`${here}: no such field`];
  });
}

async function problems(object) {
  const kind = `${object.apiVersion} ${object.kind}`;
  if (!SCHEMAS[kind]) return [`${kind}: there is no schema`];
  const file = new URL(`node_modules/@kubernetes-models/${SCHEMAS[kind]}.js`, import.meta.url);
  const { validate } = await import(file);
  const read = new Map();
  validate(watched(object, read));
  const wrong = (validate.errors ?? []).map((error) => `${error.instancePath}: ${error.keyword} ${JSON.stringify(error.params)}`);
  return [...new Set([...wrong, ...unread(object, "", read)])];
}

const answers = [];
for (const object of JSON.parse(readFileSync(0, "utf8"))) answers.push(await problems(object));
process.stdout.write(JSON.stringify(answers));
