// Messages over two edges with the stock socket.io-client, each of which asks for its trace and prints it.
// Usage: node traced.mjs http://edge-a http://edge-b COUNT

import { io } from "socket.io-client";
import { Inbox, check, finish, truth, within } from "./check.mjs";

const [first, second, count] = process.argv.slice(2);
if (!(count > 0)) throw new Error("usage: node traced.mjs http://edge-a http://edge-b COUNT");

async function enter(base, name) {
  const socket = io(base, { transports: ["websocket"], auth: { room: "traced" }, forceNew: true, reconnection: false });
  const lines = new Inbox(socket, "message");
  const connected = new Promise((resolve, reject) => socket.on("connect", resolve).on("connect_error", reject));
  await within(connected, `a connection to ${base}`);
  const ask = (...args) => within(new Promise((resolve) => socket.emit(...args, resolve)), `the answer to ${args[0]}`);
  truth((await ask("set_username", name)).ok, `the name ${name}`);
  return { ask, lines };
}

await check("each message has a trace, and arrives on the other edge", async () => {
  const [ada, bo] = [await enter(first, "ada"), await enter(second, "bo")];
  for (let n = 0; n < count; n += 1) {
    const ack = await ada.ask("message", { room: "traced", text: `#${n}`, trace: true });
    truth(/^[0-9a-f]{32}$/.test(ack.plaza_trace), `a trace in ${JSON.stringify(ack)}`);
    console.log(`trace ${ack.plaza_trace}`);
    await bo.lines.next(`line ${n}`, (line) => line === `ada:#${n}`);
  }
});
finish();
