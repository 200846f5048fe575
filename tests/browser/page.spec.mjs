// The chat page in two headless browsers, one on each of two edges that share their rooms.
//
//   node page.spec.mjs <base URL of edge 1> <base URL of edge 2>
//
// Needs `npm ci` in tests/clients and Chromium (/usr/bin/chromium, or CHROMIUM=path). Each page
// reaches its edge through a relay of this script, so that a connection can be cut at any byte.
// Prints `N passed, N failed`; the exit code is 1 when something failed.

import { strict as assert } from "node:assert";
import { createServer, connect } from "node:net";
import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../clients/", import.meta.url))("playwright-core");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const ARGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const WAIT_MS = 20_000;

/** A TCP relay to an edge for the pages of one browser: `cut()` breaks what is open and refuses what comes, `mend()` lets it pass. */
async function relay(target, browser) {
  const { hostname, port } = new URL(target);
  const open = new Set();
  let whole = true;
  const server = createServer((near) => {
    if (!whole) return near.destroy();
    const far = connect(Number(port), hostname);
    for (const [from, to] of [[near, far], [far, near]]) {
      open.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        open.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    browser,
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      whole = false;
      for (const socket of open) socket.destroy();
    },
    mend() {
      whole = true;
    },
  };
}

const complaints = [];

/**
 * A page of its own browser context, with what the tests do on it. `tab`: what its storage begins with;
 * `answer(frame)`: resolves to the answer
 * to a frame that is not to reach the edge, else to null.
 */
async function visitor(edge, room, { tab, answer, ...options } = {}) {
  const context = await edge.browser.newContext({ locale: "en-GB", viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("dialog", (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("pageerror", (error) => complaints.push(`error: ${error.stack}`));
  page.on("console", (message) => {
    if (/Content Security Policy|TrustedHTML|TrustedScript/i.test(message.text())) complaints.push(message.text());
  });
  if (tab) {
    await page.addInitScript((entries) => {
      if (sessionStorage.length === 0) for (const [key, value] of entries) sessionStorage.setItem(key, value);
    }, tab);
  }
  let server = null;
  if (answer) {
    await page.routeWebSocket(/\/ws$/, (socket) => {
      server = socket;
      const far = socket.connectToServer();
      socket.onMessage(async (text) => {
        const frame = JSON.parse(text);
        const body = await answer(frame);
        if (body) socket.send(JSON.stringify({ id: frame.id, ...body }));
        else far.send(text);
      });
    });
  }
  const sockets = [];
  page.on("websocket", (socket) => sockets.push(socket));
  await page.goto(`${edge.url}/#room=${room}`);
  await page.waitForSelector('#dot[data-state="online"]');
  return {
    page,
    context,
    sockets,
    tell: (frame) => server.send(JSON.stringify(frame)),
    end: (code) => server.close({ code }),
    async name(name) {
      if (await page.locator("#name-form").isHidden()) await page.click("#name-open");
      await page.fill("#name-field", name);
      await page.press("#name-field", "Enter");
      await page.waitForSelector("#name-form", { state: "hidden" });
    },
    async say(text) {
      await page.fill("#message-field", text);
      await page.press("#message-field", "Enter");
    },
    texts: () => page.$$eval(".message .text", (nodes) => nodes.map((node) => node.textContent)),
    sees: (text) => page.waitForFunction((wanted) =>
      [...document.querySelectorAll(".message:not(.waiting):not(.sending):not(.failed) .text")].some((node) => node.textContent === wanted), text),
    line: (text) => page.waitForFunction((wanted) =>
      [...document.querySelectorAll(".line-text")].some((node) => node.textContent.includes(wanted)), text),
    count: (text) => page.$$eval(".message .text", (nodes, wanted) => nodes.filter((node) => node.textContent === wanted).length, text),
  };
}

/** Waits until a condition of this script holds. */
async function until(what, holds) {
  for (const end = Date.now() + WAIT_MS; !holds(); ) {
    assert.ok(Date.now() < end, what);
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** The least contrast (WCAG) of texts that are on the screen with what is behind them: `[ratio, what]`. */
const leastContrast = (page) => page.evaluate(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => rgba(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const found = [...document.querySelectorAll("body *")]
    .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.closest(".unseen, .skip"))
    .filter((node) => [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim()))
    .map((node) => {
      const pair = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
      return [(pair[0] + 0.05) / (pair[1] + 0.05), node.className || node.id || node.tagName];
    });
  return found.sort(([a], [b]) => a - b)[0];
});

const unique = () => `t${Math.random().toString(36).slice(2, 10)}`;
const wide = (page) => page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);

const PAYLOADS = [
  "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<svg><script>alert(1)</script></svg>",
  "<iframe src=javascript:alert(1)>", "<a href=javascript:alert(1)>x</a>", "javascript:alert(1)", "<body onload=alert(1)>",
  "<input autofocus onfocus=alert(1)>", "<details open ontoggle=alert(1)>", "<video><source onerror=alert(1)>", "<math><mi xlink:href=javascript:alert(1)>",
  "\"><script>alert(1)</script>", "'><img src=x onerror=alert(1)>", "</p></li><script>alert(1)</script>", "</template><script>alert(1)</script>",
  "<!--<img src=\"--><img src=x onerror=alert(1)>\">", "<style>@import 'x'</style>", "<link rel=stylesheet href=x>", "<base href=//evil.example>",
  "<meta http-equiv=refresh content=0>", "<object data=x>", "<embed src=x>", "<form action=x><button>go</button></form>",
  "{{constructor.constructor('alert(1)')()}}", "${alert(1)}", "&lt;script&gt;alert(1)&lt;/script&gt;", "%3Cscript%3Ealert(1)%3C/script%3E",
  "http://a.example/\"onmouseover=alert(1)", "<marquee onstart=alert(1)>x</marquee>",
];

const tests = {
  async "two people on two edges set names, chat both ways, and see one order"({ one, two }) {
    const room = unique();
    const [a, b] = [await visitor(one, room), await visitor(two, room)];
    await a.name("Ada");
    await b.name("Bob");
    await a.line("Bob");
    await a.say("hello from one");
    await b.sees("hello from one");
    await b.say("hello from two");
    await a.sees("hello from two");
    for (let i = 0; i < 10; i += 1) await Promise.all([a.say(`a${i}`), b.say(`b${i}`)]);
    for (let i = 0; i < 10; i += 1) for (const who of [a, b]) await Promise.all([who.sees(`a${i}`), who.sees(`b${i}`)]);
    const [first, second] = [await a.texts(), await b.texts()];
    assert.deepEqual(first, second);
    assert.equal(first.length, 22);
    assert.deepEqual(first.filter((text) => /^a\d$/.test(text)), [...Array(10).keys()].map((i) => `a${i}`));
    return [a, b];
  },

  async "typing and who is here are seen by the other, and a leaver is told"({ one, two }) {
    const room = unique();
    const [a, b] = [await visitor(one, room), await visitor(two, room)];
    await a.name("Ada");
    await b.name("Bob");
    await a.page.waitForFunction(() => document.querySelectorAll("#people .avatar").length === 2);
    assert.match(await a.page.textContent("#present"), /^2 /);
    await b.page.locator("#message-field").pressSequentially("thinking");
    await a.page.waitForSelector("#typing.on");
    assert.equal(await a.page.textContent("#typing-text"), "Bob is typing…");
    await b.name("Robert");
    await a.line("Bob is now Robert");
    await b.context.close();
    await a.line("Robert left");
    await a.page.waitForFunction(() => document.querySelectorAll("#people .avatar").length === 1);
    return [a];
  },

  async "an empty name, an empty message and a message without a name are answered at the field"({ one }) {
    const a = await visitor(one, unique());
    await a.page.press("#name-field", "Enter");
    assert.equal(await a.page.textContent("#name-error"), "Please enter a name.");
    assert.equal(await a.page.getAttribute("#name-field", "aria-invalid"), "true");
    await a.page.fill("#name-field", "x".repeat(33));
    await a.page.press("#name-field", "Enter");
    assert.match(await a.page.textContent("#name-error"), /33 characters, at most 32/);
    await a.page.fill("#name-field", "");
    await a.page.press("#message-field", "Enter");
    assert.equal(await a.page.textContent("#message-error"), "Please type a message.");
    await a.say("kept until there is a name");
    assert.match(await a.page.textContent("#name-error"), /name first/);
    await a.name("Ada");
    assert.equal(await a.page.inputValue("#message-field"), "kept until there is a name");
    await a.page.press("#message-field", "Enter");
    await a.sees("kept until there is a name");
    await a.page.fill("#message-field", "汉".repeat(1366));
    assert.equal(await a.page.textContent("#message-count"), "4,098 / 4,096");
    await a.page.press("#message-field", "Enter");
    assert.match(await a.page.textContent("#message-error"), /4,098 of 4,096 bytes/);
    return [a];
  },

  async "older messages come on scrolling up and the place is kept"({ one, two }) {
    const room = unique();
    const a = await visitor(one, room);
    await a.name("Ada");
    for (let i = 0; i < 120; i += 1) {
      await a.say(`line ${i}`);
      if (i % 10 === 9) await a.sees(`line ${i}`);
    }
    const b = await visitor(two, room);
    await b.sees("line 119");
    assert.ok(!(await b.texts()).includes("line 20"));
    for (let i = 0; i < 20 && !(await b.texts()).includes("line 0"); i += 1) {
      const before = await b.page.evaluate(() => {
        const log = document.getElementById("log");
        log.scrollTop = 300;
        const top = log.getBoundingClientRect().top;
        const node = [...document.querySelectorAll(".message")].find((row) => row.getBoundingClientRect().top > top);
        return { text: node.querySelector(".text").textContent, top: node.getBoundingClientRect().top, rows: document.querySelectorAll(".message").length };
      });
      await b.page.waitForFunction((rows) => document.querySelectorAll(".message").length > rows || /beginning/.test(document.getElementById("older").textContent), before.rows);
      const top = await b.page.evaluate((text) => [...document.querySelectorAll(".message")].find((row) => row.querySelector(".text").textContent === text).getBoundingClientRect().top, before.text);
      assert.ok(Math.abs(top - before.top) < 60, `the row in view moved by ${top - before.top} px`);
    }
    assert.deepEqual(await b.texts(), [...Array(120).keys()].map((i) => `line ${i}`));
    await a.say("news");
    await b.page.waitForFunction(() => document.getElementById("pill-text").textContent === "1 new message");
    await b.page.click("#pill");
    await b.page.waitForSelector("#pill", { state: "hidden" });
    return [a, b];
  },

  async "what is written without a connection is sent once after it, in order, and nothing is missed"({ one, two }) {
    const room = unique();
    const [a, b] = [await visitor(one, room), await visitor(two, room)];
    await a.name("Ada");
    await b.name("Bob");
    await a.say("before");
    await b.sees("before");
    one.cut();
    await a.page.waitForSelector("#banner:not([hidden])");
    for (let i = 0; i < 5; i += 1) await a.say(`kept ${i}`);
    await a.page.waitForFunction(() => document.querySelectorAll(".message.waiting").length === 5);
    await b.say("meanwhile");
    await b.sees("meanwhile");
    one.mend();
    await a.sees("kept 4");
    await a.sees("meanwhile");
    await b.sees("kept 4");
    await a.page.waitForSelector("#banner", { state: "hidden" });
    for (const who of [a, b]) for (let i = 0; i < 5; i += 1) assert.equal(await who.count(`kept ${i}`), 1);
    assert.deepEqual((await b.texts()).filter((text) => text.startsWith("kept")), [0, 1, 2, 3, 4].map((i) => `kept ${i}`));
    assert.deepEqual(await a.texts(), await b.texts());
    return [a, b];
  },

  async "a connection that is cut while messages are under way doubles none"({ one, two }) {
    const room = unique();
    const [a, b] = [await visitor(one, room), await visitor(two, room)];
    await a.name("Ada");
    for (let round = 0; round < 4; round += 1) {
      await a.say(`round ${round}`);
      one.cut();
      await a.page.waitForSelector('#dot:not([data-state="online"])');
      one.mend();
      await a.page.evaluate(() => window.dispatchEvent(new Event("online")));
      await a.page.waitForSelector('#dot[data-state="online"]');
    }
    for (let round = 0; round < 4; round += 1) {
      for (const who of [a, b]) {
        await who.sees(`round ${round}`);
        assert.equal(await who.count(`round ${round}`), 1);
      }
    }
    await a.page.waitForFunction(() => sessionStorage.getItem("plaza.outbox") === null);
    return [a, b];
  },

  async "unsent messages and the name survive a reload"({ one, two }) {
    const room = unique();
    const told = new Map();
    // Only what the store may have forgotten is a marked retry: in a busy room it could be refused as expired.
    const answer = async ({ publish }) => {
      if (publish) told.set(publish.text, publish.retry);
      return null;
    };
    const [a, b] = [await visitor(one, room, { answer }), await visitor(two, room)];
    await a.name("Ada");
    await a.page.evaluate(() => {
      const entry = (n, text, tried) => ({ clientId: `survives-a-reload-000${n}`, room: document.getElementById("room-name").textContent, text, at: Date.now(), tried, tries: 0, state: "waiting" });
      const entries = [entry(1, "from long ago", Date.now() - 61_000), entry(2, "from before", Date.now() - 30_000), entry(3, "not sent yet", 0)];
      window.addEventListener("pagehide", () => sessionStorage.setItem("plaza.outbox", JSON.stringify(entries)));
    });
    await a.page.reload();
    for (const text of ["from long ago", "from before", "not sent yet"]) {
      for (const who of [a, b]) await who.sees(text);
      assert.equal(await b.count(text), 1);
    }
    assert.deepEqual([...told], [["from long ago", true], ["from before", undefined], ["not sent yet", undefined]]);
    return [a, b];
  },

  async "a duplicated tab gets a session of its own, and neither takes the other's"({ one, two }) {
    const room = unique();
    const a = await visitor(one, room);
    await a.name("Ada");
    const storage = () => Object.entries(sessionStorage);
    const b = await visitor(two, room, { tab: await a.page.evaluate(storage) });
    // The copy has taken the session over; the first tab comes back with another one.
    await until("the first tab connects again", () => a.sockets.length > 1);
    await a.page.waitForSelector('#dot[data-state="online"]');
    await a.say("from the first");
    await b.say("from the copy");
    for (const who of [a, b]) for (const text of ["from the first", "from the copy"]) await who.sees(text);
    const session = ({ page }) => page.evaluate(() => atob(JSON.parse(sessionStorage.getItem("plaza.ticket")).slice(0, 44).replaceAll("-", "+").replaceAll("_", "/")).slice(17, 32));
    assert.notEqual(await session(a), await session(b));
    assert.deepEqual([a.sockets.length, b.sockets.length], [2, 1]);
    return [a, b];
  },

  async "a name that cannot be taken now, or that the server has lost, is told again without asking the user"({ one, two }) {
    const room = unique();
    const refusals = { setUsername: 1, publish: 1, join: 1 };
    const codes = { setUsername: "unavailable", publish: "username_required", join: "unavailable" };
    const answer = (frame) => {
      const kind = Object.keys(refusals).find((name) => name in frame);
      if (!kind || refusals[kind] === 0) return null;
      refusals[kind] -= 1;
      return { error: { code: codes[kind], message: "not now" } };
    };
    const a = await visitor(one, room, { answer, tab: [["plaza.name", '"Ada"']] });
    const b = await visitor(two, room);
    await a.say("kept");
    await b.sees("kept");
    assert.equal(await b.count("kept"), 1);
    assert.equal(await b.page.textContent(".message .name"), "Ada");
    assert.deepEqual(refusals, { setUsername: 0, publish: 0, join: 0 });
    assert.ok(await a.page.locator("#name-form").isHidden());
    return [a, b];
  },

  async "a session that is ended from outside says why, aloud once, and comes back when asked to"({ one }) {
    const a = await visitor(one, unique(), { answer: () => null });
    a.tell({ error: { code: "forbidden", message: "please come back tomorrow" } });
    await a.page.waitForFunction(() => document.getElementById("toast").textContent === "please come back tomorrow");
    await a.page.evaluate(() => {
      window.heard = { ticks: 0, spoken: 0 };
      const count = (id, tell) => new MutationObserver(tell).observe(document.getElementById(id), { childList: true });
      count("banner-text", () => (window.heard.ticks += 1));
      count("spoken", () => (window.heard.spoken += document.getElementById("spoken").textContent.includes("ended this session")));
    });
    a.end(4401);
    // The banner is written anew every second.
    await a.page.waitForFunction(() => window.heard.ticks > 5);
    assert.equal(await a.page.evaluate(() => window.heard.spoken), 1);
    assert.equal(await a.page.textContent("#banner-text"), "The server has ended this session");
    await a.page.click("#connect");
    await a.page.waitForSelector('#dot[data-state="online"]');
    return [a];
  },

  async "a link leads into its room, is copied, and one that names none says so"({ one, two }) {
    const room = unique();
    const a = await visitor(one, room);
    await a.context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await a.page.click("#copy");
    await a.page.waitForFunction(() => document.getElementById("toast").textContent === "Link to this room copied");
    const link = new URL(await a.page.evaluate(() => navigator.clipboard.readText()));
    assert.equal(link.href, `${one.url}/#room=${room}`);
    const b = await visitor(two, link.hash.replace("#room=", ""));
    await a.name("Ada");
    await a.say("found it");
    await b.sees("found it");
    await b.page.evaluate(() => (location.hash = "room=no such room"));
    await b.page.waitForFunction(() => document.getElementById("toast").textContent.includes("1 to 64"));
    assert.equal(await b.page.textContent("#room-name"), "lobby");
    await b.page.click(`.room-link[href="#room=${room}"]`);
    await b.sees("found it");
    return [a, b];
  },

  async "who passes through a room does not stay in it"({ one }) {
    const [room, next] = [unique(), unique()];
    const sent = [];
    let pass;
    const passed = new Promise((done) => (pass = done));
    const answer = async (frame) => {
      sent.push(frame);
      if (frame.join?.room === room) await passed;
      return null;
    };
    const a = await visitor(one, unique(), { answer });
    for (const name of [room, next]) {
      await a.page.evaluate((wanted) => (location.hash = `room=${wanted}`), name);
      await until("the join is asked for", () => sent.some((frame) => frame.join?.room === name));
    }
    pass();
    await until("the room is left", () => sent.some((frame) => frame.leave?.room === room));
    assert.ok(!sent.some((frame) => frame.leave?.room === next));
    return [a];
  },

  async "the focus on a room stays while people come, and yesterday is no longer today"({ one, two }) {
    const room = unique();
    const a = await visitor(one, room);
    await a.page.focus(".room-link");
    const b = await visitor(two, room);
    await b.name("Bob");
    await a.line("Bob joined");
    await a.page.waitForFunction(() => document.querySelectorAll("#people .avatar").length === 1);
    assert.ok(await a.page.evaluate(() => document.activeElement.matches(".room-link")));
    await a.page.keyboard.press("Enter");
    assert.ok(await a.page.evaluate(() => document.activeElement.matches(".room-link")));
    await b.say("late");
    await a.sees("late");
    assert.equal(await a.page.textContent(".day .line-text"), "Today");
    await a.page.clock.setFixedTime(Date.now() + 86_400_000);
    await b.say("later");
    await a.sees("later");
    assert.equal(await a.page.textContent(".day .line-text"), "Yesterday");
    return [a, b];
  },

  async "light and dark follow the system, and all text stands out in both"({ one, two }) {
    const shades = [];
    for (const colorScheme of ["light", "dark"]) {
      const room = unique();
      const [a, b] = [await visitor(one, room, { colorScheme }), await visitor(two, room)];
      await b.name("Bob");
      await b.say("see https://example.test/");
      await a.sees("see https://example.test/");
      await a.page.press("#name-field", "Enter");
      await a.name("Ada");
      await a.say("mine");
      await a.sees("mine");
      await a.page.press("#message-field", "Enter");
      const colours = await a.page.$$eval(".message.theirs .name, .message.theirs .text", (nodes) => nodes.map((node) => getComputedStyle(node).color));
      assert.equal(new Set(colours).size, 2, "a name has a colour of its own");
      assert.match(await a.page.textContent(".message time"), /\d\d?:\d\d/);
      const [ratio, what] = await leastContrast(a.page);
      assert.ok(ratio >= 4.5, `${what} has a contrast of ${ratio.toFixed(2)} in ${colorScheme}`);
      shades.push(await a.page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      for (const { context } of [a, b]) await context.close();
    }
    assert.notEqual(shades[0], shades[1]);
    return [];
  },

  async "markup in names and messages stays text"({ one, two }) {
    const room = unique();
    const [a, b] = [await visitor(one, room), await visitor(two, room)];
    assert.equal(PAYLOADS.length, 30);
    await a.name("Ada");
    for (const [i, payload] of PAYLOADS.entries()) {
      await a.say(payload);
      if (i % 5 === 4) await b.sees(payload);
      const name = payload.slice(0, 32);
      await a.page.click("#name-open");
      await a.page.fill("#name-field", name);
      await a.page.press("#name-field", "Enter");
      await a.page.waitForFunction(() => document.getElementById("name-form").hidden || document.getElementById("name-error").textContent);
      if (!(await a.page.locator("#name-form").isHidden())) await a.page.press("#name-field", "Escape");
    }
    await b.sees(PAYLOADS.at(-1));
    for (const { page } of [a, b]) {
      assert.equal(await page.locator("#rows script, #rows img, #rows svg, #rows iframe, #people script, #people img, #rows style, #rows form").count(), 0);
      assert.equal(await page.locator('#rows a:not([href^="http"])').count(), 0);
    }
    return [a, b];
  },

  async "everything works by keyboard alone"({ one, two }) {
    const room = unique();
    const [a, b] = [await visitor(one, room), await visitor(two, room)];
    const focused = () => a.page.evaluate(() => document.activeElement.id);
    assert.equal(await focused(), "name-field");
    await a.page.keyboard.type("Ada");
    await a.page.keyboard.press("Enter");
    await a.page.waitForFunction(() => document.activeElement.id === "message-field");
    await a.page.keyboard.type("first");
    await a.page.keyboard.press("Shift+Enter");
    await a.page.keyboard.type("second");
    await a.page.keyboard.press("Enter");
    await b.sees("first\nsecond");
    const seen = new Set();
    for (let i = 0; i < 25; i += 1) {
      await a.page.keyboard.press("Tab");
      seen.add(await focused());
    }
    for (const id of ["language", "room-field", "me-change", "copy", "log", "name-open", "message-field"]) assert.ok(seen.has(id), id);
    await a.page.focus("#room-field");
    await a.page.keyboard.type("no such name!");
    await a.page.keyboard.press("Enter");
    assert.match(await a.page.textContent("#room-error"), /1 to 64/);
    await a.page.keyboard.press("Control+A");
    await a.page.keyboard.type(`${room}-next`);
    await a.page.keyboard.press("Enter");
    await a.page.waitForFunction((name) => document.getElementById("room-name").textContent === name, `${room}-next`);
    assert.equal(new URL(a.page.url()).hash, `#room=${room}-next`);
    return [a, b];
  },

  async "an input method's Enter chooses a candidate and sends nothing"({ one }) {
    const a = await visitor(one, unique());
    await a.name("小雨");
    await a.page.fill("#message-field", "ni hao");
    await a.page.evaluate(() => {
      const key = new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true });
      document.getElementById("message-field").dispatchEvent(key);
    });
    assert.equal(await a.page.inputValue("#message-field"), "ni hao");
    assert.equal(await a.page.locator(".message").count(), 0);
    return [a];
  },

  async "the page speaks Chinese or English as the browser does, and switches"({ one }) {
    const a = await visitor(one, unique(), { locale: "zh-CN" });
    assert.equal(await a.page.getAttribute("html", "lang"), "zh-CN");
    assert.equal(await a.page.textContent("#name-form button[type=submit]"), "设置用户名");
    await a.page.press("#name-field", "Enter");
    assert.equal(await a.page.textContent("#name-error"), "请输入用户名。");
    await a.name("小雨");
    await a.line("小雨 加入了聊天室");
    await a.page.click("#language");
    assert.equal(await a.page.getAttribute("html", "lang"), "en");
    await a.line("小雨 joined");
    return [a];
  },

  async "a screen reader hears messages and the connection"({ one, two }) {
    const room = unique();
    const [a, b] = [await visitor(one, room), await visitor(two, room)];
    await b.name("Bob");
    await b.say("can you hear me");
    await a.page.waitForFunction(() => document.getElementById("spoken").textContent.includes("Bob: can you hear me"));
    one.cut();
    await a.page.waitForFunction(() => document.getElementById("spoken").textContent.includes("Connection lost"));
    one.mend();
    await a.page.waitForFunction(() => document.getElementById("spoken").textContent.includes("Connected again"));
    const nameless = await a.page.$$eval("button, input, textarea", (nodes) => nodes
      .filter((node) => node.checkVisibility())
      .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length))
      .map((node) => node.outerHTML));
    assert.deepEqual(nameless, []);
    return [a, b];
  },

  async "on a phone nothing scrolls sideways and the drawer opens, closes and gives the focus back"({ one }) {
    for (const [width, height] of [[390, 844], [320, 568]]) {
      const a = await visitor(one, unique(), { viewport: { width, height }, hasTouch: true, isMobile: true });
      assert.ok((await wide(a.page)) <= 0);
      await a.name("A".repeat(32));
      await a.say("w".repeat(500));
      await a.say("https://example.test/" + "long/".repeat(60));
      await a.sees("w".repeat(500));
      assert.ok((await wide(a.page)) <= 0);
      assert.ok(await a.page.$eval("#log", (log) => log.scrollWidth <= log.clientWidth));
      await a.page.tap("#side-open");
      assert.equal(await a.page.evaluate(() => document.activeElement.id), "side-close");
      await a.page.keyboard.press("Escape");
      assert.equal(await a.page.evaluate(() => document.activeElement.id), "side-open");
      await a.context.close();
    }
    return [];
  },
};

const [first, second] = process.argv.slice(2);
if (!first || !second) {
  console.error("usage: node page.spec.mjs <base URL of edge 1> <base URL of edge 2>");
  process.exit(2);
}
const launch = () => chromium.launch({ executablePath: CHROMIUM, args: ARGS });
const browsers = [await launch(), await launch()];
const only = process.env.ONLY ?? "";
let passed = 0;
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  if (!name.includes(only)) continue;
  complaints.length = 0;
  try {
    const stage = { one: await relay(first, browsers[0]), two: await relay(second, browsers[1]) };
    const visitors = await test(stage);
    for (const { context } of visitors) await context.close();
    assert.deepEqual(complaints, []);
    passed += 1;
    console.log(`ok   ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}\n     ${String(error.stack ?? error).replaceAll("\n", "\n     ")}`);
    for (const context of browsers.flatMap((browser) => browser.contexts())) await context.close();
  }
}
for (const browser of browsers) await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
