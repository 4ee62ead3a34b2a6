/** Whether a value is a promise or would be awaited as one. */
export function isThenable<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return value instanceof Promise || (typeof value === "object" && value !== null && "then" in value && typeof value.then === "function");
}

/**
 * For what a user's function gave where an answer is needed at once: a promise would count as true, whatever it comes to.
 *
 * @param what who gave it, as the message names it: `where`
 * @throws TypeError
 */
export function refuseThenable(value: unknown, what: string): void {
  if (!isThenable(value)) return;
  // It has run on without us: what comes of it comes too late, and its failure must not end the process.
  Promise.resolve(value).catch(() => undefined);
  throw new TypeError(`${what} must be synchronous: it returned a promise`);
}
