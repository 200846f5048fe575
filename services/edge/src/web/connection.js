// One socket to /ws in the JSON form of Plaza's own protocol: requests with answers, frames that come
// unasked, and coming back after every loss. Knows nothing of rooms and messages.

import { closedByServer, delay } from "./backoff.js";

const SUBPROTOCOL = "plaza.v1.json";
const ANSWER_MS = 10_000;
const STEADY_MS = 10_000;
const MAX_IN_FLIGHT = 64;
const SIGNED_OUT = 4401;
// Of the server: the session goes on with another connection, that of a copy of this tab.
const REPLACED = 1000;

/** A request that was refused, or whose outcome is not known (`lost`). */
export class Refused extends Error {
  constructor(code, message, lost = false) {
    super(message ?? code);
    this.code = code;
    this.lost = lost;
  }
}

export class Connection {
  #options;
  #socket = null;
  #state = { kind: "connecting" };
  #attempt = 0;
  #hint = null;
  #onlineSince = 0;
  #heardAt = 0;
  #nextId = 1;
  #waiting = new Map();
  #timer = 0;
  #pulse = 0;

  /**
   * - `hello()`: body of the first frame.
   * - `probe()`: a harmless request, to learn whether a silent connection still lives.
   * - `onWelcome(welcome)`, `onFrame(kind, body)`, `onState(state)`.
   * - `onReplaced()`: another connection has taken this one's session over.
   */
  constructor(options) {
    this.#options = options;
    window.addEventListener("online", () => this.connectNow());
    window.addEventListener("offline", () => this.#checkLife());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      if (this.#state.kind === "online") this.#checkLife();
      else this.connectNow();
    });
  }

  /** `connecting`, `online`, `waiting` (with `until`), `offline` or `signed_out`. */
  get state() {
    return this.#state;
  }

  get online() {
    return this.#state.kind === "online";
  }

  /** Connects without waiting any longer; also the only way back from `signed_out`. */
  connectNow(asked = false) {
    if (this.#socket || (this.#state.kind === "signed_out" && !asked)) return;
    this.open();
  }

  open() {
    clearTimeout(this.#timer);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`, SUBPROTOCOL);
    this.#socket = socket;
    this.#hint = null;
    this.#become({ kind: "connecting" });
    this.#timer = setTimeout(() => this.#lose(1006), ANSWER_MS);
    socket.onopen = () => this.#greet();
    socket.onmessage = ({ data }) => this.#read(data);
    socket.onclose = ({ code }) => this.#lose(code);
  }

  /** Sends a frame that has no answer; false when it could not. */
  tell(body) {
    if (!this.online) return false;
    this.#socket.send(JSON.stringify(body));
    return true;
  }

  /** Sends a request; resolves with the answer's body, rejects with [`Refused`]. */
  ask(body, withinMs = ANSWER_MS) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return reject(new Refused("unavailable", null, true));
      if (this.#waiting.size >= MAX_IN_FLIGHT) return reject(new Refused("busy"));
      const id = this.#nextId++;
      const askedAt = performance.now();
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Refused("timeout", null, true));
        if (this.#heardAt < askedAt) this.#lose(1006);
      }, withinMs);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ id, ...body }));
    });
  }

  async #greet() {
    try {
      const welcome = await this.ask({ hello: this.#options.hello() });
      clearTimeout(this.#timer);
      this.#onlineSince = performance.now();
      this.#become({ kind: "online" });
      this.#startPulse(welcome.pingIntervalMs || 25_000);
      this.#options.onWelcome(welcome);
    } catch (refused) {
      // Another refusal is followed by `reconnect` and the server's close, or else by the deadline.
      if (refused.code === "unauthenticated") this.#lose(SIGNED_OUT);
    }
  }

  #read(data) {
    this.#heardAt = performance.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    const kind = Object.keys(frame).find((key) => key !== "id");
    const body = frame[kind] ?? {};
    const waiting = this.#waiting.get(frame.id);
    if (waiting) {
      clearTimeout(waiting.timer);
      this.#waiting.delete(frame.id);
      if (kind === "error") waiting.reject(new Refused(body.code, body.message));
      else waiting.resolve(body);
    } else if (kind === "reconnect") {
      this.#hint = body.afterMs ?? 0;
    } else if (kind) {
      this.#options.onFrame(kind, body);
    }
  }

  /** A socket says nothing of a network that went away: ask something when it was silent for long. */
  #startPulse(intervalMs) {
    const phase = Math.random() * intervalMs;
    const beat = () => {
      if (performance.now() - this.#heardAt > intervalMs) this.#checkLife();
      this.#pulse = setTimeout(beat, intervalMs);
    };
    this.#pulse = setTimeout(beat, phase);
  }

  #checkLife() {
    const probe = this.online && this.#options.probe();
    if (probe) this.ask(probe, 5_000).catch(() => {});
  }

  #lose(code) {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    clearTimeout(this.#timer);
    clearTimeout(this.#pulse);
    const wasOnline = this.online;
    if (code === REPLACED) this.#options.onReplaced();
    if (wasOnline && performance.now() - this.#onlineSince > STEADY_MS) this.#attempt = 0;
    this.#schedule(code);
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new Refused("unavailable", null, true));
    }
    this.#waiting.clear();
  }

  #schedule(code) {
    if (code === SIGNED_OUT) return this.#become({ kind: "signed_out" });
    const ms = delay({
      attempt: this.#attempt,
      hint: this.#hint,
      serverClosed: closedByServer(code),
      random: Math.random(),
    });
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.open(), ms);
    this.#become(navigator.onLine === false ? { kind: "offline" } : { kind: "waiting", until: Date.now() + ms });
  }

  #become(state) {
    this.#state = state;
    this.#options.onState(state);
  }
}
