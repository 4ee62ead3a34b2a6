import { Worker } from "node:worker_threads";

/** What the thread is given. */
export interface LoopWatchData {
  /** Its first element is raised while the event loop turns. */
  readonly beats: Int32Array;
  readonly afterMs: number;
}

const threadModule = new URL(import.meta.url.endsWith(".ts") ? "./loop-watch-thread.ts" : "./loop-watch-thread.js", import.meta.url);

/**
 * Says which code holds the event loop once it has done so for a while, from a thread of its own: until that code returns, nothing else of
 * this process can say anything, and no deadline can end it.
 *
 * @returns what ends it
 */
export function watchLoop({ afterMs = 5_000 }: { readonly afterMs?: number } = {}): () => Promise<void> {
  const data: LoopWatchData = { beats: new Int32Array(new SharedArrayBuffer(4)), afterMs };
  const beat = setInterval(() => void Atomics.add(data.beats, 0, 1), afterMs / 10);
  beat.unref();
  const thread = new Worker(threadModule, { workerData: data });
  // Without it all goes on as it did.
  thread.on("error", () => undefined);
  thread.unref();
  return async () => {
    clearInterval(beat);
    await thread.terminate();
  };
}
