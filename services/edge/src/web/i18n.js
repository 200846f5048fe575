// The reader's language: words, times and dates.

import { browser } from "./storage.js";
import { en, zh } from "./words.js";

const TABLES = { en, zh };
const LOCALES = { en: undefined, zh: "zh-CN" };
const DAY_MS = 86_400_000;

function preferred() {
  const chosen = browser.get("language");
  if (chosen in TABLES) return chosen;
  const first = (navigator.languages ?? [navigator.language]).find((tag) => /^(zh|en)\b/i.test(tag));
  return /^zh/i.test(first ?? "") ? "zh" : "en";
}

let language = preferred();
let clock;
let day;
let full;

function formats() {
  const locale = LOCALES[language] ?? (/^en/i.test(navigator.language) ? navigator.language : "en");
  clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
  day = new Intl.DateTimeFormat(locale, { weekday: "long", month: "long", day: "numeric" });
  full = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium" });
}
formats();

export const current = () => language;

/** Changes the language and remembers it. */
export function choose(next) {
  language = next;
  browser.set("language", next);
  formats();
}

/** The sentence of a key. */
export function t(key, ...args) {
  const entry = TABLES[language][key];
  return typeof entry === "function" ? entry(...args) : entry;
}

/** An error in the reader's words; an unknown code keeps the server's sentence. */
export const errorText = ({ code, message }) => TABLES[language][`error_${code}`] ?? message ?? code;

export const timeOf = (at) => clock.format(at);
export const fullTimeOf = (at) => full.format(at);

/** Which local day a time is in: equal for equal days. */
export const dayKey = (at) => new Date(at).toDateString();

export function dayOf(at) {
  if (dayKey(at) === dayKey(Date.now())) return t("today");
  if (dayKey(at) === dayKey(Date.now() - DAY_MS)) return t("yesterday");
  return day.format(at);
}

/** Puts the words into the fixed parts of the page: `data-t`, `data-t-label`, `data-t-placeholder`. */
export function translate(root) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", t(node.dataset.tLabel));
    if (node.tagName === "BUTTON") node.title = t(node.dataset.tLabel);
  }
  for (const node of root.querySelectorAll("[data-t-placeholder]")) {
    node.placeholder = t(node.dataset.tPlaceholder);
  }
}
