// Connection state recovery with the stock socket.io-client, unchanged, over two edges.
// Usage: node recovery.mjs http://edge-a http://edge-b pid-of-edge-a   (the last check kills edge a)

import { io } from "socket.io-client";
import { Inbox, check, equal, finish, truth, within } from "./check.mjs";

const [edgeA, edgeB, victim] = process.argv.slice(2);
if (!victim) throw new Error("usage: node recovery.mjs http://edge-a http://edge-b pid-of-edge-a");
const WELCOME = "您已进入聊天室!";

let rooms = 0;
const newRoom = () => `recovery-${process.pid}-${(rooms += 1)}`;
const once = (emitter, event, what) => within(new Promise((resolve) => emitter.once(event, resolve)), what);

/** A stock client that comes back only when it is told to. Its room events are kept with their offsets. */
class Client {
  constructor(edge, transports, auth) {
    this.socket = io(edge, { transports, auth, forceNew: true, reconnection: false });
    this.lines = new Inbox(this.socket, "message");
    this.attempt = this.outcome();
  }

  static async open(edge, transports, auth) {
    const client = new Client(edge, transports, auth);
    await client.attempt;
    await client.lines.next("the welcome", (line) => line === WELCOME);
    return client;
  }

  outcome() {
    return within(
      new Promise((resolve, reject) => {
        this.socket.once("connect", resolve);
        this.socket.once("connect_error", reject);
      }),
      "a connection",
    );
  }

  /** Breaks the connection as a network does, or closes the transport as the engine does. */
  async cut(hard = true) {
    const gone = once(this.socket, "disconnect", "the disconnect");
    const { transport } = this.socket.io.engine;
    if (hard && transport.ws) transport.ws.terminate();
    else this.socket.io.engine.close();
    await gone;
  }

  /** Connects again, to this edge. */
  async back(edge) {
    this.socket.io.uri = edge;
    const connected = this.outcome();
    this.socket.connect();
    await connected;
    return this.socket.recovered;
  }

  /** The next `count` lines of others, none skipped. */
  async texts(count) {
    const texts = [];
    for (let n = 0; n < count; n += 1) texts.push((await this.lines.next(`line ${n + 1} of ${count}`))[0]);
    return texts;
  }

  emit(...args) {
    return within(new Promise((resolve) => this.socket.emit(...args, resolve)), `the acknowledgement of ${args[0]}`);
  }

  async say(...texts) {
    for (const text of texts) equal((await this.emit("message", text)).ok, true, `ok of ${text}`);
  }

  close() {
    this.socket.disconnect();
  }
}

/** Somebody with a name who writes, and does not count what it hears. */
async function writer(edge, room) {
  const client = await Client.open(edge, ["websocket"], { room });
  equal((await client.emit("set_username", "ada")).ok, true);
  return client;
}

for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
  const step = (name, body) => check(`${transports}: ${name}`, body);
  const setUp = async (count = 1) => {
    const names = Array.from({ length: count }, newRoom);
    const reader = await Client.open(edgeA, transports, { room: names[0] });
    for (const room of names.slice(1)) equal((await reader.emit("join", room)).ok, true);
    const writers = [];
    for (const room of names) writers.push(await writer(edgeB, room));
    const close = () => [reader, ...writers].forEach((client) => client.close());
    return { reader, ada: writers[0], writers, room: names[0], close };
  };

  await step("R1 and R2: what was missed comes once and in order, under the old sid", async () => {
    const { reader, ada, close } = await setUp();
    const sid = reader.socket.id;
    await ada.say("one");
    const [line, offset] = await reader.lines.next("one");
    equal([line, typeof offset, offset.length], ["ada:one", "string", 30]);
    await reader.cut();
    await ada.say("two", "three");
    equal(await reader.back(edgeB), true, "recovered");
    equal(reader.socket.id, sid, "the sid");
    await ada.say("four");
    equal(await reader.texts(3), ["ada:two", "ada:three", "ada:four"]);
    equal((await reader.emit("set_username", "bo")).ok, true, "a wish after it");
    equal((await reader.lines.next("a line for one client"))[1], null, "its last argument");
    close();
  });
  await step("R4: without an offset from where the session began, and an older one counts as none", async () => {
    const { reader, ada, close } = await setUp();
    equal(reader.socket._lastOffset, undefined, "an offset");
    await reader.cut(false);
    await ada.say("first");
    equal(await reader.back(edgeB), true, "recovered without an offset");
    equal(await reader.texts(1), ["ada:first"]);
    reader.socket.disconnect();
    await ada.say("while away for good");
    equal(await reader.back(edgeA), false, "recovered after a disconnect (R12)");
    await reader.lines.next("the welcome", (line) => line === WELCOME);
    await reader.cut();
    await ada.say("second");
    equal(await reader.back(edgeB), true, "recovered with an offset of an earlier pid");
    equal(await reader.texts(1), ["ada:second"]);
    close();
  });
  await step("R5: what is too much begins anew, without a replay", async () => {
    const { reader, ada, close } = await setUp();
    const [sid, pid] = [reader.socket.id, reader.socket._pid];
    await reader.cut();
    for (let n = 0; n < 51; n += 1) {
      await Promise.all(Array.from({ length: 20 }, (_, m) => ada.say(`flood ${n}.${m}`)));
    }
    equal(await reader.back(edgeB), false, "recovered");
    truth(reader.socket.id !== sid && reader.socket._pid !== pid, "a new sid and pid");
    equal(await reader.texts(1), [WELCOME]);
    await ada.say("after");
    equal(await reader.texts(1), ["ada:after"]);
    close();
  });
  await step("R6: what is no pid or offset of ours is an ordinary session", async () => {
    const { reader, ada, close } = await setUp();
    for (const [pid, offset] of [
      ["nothing", undefined],
      ["AAAAAAAAAAAAAAAAAAAA", undefined],
      [reader.socket._pid, "some text"],
      [5, 7],
    ]) {
      await reader.cut();
      Object.assign(reader.socket, { _pid: pid, _lastOffset: offset });
      equal(await reader.back(edgeB), false, `recovered with ${pid} and ${offset}`);
      await reader.lines.next("the welcome", (line) => line === WELCOME);
    }
    await ada.say("still here");
    const [, offset] = await reader.lines.next("the line");
    // An offset behind the end of the log: one that this server has never given out.
    const bytes = Buffer.from(offset, "base64url");
    bytes.writeUInt32BE(0x7fff_ffff, 10);
    await reader.cut();
    reader.socket._lastOffset = bytes.toString("base64url");
    equal(await reader.back(edgeA), false, "recovered from the future");
    close();
  });
  await step("R8: the newer connection wins, and the old one is closed", async () => {
    for (const edge of [edgeA, edgeB]) {
      const { reader, ada, room, close } = await setUp();
      const sid = reader.socket.id;
      const gone = once(reader.socket, "disconnect", "the end of the old connection");
      const second = new Client(edge, transports, { room });
      Object.assign(second.socket, { _pid: reader.socket._pid, _lastOffset: reader.socket._lastOffset });
      await second.attempt;
      equal([second.socket.recovered, second.socket.id], [true, sid], "the newer one");
      equal((await gone).startsWith("transport"), true, "not told to stay away");
      await ada.say("for the newer one");
      equal(await second.texts(1), ["ada:for the newer one"]);
      second.close();
      close();
    }
  });
  await step("R9: any number of times, also with nothing received", async () => {
    const { reader, ada, close } = await setUp();
    const sid = reader.socket.id;
    for (let n = 0; n < 4; n += 1) {
      await reader.cut(n % 2 === 0);
      equal(await reader.back(n % 2 === 0 ? edgeB : edgeA), true, `recovered, time ${n}`);
    }
    await reader.cut();
    await ada.say("at last");
    equal(await reader.back(edgeA), true, "recovered");
    equal([await reader.texts(1), reader.socket.id], [["ada:at last"], sid]);
    close();
  });
  await step("R3: several rooms come back together, in one order", async () => {
    const { reader, writers, close } = await setUp(3);
    await writers[1].say("before");
    equal(await reader.texts(1), ["ada:before"]);
    await reader.cut();
    const expected = [];
    for (let n = 0; n < 30; n += 1) {
      await writers[n % 3].say(`${n}`);
      expected.push(`ada:${n}`);
    }
    equal(await reader.back(edgeB), true, "recovered");
    equal(await reader.texts(30), expected);
    for (const one of writers) await one.say("live");
    equal(await reader.texts(3), ["ada:live", "ada:live", "ada:live"]);
    close();
  });
  await step("R11: live events follow a replay without gap, repeat or reorder", async () => {
    const { reader, ada, close } = await setUp();
    const seen = [];
    reader.socket.on("message", (line) => seen.push(line));
    const total = 300;
    const flood = (async () => {
      for (let n = 0; n < total; n += 1) await ada.say(`${n}`);
    })();
    for (let n = 0; n < 6; n += 1) {
      await once(reader.socket, "message", "a line");
      await reader.cut(n % 3 !== 0);
      equal(await reader.back(n % 2 === 0 ? edgeB : edgeA), true, `recovered, time ${n}`);
    }
    await flood;
    await reader.lines.next("the last line", (line) => line === `ada:${total - 1}`);
    equal(seen, Array.from({ length: total }, (_, n) => `ada:${n}`), "what was seen");
    close();
  });
  await step("R13: a pid belongs to its user", async () => {
    const room = newRoom();
    const [own, other] = ["A".repeat(22), "A".repeat(20) + "QA"];
    const reader = await Client.open(edgeA, transports, { room, guest: own });
    await reader.cut();
    equal(await reader.back(edgeB), true, "recovered");
    await reader.cut();
    reader.socket.auth = { room, guest: other };
    equal(await reader.back(edgeA), false, "recovered by another user");
    reader.close();
  });
}

await check("R10: on polling the missed events lead, and CONNECT ends their one body", async () => {
  const room = newRoom();
  const [reader, ada] = [await Client.open(edgeA, ["polling"], { room }), await writer(edgeB, room)];
  const { _pid: pid } = reader.socket;
  await reader.cut();
  await ada.say("a", "b");
  const base = `${edgeB}/socket.io/?EIO=4&transport=polling`;
  const { sid } = JSON.parse((await (await fetch(base)).text()).slice(1));
  const waiting = fetch(`${base}&sid=${sid}`);
  await fetch(`${base}&sid=${sid}`, { method: "POST", body: `40{"pid":"${pid}"}` });
  const packets = (await (await waiting).text()).split("\x1e");
  const begins = ['42["message","ada:a",', '42["message","ada:b",', '40{"sid":"'];
  truth(packets.length === 3 && begins.every((begin, n) => packets[n].startsWith(begin)), `CONNECT last: ${packets}`);
  truth(packets[2].endsWith(`"pid":"${pid}"}`), "the same pid");
  ada.close();
});
await check("R10: on WebSocket CONNECT leads", async () => {
  const room = newRoom();
  const [reader, ada] = [await Client.open(edgeA, ["websocket"], { room }), await writer(edgeB, room)];
  await reader.cut();
  await ada.say("a");
  const order = [];
  reader.socket.io.once("open", () => reader.socket.io.engine.on("data", (data) => order.push(String(data).slice(0, 2))));
  equal(await reader.back(edgeB), true, "recovered");
  await reader.texts(1);
  equal(order[0][0], "0", "the type of the first packet");
  reader.close();
  ada.close();
});
await check("R7: after kill -9 of the old edge, at the other one, at once", async () => {
  const readers = [];
  const room = newRoom();
  for (const transports of [["websocket"], ["polling"]]) readers.push(await Client.open(edgeA, transports, { room }));
  const ada = await writer(edgeB, room);
  await ada.say("before");
  for (const reader of readers) equal(await reader.texts(1), ["ada:before"]);
  const sids = readers.map((reader) => reader.socket.id);
  const gone = readers.map((reader) => once(reader.socket, "disconnect", "the end of the edge"));
  process.kill(Number(victim), "SIGKILL");
  await Promise.all(gone);
  await ada.say("meanwhile");
  for (const [n, reader] of readers.entries()) {
    equal(await reader.back(edgeB), true, "recovered");
    equal([await reader.texts(1), reader.socket.id], [["ada:meanwhile"], sids[n]]);
  }
  await ada.say("after");
  for (const reader of readers) {
    equal(await reader.texts(1), ["ada:after"]);
    reader.close();
  }
  ada.close();
});
finish();
