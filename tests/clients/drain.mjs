// Stock socket.io-clients, unchanged, of an edge that stops.
// Usage: node drain.mjs http://stopping http://staying     (the first edge is to stop after "the edge may stop")

import { check, equal, finish, truth, within } from "./check.mjs";
import { TRANSPORTS, client, cuts, hearAll, sessionsContinue, sleep } from "./movers.mjs";

const [stopping, staying] = process.argv.slice(2);
if (!staying) throw new Error("usage: node drain.mjs http://stopping http://staying");
const EACH = 5;
const leavers = Array.from({ length: EACH * TRANSPORTS.length }, (_, number) => client(number, stopping, staying));
const writer = client(0, staying, staying);
const everybody = [...leavers, writer];
await within(Promise.all(everybody.flatMap((one) => [one.connected, one.upgraded])), "everybody", 60_000);

const emit = (...args) => within(new Promise((resolve) => writer.socket.emit(...args, resolve)), args[0], 30_000);
let written = 0;
async function write() {
  equal((await emit("message", String(written + 1))).ok, true);
  written += 1;
}
await check("a writer has its name", async () => equal((await emit("set_username", "ada")).ok, true));
await check("a message before it", write);
console.log("the edge may stop");

await check("every message is acknowledged, until the last client is cut off", async () => {
  const begin = Date.now();
  while (cuts.length < leavers.length) {
    await write();
    await sleep(20);
    if (Date.now() > begin + 60_000) throw new Error(`${cuts.length} of ${leavers.length} are cut off`);
  }
});
await check("each is cut off once, as by a broken transport: no goodbye, after which it would stay away", async () => {
  const numbers = cuts.map((cut) => cut.number).sort((a, b) => a - b);
  equal(numbers, leavers.map((_, number) => number), "who was cut off");
  for (const { number, reason } of cuts) {
    // Who polls may also find that the process has ended.
    const due = TRANSPORTS[number % TRANSPORTS.length].includes("websocket") ? ["transport close"] : ["transport close", "transport error"];
    truth(due.includes(reason), `${number}: ${reason}`);
  }
});
await check("they come back by themselves, and their sessions continue", sessionsContinue);
await check("a message after it", write);
await check("everybody hears every message once and in order", () => hearAll(everybody, written));
finish();
