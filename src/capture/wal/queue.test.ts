import fc from "fast-check";
import { expect, test } from "vitest";
import type { Captured, Change, Transaction } from "../change.ts";
import { parseSnapshot } from "../visibility.ts";
import { createTransactionQueue } from "./queue.ts";

const allVisible = parseSnapshot("1000000:1000000:");
const transactionOf = (number: number): Transaction => ({ xid: number + 3, commitLsn: BigInt(number) * 100n, committedAtUs: 0n });
const changeOf = (transaction: Transaction, ordinal: number): Change => ({
  kind: "change",
  transaction,
  position: { commitLsn: transaction.commitLsn, changeLsn: 1n, ordinal },
  table: "deal",
  action: "insert",
  key: String(ordinal),
  before: undefined,
  after: {},
});
const nameOf = (item: Captured): string =>
  `${item.transaction.commitLsn / 100n}/${item.kind === "commit" ? "commit" : item.kind === "change" ? item.key : item.kind}`;

test("what comes in leaves once and in order, however it is cut, and the bytes come back to zero", () => {
  const sizes = fc.array(fc.nat({ max: 30 }), { maxLength: 60 });
  fc.assert(
    fc.property(sizes, fc.infiniteStream(fc.nat({ max: 20 })), (transactions, takes) => {
      const queue = createTransactionQueue();
      const expected: string[] = [];
      const taken: string[] = [];
      const take = (): void => {
        const limit = takes.next().value;
        queue.show(allVisible);
        const items = queue.take(limit);
        expect(items.length).toBeLessThanOrEqual(limit);
        for (const item of items) taken.push(nameOf(item));
      };
      for (const [number, size] of transactions.entries()) {
        const transaction = transactionOf(number);
        queue.begin(transaction);
        for (let i = 0; i < size; i++) {
          queue.push(changeOf(transaction, i), 7);
          expected.push(`${number}/${i}`);
          if (i % 5 === 0) take();
        }
        queue.end(transaction.commitLsn + 1n);
        expected.push(`${number}/commit`);
      }
      queue.show(allVisible);
      while (queue.hasItems) for (const item of queue.take(1_000)) taken.push(nameOf(item));
      expect(taken).toEqual(expected);
      expect(queue.bytes).toBe(0);
    }),
  );
});

test("a transaction that is not visible holds back all after it", () => {
  const queue = createTransactionQueue();
  for (const number of [1, 2, 3]) {
    queue.begin(transactionOf(number));
    queue.push(changeOf(transactionOf(number), 0), 1);
    queue.end(1n);
  }
  queue.show(parseSnapshot("4:7:5"));
  expect(queue.take(10).map(nameOf)).toEqual(["1/0", "1/commit"]);
  expect([queue.hasItems, queue.isVisible]).toEqual([true, false]);
  queue.show(parseSnapshot("7:7:"));
  expect(queue.take(10).map(nameOf)).toEqual(["2/0", "2/commit", "3/0", "3/commit"]);
});

test("a transaction that was taken in part goes on where it was when the log begins it again", () => {
  const queue = createTransactionQueue();
  queue.begin(transactionOf(1));
  queue.push(changeOf(transactionOf(1), 0), 1);
  queue.show(allVisible);
  expect(queue.take(10).map(nameOf)).toEqual(["1/0"]);
  // The connection was lost; the log begins the transaction again, and the source drops what it has seen.
  queue.begin(transactionOf(1));
  queue.push(changeOf(transactionOf(1), 1), 1);
  queue.end(1n);
  expect(queue.isVisible).toBe(true);
  expect(queue.take(10).map(nameOf)).toEqual(["1/1", "1/commit"]);
});

test("a transaction whose end was taken already is not gone on with", () => {
  const queue = createTransactionQueue();
  expect(() => queue.end(1n)).toThrow("no transaction is being read");
  queue.begin(transactionOf(1));
  queue.end(1n);
  queue.show(allVisible);
  queue.take(10);
  expect(() => queue.push(changeOf(transactionOf(1), 0), 1)).toThrow("no transaction is being read");
});
