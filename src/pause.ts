/** Waits `ms`, or less: until `signal` is aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/** Does something at once, and again after each pause, until `signal` is aborted. What it throws is told, and ends nothing. */
export async function repeat(
  work: () => Promise<void>,
  { everyMs, signal, onFault }: { readonly everyMs: number; readonly signal: AbortSignal; readonly onFault: (error: unknown) => void },
): Promise<void> {
  while (!signal.aborted) {
    try {
      await work();
    } catch (error) {
      if (!signal.aborted) onFault(error);
    }
    await pause(everyMs, signal);
  }
}

/** Waits for `work`, at most so long. */
export async function atMost(ms: number, work: Promise<unknown> | undefined): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work, over]);
  clearTimeout(timer);
}
