// The messages on the screen: days, lines, bubbles, and where the reader is. Rows have keys and are
// moved, changed and made only where the list differs, so a row keeps its node from "sending" on.

import * as i18n from "./i18n.js";
import { HUES, hue, initial, parts } from "./text.js";

const { t } = i18n;
const TOGETHER_MS = 5 * 60_000;
const MAX_NAMES = 4;
const MAX_EVENTS = 6_000;
// A screen that people coming and going do not fill is filled up from at most so many events.
const FILL_EVENTS = 500;
const NEAR_BOTTOM_PX = 80;
const NEAR_TOP_PX = 400;
const $ = (id) => document.getElementById(id);

/** Paints an avatar for a user. */
export function paintAvatar(node, key, name) {
  node.dataset.hue = name ? hue(key || name) : HUES;
  node.textContent = name ? initial(name) : "";
}

export class Timeline {
  #chat;
  #log = $("log");
  #rows = $("rows");
  #nodes = new Map();
  #room = null;
  #pinned = true;
  #unread = 0;
  #planned = false;

  constructor(chat) {
    this.#chat = chat;
    this.#log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    $("pill").addEventListener("click", () => {
      this.toEnd();
      this.#log.focus({ preventScroll: true });
    });
    new ResizeObserver(() => this.#pinned && this.#snap()).observe(this.#log);
    document.addEventListener("visibilitychange", () => this.#scrolled());
    chat.addEventListener("arrived", ({ detail: { room, event } }) => {
      if (room !== chat.room || event.kind !== "text" || chat.isMine(event)) return;
      if (!this.#pinned || document.hidden) this.#unread += 1;
      this.#showPill();
    });
  }

  /** Draws at the next frame, or soon when the page is hidden. */
  plan() {
    if (this.#planned) return;
    this.#planned = true;
    const draw = () => {
      this.#planned = false;
      this.draw();
    };
    if (document.hidden) setTimeout(draw, 50);
    else requestAnimationFrame(draw);
  }

  /** Shows the newest messages and follows them. */
  toEnd() {
    this.#pinned = true;
    this.#snap();
    this.#scrolled();
  }

  draw() {
    const room = this.#chat.room;
    if (room !== this.#room) this.#enter(room);
    // Not while a page is under way that would no longer stand beside what is left.
    if (!room.loading && (this.#pinned || room.events.length > MAX_EVENTS)) room.trim();
    const anchor = this.#pinned ? null : this.#anchor();
    this.#place(this.#plan(room));
    this.#drawEdge(room);
    if (this.#pinned) this.#snap();
    else if (anchor) this.#log.scrollTop += anchor.node.getBoundingClientRect().top - anchor.top;
    this.#showPill();
    this.#readOn(room);
  }

  /** Paints every row anew at the next drawing, in the new language; the reader's place stays. */
  redraw() {
    for (const held of this.#nodes.values()) held.sign = null;
    this.plan();
  }

  #enter(room) {
    this.#room = room;
    this.#rows.replaceChildren();
    this.#nodes.clear();
    this.#pinned = true;
    this.#unread = 0;
  }

  /** The rows that should stand: `{key, kind, item, first, last}`. */
  #plan(room) {
    const rows = [];
    let day = null;
    let before = null;
    const push = (item, key, kind) => {
      const key2 = i18n.dayKey(item.at);
      if (key2 !== day) {
        rows.push({ key: `day:${key2}`, kind: "day", item, label: i18n.dayOf(item.at) });
        before = null;
      }
      day = key2;
      const joins = before && kind === "message" && before.item.userId === item.userId &&
        before.item.username === item.username && item.at - before.item.at < TOGETHER_MS;
      if (joins) before.last = false;
      const row = { key, kind, item, first: !joins, last: true };
      rows.push(row);
      before = kind === "message" ? row : null;
    };
    for (const event of room.events) {
      if (this.#gather(rows.at(-1), event)) continue;
      const mine = this.#chat.isMine(event);
      const key = mine && event.clientId ? event.clientId : event.id;
      push({ ...event, mine }, key, event.kind === "text" ? "message" : "line");
    }
    const { userId, name } = this.#chat;
    for (const entry of this.#chat.outbox.of(room.name)) {
      push({ ...entry, userId, username: name, mine: true, kind: "text" }, entry.clientId, "message");
    }
    return rows;
  }

  /** People who come or go one after the other share a line. */
  #gather(row, { kind, username, at }) {
    if ((kind !== "joined" && kind !== "left") || row?.item.kind !== kind || row.kind !== "line") return false;
    if (i18n.dayKey(row.item.at) !== i18n.dayKey(at)) return false;
    row.item.names = [...new Set([...(row.item.names ?? [row.item.username]), username])];
    row.item.at = at;
    return true;
  }

  #place(rows) {
    const wanted = new Set(rows.map(({ key }) => key));
    for (const [key, { node }] of this.#nodes) {
      if (wanted.has(key)) continue;
      node.remove();
      this.#nodes.delete(key);
    }
    let next = this.#rows.firstElementChild;
    for (const row of rows) {
      const sign = [row.first, row.last, row.item.state, row.item.error?.code, row.item.reason, row.item.names ?? row.item.username, row.label].join();
      let held = this.#nodes.get(row.key);
      if (!held) {
        held = { node: $(`${row.kind}-template`).content.firstElementChild.cloneNode(true), sign: null };
        this.#nodes.set(row.key, held);
      }
      if (held.sign !== sign) {
        held.sign = sign;
        PAINT[row.kind](held.node, row, this.#chat);
      }
      if (held.node === next) next = next.nextElementSibling;
      else this.#rows.insertBefore(held.node, next);
    }
  }

  #drawEdge(room) {
    const bare = room.loaded && !room.more && this.#rows.childElementCount === 0;
    $("empty").hidden = !bare;
    $("empty-title").textContent = t("empty_title", room.name);
    $("older").textContent = room.loading && room.loaded ? t("older_loading")
      : room.loaded && !room.more && !bare ? t("beginning", room.name) : "";
  }

  /** The first row in view and where it stands, to keep it there while rows change above it. */
  #anchor() {
    const top = this.#log.getBoundingClientRect().top;
    for (const node of this.#rows.children) {
      const box = node.getBoundingClientRect();
      if (box.bottom > top && !node.classList.contains("day")) return { node, top: box.top };
    }
    return null;
  }

  #snap() {
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    this.#pinned = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
    if (this.#pinned && !document.hidden) this.#unread = 0;
    this.#showPill();
    this.#readOn(this.#room);
  }

  #readOn(room) {
    const filled = this.#pinned && room?.events.length >= FILL_EVENTS;
    if (room && !filled && this.#log.scrollTop < NEAR_TOP_PX) this.#chat.older();
  }

  #showPill() {
    $("pill").hidden = this.#pinned;
    $("pill-text").textContent = this.#unread ? t("new_messages", this.#unread) : t("latest");
    $("pill").classList.toggle("fresh", this.#unread > 0);
    const name = `#${this.#chat.room.name} · Plaza`;
    document.title = this.#unread ? `(${this.#unread}) ${name}` : name;
  }
}

const PAINT = {
  message(node, { item, first, last }, chat) {
    node.className = `message ${item.mine ? "mine" : "theirs"} ${first ? "first" : ""} ${last ? "last" : ""} ${item.state ?? ""}`;
    paintAvatar(node.querySelector(".avatar"), item.userId, item.username);
    const name = node.querySelector(".name");
    name.textContent = item.username;
    name.dataset.hue = hue(item.userId || item.username);
    node.querySelector(".text").replaceChildren(...parts(item.text ?? "").map(textNode));
    paintTime(node, item.at);
    paintFate(node.querySelector(".fate"), item, chat);
  },
  line(node, { item }) {
    node.querySelector(".line-text").textContent = lineText(item);
    node.classList.toggle("hole", item.kind === "reset");
    paintTime(node, item.at);
  },
  day(node, { label }) {
    node.querySelector(".line-text").textContent = label;
  },
};

function textNode({ text, href }) {
  if (!href) return document.createTextNode(text);
  const link = document.createElement("a");
  link.href = href;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  link.textContent = text;
  return link;
}

function paintTime(node, at) {
  const time = node.querySelector("time");
  time.dateTime = new Date(at).toISOString();
  time.textContent = i18n.timeOf(at);
  time.title = i18n.fullTimeOf(at);
}

/** What became of an own message that is not in the room yet. */
function paintFate(node, { clientId, state, error }, chat) {
  const failed = state === "failed";
  node.hidden = !state || state === "sent";
  if (node.hidden) return;
  const text = failed ? `${t("not_sent")}${error ? ` · ${i18n.errorText(error)}` : ""}` : t(state);
  node.querySelector(".fate-text").textContent = text;
  for (const [name, act] of [["retry", () => chat.retry(clientId)], ["discard", () => chat.discard(clientId)]]) {
    const button = node.querySelector(`.${name}`);
    button.hidden = !failed;
    button.textContent = t(name);
    // The button goes away with what it has done: the focus is not to go with it.
    button.onclick = () => {
      act();
      $("message-field").focus();
    };
  }
}

function lineText({ kind, username, names = [username], previousUsername, text, type, reason }) {
  if (kind === "joined" || kind === "left") return t(kind, t("list", names.slice(0, MAX_NAMES), names.length - MAX_NAMES));
  if (kind === "renamed") return t("renamed", previousUsername, username);
  if (kind === "notice") return text;
  if (kind === "data") return t("sent_type", username, type);
  return t(reason === "trimmed" || reason === "unavailable" ? `reset_${reason}` : "reset_other");
}
