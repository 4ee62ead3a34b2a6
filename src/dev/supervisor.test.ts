import { expect, test } from "vitest";
import type { Fault, Handover } from "./protocol.ts";
import { type Pipeline, Supervisor } from "./supervisor.ts";

const fault: Fault = { kind: "fault", code: "ANCRAGE_DEFINITION_INVALID", message: "1 fault" };

interface Script {
  readonly prepare?: Fault | Promise<Fault>;
  /** Its import never ends. */
  readonly hangs?: boolean;
  readonly serve?: Fault;
}

interface Bench {
  readonly supervisor: Supervisor;
  /** What happened, in order. */
  readonly log: string[];
  readonly handovers: Handover[];
  /** Ends the pipeline of this number as a crash would. */
  crash(number: number): void;
}

/** Pipelines that do at once what their script says; the first one is number 1. */
function createBench(...scripts: readonly Script[]): Bench {
  const log: string[] = [];
  const handovers: Handover[] = [];
  const ends: (() => void)[] = [];
  const gates = scripts.map(({ hangs }) => (hangs === true ? Promise.withResolvers<Fault>() : undefined));
  let count = 0;
  const spawn = (): Pipeline => {
    const number = ++count;
    const script = { ...scripts[number - 1], ...(gates[number - 1] && { prepare: gates[number - 1]?.promise }) };
    const ended = Promise.withResolvers<string>();
    ends.push(() => ended.resolve("exit code 1"));
    log.push(`spawn ${number}`);
    return {
      ended: ended.promise,
      prepare: async () => (await script.prepare) ?? { kind: "prepared", events: ["A"], graceS: 1 },
      abandon() {
        log.push(`abandon ${number}`);
        gates[number - 1]?.resolve(fault);
      },
      async serve(handover) {
        log.push(`serve ${number}`);
        handovers.push(handover);
        const port = handover.port ?? 4000;
        return script.serve ?? { kind: "ready", url: `http://127.0.0.1:${port}`, port, token: "t" };
      },
      async stop() {
        log.push(`stop ${number}`);
        ended.resolve("exit code 0");
        return { demo: [{ number, at: "", status: 200, headers: {}, body: null }] };
      },
    };
  };
  const supervisor = new Supervisor({
    spawn,
    port: undefined,
    crashPauseMs: 1,
    onReady: ({ url, events }) => log.push(`ready ${url} ${events.join()}`),
    onFault: (_fault, isServing) => log.push(`fault ${isServing ? "serving" : "idle"}`),
    onCrash: (how) => log.push(`crash ${how}`),
  });
  return { supervisor, log, handovers, crash: (number) => ends[number - 1]?.() };
}

test("a reload prepares the next one, then ends the old one, then lets the next one serve, on the same port", async () => {
  const { supervisor, log, handovers } = createBench();
  await supervisor.reload();
  await supervisor.reload();
  expect(log).toEqual([
    "spawn 1",
    "serve 1",
    "ready http://127.0.0.1:4000 A",
    "spawn 2",
    "stop 1",
    "serve 2",
    "ready http://127.0.0.1:4000 A",
  ]);
  expect(handovers[1]).toEqual({ port: 4000, received: { demo: [expect.objectContaining({ number: 1 })] } });
});

test("a fault in the definitions leaves the running one as it is", async () => {
  const { supervisor, log } = createBench({}, { prepare: fault });
  await supervisor.reload();
  await supervisor.reload();
  expect(log.slice(3)).toEqual(["spawn 2", "stop 2", "fault serving"]);
  await supervisor.reload();
  expect(log.slice(6)).toEqual(["spawn 3", "stop 1", "serve 3", "ready http://127.0.0.1:4000 A"]);
});

test("a fault while serving leaves nothing running, and the next reload tries again with what was received", async () => {
  const { supervisor, log, handovers } = createBench({}, { serve: fault });
  await supervisor.reload();
  await supervisor.reload();
  expect(log.slice(3)).toEqual(["spawn 2", "stop 1", "serve 2", "stop 2", "fault idle"]);
  await supervisor.reload();
  expect(log.at(-1)).toBe("ready http://127.0.0.1:4000 A");
  expect(handovers[2]?.received).toHaveProperty("demo");
});

test("changes during a reload become one more", async () => {
  const gate = Promise.withResolvers<Fault>();
  const { supervisor, log } = createBench({ prepare: gate.promise });
  const all = [supervisor.reload(), supervisor.reload(), supervisor.reload()];
  gate.resolve(fault);
  await Promise.all(all);
  expect(log.filter((line) => line.startsWith("spawn"))).toEqual(["spawn 1", "spawn 2"]);
});

test("a change abandons one that is still being prepared, without a word: its import may never end", async () => {
  const { supervisor, log } = createBench({}, { hangs: true });
  await supervisor.reload();
  const first = supervisor.reload();
  const second = supervisor.reload();
  await Promise.all([first, second]);
  expect(log.slice(3)).toEqual(["spawn 2", "abandon 2", "stop 2", "spawn 3", "stop 1", "serve 3", "ready http://127.0.0.1:4000 A"]);
});

test("one that crashes after it was ready is started again", async () => {
  const { supervisor, log, crash } = createBench();
  await supervisor.reload();
  crash(1);
  await expect.poll(() => log.at(-1)).toBe("ready http://127.0.0.1:4000 A");
  await expect.poll(() => log.length).toBe(7);
  expect(log.slice(3)).toEqual(["crash exit code 1", "spawn 2", "serve 2", "ready http://127.0.0.1:4000 A"]);
});

test("stop ends what runs, and nothing is started any more", async () => {
  const { supervisor, log } = createBench();
  await supervisor.reload();
  await supervisor.stop();
  await supervisor.stop();
  await supervisor.reload();
  expect(log.slice(3)).toEqual(["stop 1"]);
});

test("stop ends one that is being prepared, together with the one that runs", async () => {
  const gate = Promise.withResolvers<Fault>();
  const { supervisor, log } = createBench({}, { prepare: gate.promise });
  await supervisor.reload();
  const reloading = supervisor.reload();
  const stopping = supervisor.stop();
  gate.resolve(fault);
  await Promise.all([reloading, stopping]);
  expect(log.slice(3)).toEqual(["spawn 2", "abandon 2", "stop 2", "stop 1"]);
});
