// The tutorial's chat and Plaza's additions, with the stock socket.io-client in two versions and on
// every transport, over two edges.
// Usage: node chat.mjs http://edge-a http://edge-b

import { createRequire } from "node:module";
import { io as current } from "socket.io-client";
import { Inbox, check, equal, finish, truth, within } from "./check.mjs";

const tutorial = createRequire(import.meta.url)("socket.io-client-tutorial").io;
const edges = process.argv.slice(2);
if (edges.length !== 2) throw new Error("usage: node chat.mjs http://edge-a http://edge-b");

const WELCOME = "您已进入聊天室!";
const NAME_FIRST = "发送消息失败:请先设置用户名。";

const emit = (socket, ...args) =>
  within(new Promise((resolve) => socket.emit(...args, resolve)), `the acknowledgement of ${args[0]}`);

/** A connected client with its line inbox, welcome not yet read. */
async function connect(io, base, transports, auth) {
  const socket = io(base, { transports, auth, forceNew: true, reconnection: false });
  const client = {
    socket,
    lines: new Inbox(socket, "message"),
    typing: new Inbox(socket, "typing"),
    emit: (...args) => emit(socket, ...args),
    line: (text) => client.lines.next(`the line ${text}`, (line) => line === text),
    close: () => socket.close(),
  };
  // Nobody connects again here: why a client hears nothing any more is told by the log.
  socket.on("disconnect", (reason) => {
    if (reason !== "io client disconnect") console.log(`a connection to ${base} was lost: ${reason}`);
  });
  await within(
    new Promise((resolve, reject) => {
      socket.on("connect", resolve);
      socket.on("connect_error", reject);
    }),
    `a connection to ${base}`,
  );
  return client;
}

/** A client with a name. */
async function named(io, base, transports, auth, name) {
  const client = await connect(io, base, transports, auth);
  await client.line(WELCOME);
  equal(await client.emit("set_username", name), { ok: true, username: name });
  await client.line(`您的用户名已设置为:${name}`);
  return client;
}

/** That an acknowledgement refuses, with a code and a sentence. */
function refused(ack, what, ...codes) {
  truth(ack && ack.ok === false, `${what} is refused: ${JSON.stringify(ack)}`);
  truth(typeof ack.code === "string" && typeof ack.message === "string" && ack.message.length > 0, `${what} has code and message`);
  if (codes.length > 0) truth(codes.includes(ack.code), `${what} gives ${ack.code}, expected ${codes.join(" or ")}`);
}

let rooms = 0;

async function scenario(title, io, transports) {
  const step = (name, body) => check(`${title}: ${name}`, body);
  const room = `room-${process.pid}-${(rooms += 1)}`;
  const auth = { room };
  let ada, bo;
  await step("two people on two edges are welcomed and named", async () => {
    ada = await named(io, edges[0], transports, auth, "ada");
    bo = await named(io, edges[1], transports, auth, "bo");
  });
  if (!ada || !bo) return;
  const clients = [ada, bo];

  await step("a message reaches everyone on every edge, the sender too", async () => {
    ada.socket.emit("message", "你好");
    for (const client of clients) await client.line("ada:你好");
  });
  await step("many messages from both edges arrive in one order", async () => {
    // Eight messages of a client may wait for the store at once; the ninth is told to wait.
    const [count, atOnce] = [64, 8];
    for (let n = 0; n < count; n += 2 * atOnce) {
      const burst = Array.from({ length: 2 * atOnce }, (_, i) => clients[i % 2].emit("message", `#${n + i}`));
      for (const ack of await Promise.all(burst)) equal(ack.ok, true, "a burst of eight");
    }
    const orders = [];
    for (const client of clients) {
      const order = [];
      while (order.length < count) {
        const [line] = await client.lines.next("a numbered line", (line) => /^(ada|bo):#\d+$/.test(line));
        order.push(line);
      }
      orders.push(order);
    }
    equal(orders[1], orders[0], "the order on the second edge");
    equal(new Set(orders[0]).size, count, "the number of different lines");
  });
  await step("an acknowledgement has ok, id and position", async () => {
    const ack = await ada.emit("message", "with an acknowledgement");
    equal(ack.ok, true);
    truth(typeof ack.id === "string" && ack.id.length > 0, "an id");
    truth(typeof ack.position === "string" && ack.position.length > 0, "a position");
    await bo.line("ada:with an acknowledgement");
  });
  await step("the same client id is stored once", async () => {
    const first = await ada.emit("message", { room, text: "once", id: "client-id-1" });
    const second = await ada.emit("message", { room, text: "once", id: "client-id-1", retry: true });
    equal([first.ok, second.ok], [true, true]);
    equal([second.id, second.position], [first.id, first.position], "the retry's id and position");
    await ada.emit("message", "after once");
    const [line] = await bo.lines.next("a line", (line) => line.startsWith("ada:"));
    equal(line, "ada:once");
    const [next] = await bo.lines.next("a line", (line) => line.startsWith("ada:"));
    equal(next, "ada:after once");
  });
  await step("a message before the name is refused with the tutorial's words", async () => {
    const nameless = await connect(io, edges[0], transports, auth);
    await nameless.line(WELCOME);
    nameless.socket.emit("message", "too early");
    await nameless.line(NAME_FIRST);
    refused(await nameless.emit("message", "too early"), "a message before the name", "username_required");
    nameless.close();
  });
  await step("rooms are joined and left", async () => {
    const other = `${room}-other`;
    const joined = await ada.emit("join", other);
    equal([joined.ok, joined.room], [true, other]);
    truth(typeof joined.position === "string", "the ack of join has a position");
    equal((await bo.emit("join", { room: other })).ok, true);
    equal((await ada.emit("message", { room: other, text: "over here" })).ok, true);
    await bo.line("ada:over here");
    equal((await bo.emit("leave", other)).ok, true);
    refused(await bo.emit("message", { room: other, text: "gone" }), "a message to a room that was left", "not_joined");
    equal((await ada.emit("leave", other)).ok, true);
  });
  await step("typing is told to the others only", async () => {
    ada.socket.emit("typing", { room });
    const [notice] = await bo.typing.next("typing");
    equal([notice.room, notice.username], [room, "ada"]);
    await ada.emit("message", "typed");
    await ada.line("ada:typed");
    equal(ada.typing.rest(), [], "what the sender heard of its own typing");
  });
  await step("history comes oldest first and in pages", async () => {
    const page = await bo.emit("history", { room, limit: 5 });
    equal([page.ok, page.events.length, page.more], [true, 5, true]);
    // Who came may be stored later than what was said meanwhile.
    const texts = page.events.filter((event) => event.text !== undefined);
    equal(texts.at(-1).text, "typed");
    truth(page.events.every((event, n) => n === 0 || event.at >= page.events[n - 1].at), "oldest first");
    const before = await bo.emit("history", { room, before: page.events[0].position, limit: 3 });
    equal([before.ok, before.events.length], [true, 3]);
    truth(!page.events.some((event) => before.events.some((other) => other.id === event.id)), "pages do not overlap");
  });
  await step("who lists the people of both edges", async () => {
    for (let tries = 0; ; tries += 1) {
      const who = await ada.emit("who", { room });
      equal(who.ok, true);
      const names = who.members.map((member) => member.username).sort();
      if (who.count === 2 && JSON.stringify(names) === '["ada","bo"]') break;
      // Counts follow within moments and gate nothing: ask again.
      truth(tries < 50, `who says ${JSON.stringify(who)}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });
  await step("empty, too large and unknown input gets a clear error and disturbs nobody", async () => {
    refused(await ada.emit("message", ""), "an empty message", "bad_text");
    refused(await ada.emit("set_username", ""), "an empty name", "bad_username");
    refused(await ada.emit("set_username", "x".repeat(33)), "a name of 33 characters", "bad_username");
    refused(await ada.emit("message", "x".repeat(5_000)), "a text of 5,000 bytes", "too_large");
    refused(await ada.emit("join", "no spaces allowed"), "a bad room name", "bad_room");
    refused(await ada.emit("no_such_event", 1), "an unknown event");
    refused(await ada.emit("history", { room: `${room}-never-joined` }), "history of a room not joined", "not_joined");
    await ada.emit("message", "still here");
    await bo.line("ada:still here");
  });
  await step("a disconnect is announced once", async () => {
    bo.lines.rest();
    ada.close();
    await bo.line("ada 已离开聊天室。");
    await bo.emit("message", "alone");
    await bo.line("bo:alone");
    const again = bo.lines.rest().filter(([line]) => line.includes("已离开"));
    equal(again, [], "more announcements");
  });
  bo.close();
}

await scenario("4.0.1 websocket", tutorial, ["websocket"]);
await scenario("4.0.1 as in the tutorial's page", tutorial, ["websocket", "polling"]);
await scenario("current websocket", current, ["websocket"]);
await scenario("current polling", current, ["polling"]);
await scenario("4.0.1 polling", tutorial, ["polling"]);
await scenario("current upgrade", current, ["polling", "websocket"]);
await scenario("4.0.1 upgrade", tutorial, ["polling", "websocket"]);
await check("the upgrade really takes place", async () => {
  const client = await connect(current, edges[0], ["polling", "websocket"], { room: null });
  const engine = client.socket.io.engine;
  if (engine.transport.name !== "websocket") {
    await within(new Promise((resolve) => engine.once("upgrade", resolve)), "the upgrade");
  }
  equal(engine.transport.name, "websocket");
  client.close();
});
await check("event format and English", async () => {
  const room = `room-${process.pid}-event`;
  const reader = await connect(current, edges[0], ["websocket"], { room, format: "event", locale: "en" });
  const events = { joined: new Inbox(reader.socket, "joined"), left: new Inbox(reader.socket, "left") };
  const writer = await named(current, edges[1], ["websocket"], { room }, "cy");
  const [joined] = await events.joined.next("joined", (event) => event.username === "cy");
  equal(joined.room, room);
  await writer.emit("message", "structured");
  const [message] = await reader.lines.next("an object", (line) => typeof line === "object");
  equal([message.room, message.username, message.text], [room, "cy", "structured"]);
  truth(typeof message.id === "string" && typeof message.position === "string" && Number.isInteger(message.at), "id, position and time");
  writer.close();
  const [left] = await events.left.next("left");
  equal(left.username, "cy");
  reader.close();
});
finish();
