// Stock socket.io-clients, unchanged, of an edge that has more than its share. They come back by themselves, as a
// load balancer would lead them: to the other edge.
// Usage: node shed.mjs http://full http://fresh moves|stays     (the fresh edge may come after "the edge is full")

import { io } from "socket.io-client";
import { check, equal, finish, truth, within } from "./check.mjs";

const [full, fresh, expected] = process.argv.slice(2);
if (!expected) throw new Error("usage: node shed.mjs http://full http://fresh moves|stays");
const [FULL, FRESH] = [130, 70];
const TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]];
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** When clients were cut off, and how it went on. */
const cuts = [];

function client(number, url) {
  const transports = TRANSPORTS[number % TRANSPORTS.length];
  const options = { transports, forceNew: true, auth: { room: "r" }, reconnectionDelay: 200, reconnectionDelayMax: 1000 };
  const socket = io(url, options);
  const seen = [];
  socket.on("message", (line) => {
    if (String(line).startsWith("ada:")) seen.push(Number(line.slice(4)));
  });
  socket.on("disconnect", (reason) => {
    const cut = { at: Date.now(), reason, number };
    cuts.push(cut);
    socket.io.uri = url === full ? fresh : full;
    cut.back = new Promise((resolve) => socket.once("connect", () => resolve(socket.recovered)));
  });
  const connected = new Promise((resolve) => socket.once("connect", resolve));
  return { socket, seen, connected };
}

const clients = Array.from({ length: FULL }, (_, number) => client(number, full));
await within(Promise.all(clients.map((one) => one.connected)), "the full edge's clients", 60_000);
console.log("the edge is full");
clients.push(...Array.from({ length: FRESH }, (_, number) => client(number, fresh)));
await within(Promise.all(clients.map((one) => one.connected)), "the fresh edge's clients", 60_000);

const writer = clients.at(-1).socket;
const emit = (...args) => within(new Promise((resolve) => writer.emit(...args, resolve)), args[0], 30_000);
let written = 0;
await check("a writer has its name", async () => equal((await emit("set_username", "ada")).ok, true));
await check("every message is acknowledged", async () => {
  const begin = Date.now();
  // Longer than an edge waits before it begins; then until the last one has long been cut off.
  while (Date.now() < begin + (expected === "moves" && cuts.length === 0 ? 90_000 : 30_000) || Date.now() < (cuts.at(-1)?.at ?? 0) + 12_000) {
    equal((await emit("message", String(written + 1))).ok, true);
    written += 1;
    await sleep(100);
    if (Date.now() > begin + 180_000) throw new Error("they do not come to rest");
  }
});
if (expected === "stays") {
  await check("nobody is cut off", async () => equal(cuts, []));
} else {
  await check("the excess is cut off, slowly", async () => {
    // 130 and 70: what is above 105, and at most 1 % a second of 130.
    console.log(`${cuts.length} were cut off in ${cuts.at(-1).at - cuts[0].at} ms`);
    truth(cuts.length >= 22 && cuts.length <= 28, `${cuts.length} were cut off`);
    truth(cuts.at(-1).at - cuts[0].at >= 15_000, `within ${cuts.at(-1).at - cuts[0].at} ms`);
    truth(cuts.every((cut) => cut.number < FULL && cut.reason === "transport close"), JSON.stringify(cuts));
    equal(new Set(cuts.map((cut) => cut.number)).size, cuts.length, "how many were cut off once");
  });
  await check("their sessions continue", async () => {
    const back = await within(Promise.all(cuts.map((cut) => cut.back)), "those who come back");
    truth(back.every((recovered) => recovered), `${back.filter((recovered) => !recovered).length} begin anew`);
  });
}
await check("everybody hears every message once and in order", async () => {
  await within((async () => {
    while (clients.some((one) => one.seen.length < written)) await sleep(50);
  })(), "the last message", 30_000).catch(() => {});
  const all = JSON.stringify(Array.from({ length: written }, (_, n) => n + 1));
  const wrong = clients.filter((one) => JSON.stringify(one.seen) !== all);
  equal(wrong.map((one) => one.seen.length), [], `of ${written} messages, what the others heard`);
});
finish();
