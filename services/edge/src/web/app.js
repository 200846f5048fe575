// Puts the page together: the chat, its views, the address bar, and what is said aloud.

import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import * as i18n from "./i18n.js";
import { Sidebar } from "./sidebar.js";
import { isRoom } from "./text.js";
import { Timeline } from "./timeline.js";

const { t } = i18n;
const DEFAULT_ROOM = "lobby";
const SPEAK_EVERY_MS = 1_500;
const TOAST_MS = 4_000;
const $ = (id) => document.getElementById(id);

/** Goes to the room of the address: `#room=name`, else `?room=name`. */
function visitAddress() {
  const names = [location.hash.slice(1), location.search.slice(1)]
    .map((text) => new URLSearchParams(text).get("room"))
    .filter((name) => name !== null);
  chat.visit(names.find(isRoom) ?? DEFAULT_ROOM);
  if (names.length > 0 && !isRoom(names[0])) toast(t("room_bad"));
}

// What a screen reader says: one sentence at a time, a burst of messages as its number.
const speech = { waiting: [], timer: 0 };
function speak(text, isMessage = false) {
  speech.waiting.push({ text, isMessage });
  if (speech.waiting.length > 50) speech.waiting.shift();
  speech.timer ||= setTimeout(() => {
    const messages = speech.waiting.filter((entry) => entry.isMessage);
    const others = speech.waiting.filter((entry) => !entry.isMessage).map((entry) => entry.text);
    const said = messages.length > 3 ? [t("many_new", messages.length)] : messages.map((entry) => entry.text);
    $("spoken").textContent = [...others, ...said].join(". ");
    speech.waiting = [];
    speech.timer = 0;
  }, SPEAK_EVERY_MS);
}

let toastTimer = 0;
function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), TOAST_MS);
  speak(text);
}

i18n.translate(document);
const chat = new Chat();
visitAddress();
const timeline = new Timeline(chat);
const sidebar = new Sidebar(chat);
const composer = new Composer(chat, { speak, sent: () => timeline.toEnd() });

/** What stands beside the dot; the number of people says that the connection is well. */
function headline(kind) {
  if (kind === "online") return chat.room.count ? "" : t("state_online");
  return t(kind === "connecting" ? "state_connecting" : kind === "waiting" ? "spoken_lost" : `state_${kind}`);
}

let wasLost = false;
let spokenState = null;
function drawState() {
  const { state } = chat.connection;
  const { kind } = state;
  const seconds = Math.max(1, Math.ceil(((state.until ?? 0) - Date.now()) / 1000));
  const text = kind === "waiting" ? t("state_waiting", seconds) : t(`state_${kind}`);
  const quiet = kind === "online" || (kind === "connecting" && !wasLost);
  $("dot").dataset.state = kind;
  $("state-text").textContent = headline(kind);
  $("present").textContent = kind === "online" && chat.room.count ? t("present", chat.room.count) : "";
  $("dot").title = text;
  $("banner").hidden = quiet;
  $("banner-text").textContent = text;
  $("connect").hidden = kind === "connecting";
  if (kind === "online" && wasLost) speak(t("spoken_back"));
  if ((kind === "waiting" || kind === "offline") && !wasLost) speak(t("spoken_lost"));
  if (kind === "signed_out" && spokenState !== kind) speak(text);
  spokenState = kind;
  if (kind === "online") wasLost = false;
  else if (kind !== "connecting") wasLost = true;
}

function drawTyping() {
  const names = chat.room.typists(Date.now()).filter((name) => name !== chat.name);
  const key = names.length > 2 ? "typing_many" : `typing_${names.length}`;
  $("typing").classList.toggle("on", names.length > 0);
  if (names.length) $("typing-text").textContent = t(key, ...names);
}

function drawRoom() {
  $("room-name").textContent = chat.room.name;
  composer.draw();
  sidebar.draw();
  timeline.plan();
  drawState();
  drawTyping();
}

const DRAW = {
  room: drawRoom,
  messages: () => {
    timeline.plan();
    drawTyping();
  },
  people: () => {
    sidebar.drawPeople();
    drawState();
  },
  typing: drawTyping,
  name: () => {
    composer.draw();
    sidebar.drawPeople();
    timeline.plan();
  },
  state: drawState,
};

chat.addEventListener("change", ({ detail }) => DRAW[detail]());
chat.addEventListener("refused", ({ detail }) => toast(i18n.errorText(detail)));
chat.addEventListener("arrived", ({ detail: { room, event } }) => {
  if (room !== chat.room) return;
  if (event.kind === "text" && !chat.isMine(event)) speak(t("says", event.username, event.text), true);
  if (event.kind !== "text") DRAW.people();
});
setInterval(() => {
  if (!chat.connection.online) drawState();
  drawTyping();
}, 1_000);

window.addEventListener("hashchange", () => {
  visitAddress();
  speak(t("in_room", chat.room.name));
});
$("skip").addEventListener("click", () => $("message-field").focus());
$("connect").addEventListener("click", () => chat.connection.connectNow(true));
$("language").addEventListener("click", () => {
  i18n.choose(i18n.current() === "zh" ? "en" : "zh");
  i18n.translate(document);
  timeline.redraw();
  drawRoom();
});
$("copy").addEventListener("click", async () => {
  const link = `${location.origin}/#room=${chat.room.name}`;
  toast((await copy(link)) ? t("copied") : `${t("copy_failed")} ${link}`);
});

// The clipboard belongs to secure pages; on plain HTTP a selected field still copies.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "unseen";
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    $("copy").focus();
    return done;
  }
}

drawRoom();
if (window.matchMedia("(hover: hover)").matches) composer.focus();
chat.connection.open();
