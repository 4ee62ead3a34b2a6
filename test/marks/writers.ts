import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { integer, pgTable } from "drizzle-orm/pg-core";
import { Kysely, PostgresDialect } from "kysely";
import type pg from "pg";

/** How an application writes: the same five things, each with its library's own means, on a pool that the test has marked. */
export interface Writer {
  /** One statement, in no transaction. */
  update(id: number): Promise<unknown>;
  /** `n + 1`, in a transaction that reads before. */
  updateInTransaction(id: number): Promise<unknown>;
  /** `n + 1` in a savepoint that is rolled back and holds the first change, then `n + 10`. */
  updateAfterSavepoint(id: number): Promise<unknown>;
  /** `n + 1`, rolled back. */
  rollBack(id: number): Promise<unknown>;
  /** `n + 1`, serializable. */
  updateSerializable(id: number): Promise<unknown>;
}

export const writers: Readonly<Record<string, (pool: pg.Pool) => Writer>> = {
  pg: writeWithPg,
  kysely: writeWithKysely,
  drizzle: writeWithDrizzle,
};

function writeWithPg(pool: pg.Pool): Writer {
  const update = "update item set n = n + $2 where id = $1";
  async function inTransaction(begin: string, work: (client: pg.PoolClient) => Promise<unknown>): Promise<void> {
    const client = await pool.connect();
    try {
      await client.query(begin);
      await work(client);
      await client.query("commit");
    } catch (error) {
      await client.query("rollback");
      throw error;
    } finally {
      client.release();
    }
  }
  return {
    update: (id) => pool.query(update, [id, 1]),
    updateInTransaction: (id) =>
      inTransaction("begin", async (client) => {
        await client.query({ text: "select n from item where id = $1", values: [id] });
        await client.query(update, [id, 1]);
      }),
    updateAfterSavepoint: (id) =>
      inTransaction("begin", async (client) => {
        await client.query("savepoint s");
        await client.query(update, [id, 1]);
        await client.query("rollback to s");
        await client.query(update, [id, 10]);
      }),
    rollBack: (id) =>
      inTransaction("begin", async (client) => {
        await client.query(update, [id, 1]);
        throw new Error("no");
      }).catch(() => undefined),
    updateSerializable: (id) =>
      inTransaction("begin", async (client) => {
        await client.query("set transaction isolation level serializable");
        await client.query(update, [id, 1]);
      }),
  };
}

function writeWithKysely(pool: pg.Pool): Writer {
  const db = new Kysely<{ item: { id: number; n: number } }>({ dialect: new PostgresDialect({ pool }) });
  const updateBy = (on: Pick<typeof db, "updateTable">, id: number, by: number): Promise<unknown> =>
    on
      .updateTable("item")
      .set((item) => ({ n: item("n", "+", by) }))
      .where("id", "=", id)
      .execute();
  return {
    update: (id) => updateBy(db, id, 1),
    updateInTransaction: (id) =>
      db.transaction().execute(async (transaction) => {
        await transaction.selectFrom("item").select("n").where("id", "=", id).execute();
        await updateBy(transaction, id, 1);
      }),
    async updateAfterSavepoint(id) {
      const transaction = await db.startTransaction().execute();
      const inside = await transaction.savepoint("s").execute();
      await updateBy(inside, id, 1);
      const outside = await inside.rollbackToSavepoint("s").execute();
      await updateBy(outside, id, 10);
      await outside.commit().execute();
    },
    rollBack: (id) =>
      db
        .transaction()
        .execute(async (transaction) => {
          await updateBy(transaction, id, 1);
          throw new Error("no");
        })
        .catch(() => undefined),
    updateSerializable: (id) =>
      db
        .transaction()
        .setIsolationLevel("serializable")
        .execute((transaction) => updateBy(transaction, id, 1)),
  };
}

function writeWithDrizzle(pool: pg.Pool): Writer {
  const db = drizzle(pool);
  const item = pgTable("item", { id: integer().primaryKey(), n: integer().notNull() });
  const updateBy = async (on: Pick<typeof db, "update">, id: number, by: number): Promise<unknown> =>
    on
      .update(item)
      .set({ n: sql`${item.n} + ${by}` })
      .where(eq(item.id, id));
  return {
    update: (id) => updateBy(db, id, 1),
    updateInTransaction: (id) =>
      db.transaction(async (transaction) => {
        await transaction.select().from(item).where(eq(item.id, id));
        await updateBy(transaction, id, 1);
      }),
    updateAfterSavepoint: (id) =>
      db.transaction(async (transaction) => {
        await transaction
          .transaction(async (inside) => {
            await updateBy(inside, id, 1);
            inside.rollback();
          })
          .catch(() => undefined);
        await updateBy(transaction, id, 10);
      }),
    rollBack: (id) =>
      db
        .transaction(async (transaction) => {
          await updateBy(transaction, id, 1);
          transaction.rollback();
        })
        .catch(() => undefined),
    updateSerializable: (id) => db.transaction((transaction) => updateBy(transaction, id, 1), { isolationLevel: "serializable" }),
  };
}
