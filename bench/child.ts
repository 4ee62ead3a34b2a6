import { fork } from "node:child_process";

/** What a process of the bench answers to: each method takes one value, or none, and gives one back. */
export type Methods = Readonly<Record<string, (...argument: never[]) => unknown>>;

/** A process of the bench, as the one that started it sees it. */
export interface Child<Answers extends Methods> {
  readonly pid: number;
  /** @throws Error with what the child threw, or how it ended */
  call<Name extends keyof Answers & string>(
    name: Name,
    ...argument: Parameters<Answers[Name]>
  ): Promise<Awaited<ReturnType<Answers[Name]>>>;
  /** Ends it. Idempotent. */
  end(): Promise<void>;
}

interface Call {
  readonly number: number;
  readonly name: string;
  readonly argument: readonly unknown[];
}

interface Answer {
  readonly number: number;
  readonly value?: unknown;
  readonly error?: string;
}

/** Starts one of the files beside this one, in a process of its own: what is measured shares no event loop with what measures. */
export function startChild<Answers extends Methods>(module: URL, env: Readonly<Record<string, string>> = {}): Child<Answers> {
  const child = fork(module, { serialization: "advanced", env: { ...process.env, ...env } });
  const waiting = new Map<number, (answer: Answer) => void>();
  let calls = 0;
  let endedHow: string | undefined;
  const ended = new Promise<void>((resolve) => {
    const end = (how: string): void => {
      endedHow = how;
      for (const [number, answer] of waiting) answer({ number, error: how });
      resolve();
    };
    child.once("error", (error) => end(error.message));
    child.once("exit", (code, signal) => end(`${module.pathname} ended (${signal ?? `exit code ${String(code)}`})`));
  });
  child.on("message", (answer: Answer) => waiting.get(answer.number)?.(answer));
  return {
    pid: child.pid ?? 0,
    async call(name, ...argument) {
      const number = calls++;
      const answer = await new Promise<Answer>((resolve) => {
        waiting.set(number, resolve);
        if (endedHow !== undefined) resolve({ number, error: endedHow });
        else child.send({ number, name, argument } satisfies Call, (error) => error !== null && resolve({ number, error: error.message }));
      });
      waiting.delete(number);
      if (answer.error !== undefined) throw new Error(`${name}: ${answer.error}`);
      return answer.value as never;
    },
    async end() {
      if (child.connected) child.disconnect();
      await ended;
    },
  };
}

/** In a child: answers its parent's calls until the parent lets go of it, or dies. */
export function answerParent(methods: Methods): void {
  process.on("message", ({ number, name, argument }: Call) => {
    const answered = async (): Promise<unknown> => methods[name]?.(...(argument as never[]));
    answered().then(
      (value) => process.send?.({ number, value } satisfies Answer),
      (error: unknown) => process.send?.({ number, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    );
  });
  process.on("disconnect", () => process.exit());
}
