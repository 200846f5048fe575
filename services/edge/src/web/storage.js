// What outlives a reload: values under one prefix, in the tab or in the browser. Where the browser
// forbids storage, the values live as long as the page.

const PREFIX = "plaza.";

function keeper(area) {
  const memory = new Map();
  return {
    get(key, otherwise = null) {
      try {
        const text = area().getItem(PREFIX + key);
        return text === null ? (memory.get(key) ?? otherwise) : JSON.parse(text);
      } catch {
        return memory.get(key) ?? otherwise;
      }
    },
    set(key, value) {
      memory.set(key, value);
      try {
        if (value === null) area().removeItem(PREFIX + key);
        else area().setItem(PREFIX + key, JSON.stringify(value));
      } catch {
        // Full or forbidden: the copy in memory serves until the page is left.
      }
    },
  };
}

/** Of this tab: guest key, name, ticket, unsent messages, drafts. */
export const tab = keeper(() => window.sessionStorage);

/** Of this browser: the language and the list of rooms. */
export const browser = keeper(() => window.localStorage);
