import { pause } from "../pause.ts";
import type { Fault, Handover, Prepared, Ready } from "./protocol.ts";
import type { ReceivedRequests } from "./receiver.ts";

/** One child process with the pipeline in it, as `forked-pipeline.ts` makes them. */
export interface Pipeline {
  /** Reads and checks the definitions; nothing is captured or sent yet. */
  prepare(): Promise<Prepared | Fault>;
  /** Captures, delivers and answers. */
  serve(handover: Handover): Promise<Ready | Fault>;
  /** Ends it in order; what it received is for the next one. Resolves when the process is gone. */
  stop(): Promise<ReceivedRequests>;
  /** Ends one that only prepares, at once: it has nothing to finish, and an import that never ends hears nothing. */
  abandon(): void;
  /** Resolves when the process is gone, with how. */
  readonly ended: Promise<string>;
}

export interface SupervisorOptions {
  readonly spawn: () => Pipeline;
  readonly port: number | undefined;
  readonly onReady: (ready: Pick<Ready, "url" | "token"> & Pick<Prepared, "events">) => void;
  /** `isServing`: the pipeline that ran before goes on. */
  readonly onFault: (fault: Fault, isServing: boolean) => void;
  readonly onCrash: (how: string) => void;
  /** What crashes as soon as it is ready must not be started again and again without a pause. Default: 2 s. */
  readonly crashPauseMs?: number;
}

/**
 * Keeps one pipeline running, and replaces it when the definitions change:
 *
 *     reload ──► next: prepare ──fault──► shown; the one that runs stays as it is
 *                      │ prepared          a change meanwhile abandons it; the next one begins
 *                current: stop ──► next: serve ──fault──► shown; nothing runs until the next reload
 *                                        │ ready
 *                                   next is current ──crash──► reload
 *
 * The definitions are checked beside the running pipeline, so a typing mistake stops no delivery. Only one may hold the replication
 * slot and the port, so the old one ends before the new one serves.
 */
export class Supervisor {
  readonly #options: SupervisorOptions;
  /** Written by `#replace` alone. */
  #current: Pipeline | undefined;
  /** The one that is to come; `stop` ends it. */
  #next: Pipeline | undefined;
  /** The same while it is being prepared. Written by `#replace`, and taken by whoever abandons it. */
  #preparing: Pipeline | undefined;
  #handover: Handover;
  /** A reload was asked for since the running one began. Changes that come while one runs become one more. */
  #isWanted = false;
  readonly #stopping = new AbortController();
  #work: Promise<void> | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#handover = { port: options.port, received: {} };
  }

  /** The first pipeline, or one for what changed. Resolves when nothing is left to do. */
  reload(): Promise<void> {
    this.#isWanted = true;
    this.#abandon();
    this.#work ??= this.#drain().finally(() => (this.#work = undefined));
    return this.#work;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#abandon();
    await this.#next?.stop();
    await this.#work;
    const current = this.#current;
    this.#current = undefined;
    await current?.stop();
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** What it prepares is out of date. */
  #abandon(): void {
    this.#preparing?.abandon();
    this.#preparing = undefined;
  }

  async #drain(): Promise<void> {
    while (this.#isWanted && !this.#isStopping) {
      this.#isWanted = false;
      await this.#replace();
    }
  }

  async #replace(): Promise<void> {
    const next = this.#options.spawn();
    this.#next = next;
    this.#preparing = next;
    try {
      const prepared = await next.prepare();
      const isAbandoned = this.#preparing === undefined;
      this.#preparing = undefined;
      if (this.#isStopping) return;
      if (isAbandoned) {
        await next.stop();
        return;
      }
      if (prepared.kind === "fault") {
        await next.stop();
        this.#options.onFault(prepared, this.#current !== undefined);
        return;
      }
      const old = this.#current;
      this.#current = undefined;
      if (old !== undefined) this.#handover = { ...this.#handover, received: await old.stop() };
      const ready = await next.serve(this.#handover);
      if (this.#isStopping) return;
      if (ready.kind === "fault") {
        await next.stop();
        this.#options.onFault(ready, false);
        return;
      }
      this.#handover = { ...this.#handover, port: ready.port };
      this.#current = next;
      this.#watchForCrash(next);
      this.#options.onReady({ url: ready.url, token: ready.token, events: prepared.events });
    } finally {
      this.#next = undefined;
    }
  }

  /** Only one that was ready is replaced: what crashes on its way there would crash again, and again. */
  #watchForCrash(pipeline: Pipeline): void {
    void pipeline.ended.then(async (how) => {
      if (this.#current !== pipeline || this.#isStopping) return;
      this.#current = undefined;
      this.#options.onCrash(how);
      await pause(this.#options.crashPauseMs ?? 2_000, this.#stopping.signal);
      // A change of a file may have started one meanwhile.
      if (this.#current === undefined && this.#work === undefined) await this.reload();
    });
  }
}
