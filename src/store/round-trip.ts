import type pg from "pg";
import type { Copy } from "./copy.ts";

/**
 * Statements and the rows of their COPYs, sent in one go and answered in one: a simple query may hold several COPYs, and the server takes
 * their rows from what follows it [PostgreSQL manual, "Message Flow", "Simple Query" and "COPY Operations"]. Each wait for the other
 * process costs more than the rows of a small batch [M: docs/decisions/0013].
 *
 * After a statement that fails none of the following is run, and the server drops the rows that were on their way. A transaction that it
 * began is then to be rolled back.
 */
export class RoundTrip {
  readonly #statements: string[] = [];
  readonly #expected: Expected[] = [];
  readonly #copies: Buffer[] = [];

  /** Of its rows and its statements, roughly. */
  get bytes(): number {
    return [...this.#copies, ...this.#statements].reduce((sum, { length }) => sum + length, 0);
  }

  /**
   * @param sql one statement
   * @param expected what it must be answered with: a command's tag, "INSERT 0 5"; or the fewest and the most rows
   */
  add(sql: string, expected: Expected): void {
    this.#statements.push(sql);
    this.#expected.push(expected);
  }

  /** Nothing at all where there are no rows. */
  copy({ sql, count, data }: Copy): void {
    if (count === 0) return;
    this.add(sql, `COPY ${count}`);
    this.#copies.push(data);
  }

  /** @throws what PostgreSQL answered; an error where it answered a statement otherwise than expected */
  async run(client: pg.ClientBase): Promise<void> {
    if (this.#statements.length === 0) return;
    const tags = await new Promise<readonly string[]>((resolve, reject) => {
      client.query(new Exchange(this.#statements.join(";\n"), this.#copies, (error, got) => (error ? reject(error) : resolve(got))));
    });
    for (const [index, expected] of this.#expected.entries()) {
      const tag = tags[index];
      if (!isAsExpected(tag, expected)) throw new Error(`PostgreSQL answered ${String(tag)} instead of ${describe(expected)}`);
    }
  }
}

/** Rows of one table, and nothing else. */
export async function copyAlone(client: pg.ClientBase, copy: Copy): Promise<void> {
  const trip = new RoundTrip();
  trip.copy(copy);
  await trip.run(client);
}

export type Expected = string | { readonly fewest: number; readonly most: number };

function isAsExpected(tag: string | undefined, expected: Expected): boolean {
  if (typeof expected === "string") return tag === expected;
  const rows = Number(tag?.split(" ").at(-1));
  return rows >= expected.fewest && rows <= expected.most;
}

const describe = (expected: Expected): string => (typeof expected === "string" ? expected : `${expected.fewest} to ${expected.most} rows`);

/** What `pg` calls of a query that is not its own; its types name the first method only. */
class Exchange implements pg.Submittable {
  /** Called once. `pg` puts its own around it where a session has a `query_timeout`. */
  callback: (error: Error | null, tags: readonly string[]) => void;
  readonly #text: string;
  readonly #copies: readonly Buffer[];
  readonly #tags: string[] = [];
  #isOver = false;

  constructor(text: string, copies: readonly Buffer[], callback: (error: Error | null, tags: readonly string[]) => void) {
    this.#text = text;
    this.#copies = copies;
    this.callback = callback;
  }

  submit(connection: pg.Connection): void {
    const { stream } = connection;
    stream.cork();
    connection.query(this.#text);
    // After its end `pg` tells of it by `handleError`.
    if (stream.writable) for (const data of this.#copies) stream.write(data);
    stream.uncork();
  }

  handleCommandComplete({ text }: { readonly text: string }): void {
    this.#tags.push(text);
  }

  handleError(error: Error): void {
    this.#end(error);
  }

  handleReadyForQuery(): void {
    this.#end(null);
  }

  /** Its rows are on their way. */
  handleCopyInResponse(): void {}

  handleRowDescription(): void {}

  handleDataRow(): void {}

  #end(error: Error | null): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.callback(error, this.#tags);
  }
}
