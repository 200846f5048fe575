// Stock socket.io-clients, unchanged, of an edge that has more than its share. They come back by themselves, as a
// load balancer would lead them: to the other edge.
// Usage: node shed.mjs http://full http://fresh moves|stays     (the fresh edge may come after "the edge is full")

import { check, equal, finish, truth, within } from "./check.mjs";
import { client, cuts, hearAll, sessionsContinue, sleep } from "./movers.mjs";

const [full, fresh, expected] = process.argv.slice(2);
if (!expected) throw new Error("usage: node shed.mjs http://full http://fresh moves|stays");
const [FULL, FRESH] = [130, 70];

const clients = Array.from({ length: FULL }, (_, number) => client(number, full, fresh));
await within(Promise.all(clients.map((one) => one.connected)), "the full edge's clients", 60_000);
console.log("the edge is full");
clients.push(...Array.from({ length: FRESH }, (_, number) => client(number, fresh, full)));
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
  await check("their sessions continue", sessionsContinue);
}
await check("everybody hears every message once and in order", () => hearAll(clients, written));
finish();
