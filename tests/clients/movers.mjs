// Stock socket.io-clients, unchanged, that an edge sends away while somebody writes. They come back by themselves, as a
// load balancer would lead them: to the other edge.

import { io } from "socket.io-client";
import { equal, truth, within } from "./check.mjs";

export const TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]];
export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** When clients were cut off, and how it went on. */
export const cuts = [];

/** A client of the edge `url`, which comes back at the edge `other`. */
export function client(number, url, other) {
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
    socket.io.uri = socket.io.uri === url ? other : url;
    cut.back = new Promise((resolve) => socket.once("connect", () => resolve(socket.recovered)));
  });
  const connected = new Promise((resolve) => socket.once("connect", resolve));
  // Where it begins with polling: the end of the upgrade.
  const upgraded = new Promise((resolve) => {
    if (transports.length === 1) return resolve();
    socket.io.once("open", () => socket.io.engine.once("upgrade", resolve));
  });
  return { socket, seen, connected, upgraded };
}

/** Everybody who was cut off continues the same session. */
export async function sessionsContinue() {
  const back = await within(Promise.all(cuts.map((cut) => cut.back)), "those who come back");
  truth(back.every((recovered) => recovered), `${back.filter((recovered) => !recovered).length} begin anew`);
}

/** Everybody hears all messages, which are numbers, once and in order. */
export async function hearAll(clients, written) {
  await within((async () => {
    while (clients.some((one) => one.seen.length < written)) await sleep(50);
  })(), "the last message", 30_000).catch(() => {});
  const all = JSON.stringify(Array.from({ length: written }, (_, n) => n + 1));
  const wrong = clients.filter((one) => JSON.stringify(one.seen) !== all);
  equal(wrong.map((one) => one.seen.length), [], `of ${written} messages, what the others heard`);
}
