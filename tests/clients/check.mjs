// Checks that are counted, and waiting for events with a bound.

/** Nothing that must happen may take longer, in milliseconds. */
export const PATIENCE = 15_000;

let passed = 0;
const failures = [];

/** Runs one check; a failure is noted and does not end the others. */
export async function check(name, body) {
  try {
    await body();
    passed += 1;
  } catch (error) {
    failures.push(name);
    console.log(`FAILED ${name}: ${error.message}`);
  }
}

/** Prints the count and sets the exit code. */
export function finish() {
  console.log(`${passed} passed, ${failures.length} failed`);
  process.exit(failures.length === 0 ? 0 : 1);
}

export function equal(actual, expected, what = "value") {
  const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what} is ${left}, expected ${right}`);
}

export function truth(value, what) {
  if (!value) throw new Error(what);
}

/** A promise that fails when `promise` takes too long. */
export function within(promise, what, milliseconds = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing in ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Everything that a socket receives under one event name, to be read in order. */
export class Inbox {
  #items = [];
  #wake = null;

  constructor(socket, event) {
    socket.on(event, (...args) => {
      this.#items.push(args);
      this.#wake?.();
    });
  }

  /** The next item for which `wanted` holds; those before it are passed over. */
  next(what, wanted = () => true) {
    const search = async () => {
      for (;;) {
        while (this.#items.length > 0) {
          const item = this.#items.shift();
          if (wanted(...item)) return item;
        }
        await new Promise((resolve) => (this.#wake = resolve));
      }
    };
    return within(search(), what);
  }

  /** What has arrived and was not read, without waiting. */
  rest() {
    return this.#items.splice(0);
  }
}
