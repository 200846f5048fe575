// Plaza's own protocol in JSON, raw on a WebSocket, over two edges.
// Usage: node plaza.mjs http://edge-a http://edge-b

import WebSocket from "ws";
import { Inbox, check, equal, finish, truth, within } from "./check.mjs";

const edges = process.argv.slice(2);
if (edges.length !== 2) throw new Error("usage: node plaza.mjs http://edge-a http://edge-b");

class Client {
  #id = 0;

  static async open(base, hello = {}) {
    const client = new Client();
    client.ws = new WebSocket(`${base.replace("http", "ws")}/ws`, ["plaza.v1.json"]);
    client.closed = new Promise((resolve) => client.ws.on("close", (code) => resolve(code)));
    client.frames = new Inbox(client.ws, "frame");
    client.ws.on("message", (data, isBinary) => client.ws.emit("frame", isBinary ? data : JSON.parse(data)));
    await within(new Promise((resolve, reject) => client.ws.on("open", resolve).on("error", reject)), "the WebSocket");
    client.welcome = (await client.ask({ hello })).welcome;
    return client;
  }

  send(frame) {
    this.ws.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** Sends a frame with an id and waits for its answer. Events that come before it are passed over. */
  async ask(frame) {
    const id = (this.#id += 1);
    this.send({ id, ...frame });
    return (await this.frames.next(`the answer to ${JSON.stringify(frame)}`, (answer) => answer.id === id))[0];
  }

  async event(what, wanted) {
    return (await this.frames.next(what, (frame) => frame.event && wanted(frame.event)))[0].event;
  }
}

const room = `plaza-${process.pid}`;
let ada, bo;
await check("hello is welcomed", async () => {
  [ada, bo] = [await Client.open(edges[0], { locale: "zh" }), await Client.open(edges[1])];
  truth(ada.welcome.sessionId.length === 20, `a session id: ${JSON.stringify(ada.welcome)}`);
  truth(ada.welcome.maxMessageBytes > 0 && ada.welcome.pingIntervalMs > 0, "the limits");
});
if (!bo) finish();
await check("the subprotocol is named", async () => equal(ada.ws.protocol, "plaza.v1.json"));
await check("names and rooms", async () => {
  equal((await ada.ask({ setUsername: { username: "ada" } })).ok.username, "ada");
  equal((await bo.ask({ setUsername: { username: "bo" } })).ok.username, "bo");
  for (const client of [ada, bo]) {
    const { joined } = await client.ask({ join: { room } });
    equal(joined.room, room);
    truth(joined.position.length > 0, "a position");
  }
});
await check("a published text reaches both edges with one id and position", async () => {
  const { published } = await ada.ask({ publish: { room, text: "你好", clientId: "one" } });
  const seen = await bo.event("the event", (event) => event.text === "你好");
  equal([seen.kind, seen.username, seen.id, seen.position], ["text", "ada", published.id, published.position]);
  truth(Number.isInteger(seen.at), "its time is a number");
  const again = (await ada.ask({ publish: { room, text: "你好", clientId: "one", retry: true } })).published;
  equal([again.duplicate, again.id, again.position], [true, published.id, published.position]);
});
await check("each event names the one before it", async () => {
  for (const text of ["a", "b", "c"]) await ada.ask({ publish: { room, text } });
  // Who came may be told between the texts: it has a place in the order as they have.
  let last = null;
  const texts = [];
  while (texts.length < 3) {
    const event = await bo.event("the next event of the room", (event) => event.room === room);
    if (last) equal(event.previous, last.position, `what ${JSON.stringify(event)} follows`);
    last = event;
    if (event.text) texts.push(event.text);
  }
  equal(texts, ["a", "b", "c"]);
});
await check("typing, who and history", async () => {
  ada.send({ typing: { room } });
  const [frame] = await bo.frames.next("typing", (frame) => frame.typing);
  equal(frame.typing, { room, username: "ada" });
  const { history } = await bo.ask({ history: { room, limit: 10 } });
  // Who came may be told between the texts, or behind them.
  equal(history.events.flatMap((event) => event.text ?? []).slice(-2), ["b", "c"]);
  equal((await bo.ask({ history: { room, limit: 1 } })).history.more, true);
  const { presence } = await bo.ask({ who: { room } });
  equal(presence.room, room);
});
await check("what came meanwhile is replayed by position", async () => {
  const { joined } = await bo.ask({ join: { room: `${room}-2` } });
  await bo.ask({ leave: { room: `${room}-2` } });
  await ada.ask({ join: { room: `${room}-2` } });
  for (const text of ["x", "y"]) await ada.ask({ publish: { room: `${room}-2`, text } });
  const back = (await bo.ask({ join: { room: `${room}-2`, after: joined.position } })).joined;
  equal(back.recovered, true);
  for (const text of ["x", "y"]) equal((await bo.event(text, (event) => event.kind === "text")).text, text);
});
await check("errors have a code and a sentence, and the connection stays", async () => {
  for (const [frame, code] of [
    [{ publish: { room: `${room}-never`, text: "x" } }, "not_joined"],
    [{ publish: { room, text: "" } }, "bad_text"],
    [{ join: { room: "no spaces" } }, "bad_room"],
    [{ setUsername: { username: "" } }, "bad_username"],
    [{ hello: {} }, "bad_request"],
    [{ somethingElse: {} }, "bad_request"],
  ]) {
    const { error } = await ada.ask(frame);
    equal(error?.code, code, JSON.stringify(frame));
    truth(error.message.length > 0, "a sentence");
  }
});
await check("a session continues at another edge by its ticket, with its name, and each room by its position", async () => {
  const first = await Client.open(edges[0]);
  await first.ask({ setUsername: { username: "cy" } });
  const { joined } = await first.ask({ join: { room } });
  first.ws.close();
  await first.closed;
  await ada.ask({ publish: { room, text: "while away" } });
  const again = await Client.open(edges[1], { resume: first.welcome.ticket });
  const { resumed, sessionId, userId, username } = again.welcome;
  equal([resumed, sessionId, userId, username], [true, first.welcome.sessionId, first.welcome.userId, "cy"]);
  equal((await again.ask({ join: { room, after: joined.position } })).joined.recovered, true);
  await again.event("what was missed", (event) => event.text === "while away");
  // While it still has a connection: the newer one wins.
  const newer = await Client.open(edges[0], { resume: again.welcome.ticket });
  equal([newer.welcome.resumed, newer.welcome.sessionId], [true, sessionId]);
  equal(await within(again.closed, "the end of the older one"), 1000);
  newer.ws.close();
});
await check("a ticket that is not ours, or was changed, is a new session", async () => {
  const { ticket, sessionId } = ada.welcome;
  const changed = ticket.slice(0, 40) + (ticket[40] === "A" ? "B" : "A") + ticket.slice(41);
  for (const resume of ["", "x", changed, `${ticket}${ticket}`]) {
    const client = await Client.open(edges[1], { resume });
    equal([client.welcome.resumed ?? false, client.welcome.sessionId === sessionId], [false, false], `resume ${resume}`);
    client.ws.close();
  }
});
await check("a binary message is closed with 1003", async () => {
  const client = await Client.open(edges[0]);
  client.ws.send(Buffer.from([1, 2, 3]));
  equal(await within(client.closed, "the close"), 1003);
});
await check("no known subprotocol is refused before the upgrade", async () => {
  const ws = new WebSocket(`${edges[0].replace("http", "ws")}/ws`, ["plaza.v9.xml"]);
  const status = await within(new Promise((resolve) => ws.on("unexpected-response", (_, answer) => resolve(answer.statusCode)).on("error", () => {})), "the refusal");
  equal(status, 400);
});
await check("who leaves is announced", async () => {
  ada.ws.close(1000);
  await bo.event("left", (event) => event.kind === "left" && event.username === "ada");
});
bo.ws.close();
finish();
