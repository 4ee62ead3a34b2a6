import { expect, test } from "vitest";
import { statementKind, type StatementKind } from "./statement.ts";

const kinds: Readonly<Record<StatementKind, readonly string[]>> = {
  begin: [
    "begin",
    "BEGIN;",
    " start transaction isolation level serializable",
    "begin isolation level repeatable read read write",
    "commit and chain",
    "update a set x = 1; begin; insert into b values (1)",
    "update a set x = 1; commit; start transaction; insert into b values (1);",
  ],
  "begin-read-only": ["begin read only", "start transaction isolation level serializable, read  only"],
  end: [
    "commit",
    "COMMIT",
    "end",
    "rollback",
    "rollback work",
    "abort",
    "commit and no chain",
    "prepare transaction 'x'",
    "begin; insert into a values (1); commit;",
    "update a set x = 1; commit; insert into b values (1)",
    "with x as (select 1) update a set x = 1; commit",
  ],
  back: ["rollback to s", "ROLLBACK TO SAVEPOINT s", "rollback work to s"],
  setting: [
    "set local x = 1",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "savepoint s",
    "release s",
    "prepare p as select 1",
    "lock table a",
  ],
  "setting-read-only": ["set transaction isolation level repeatable read, read only"],
  "setting-read-write": ["SET TRANSACTION READ WRITE"],
  write: [
    "insert into a values (1)",
    "\n  UPDATE a set x = 1",
    "/* by: me */ -- and you\ndelete from a",
    "merge into a using b on true when matched then delete",
    "with x as (select 1) update a set x = 1",
    "insert into a values ('; commit')",
    "update a set x = e'\\'; begin'; update b set y = $1",
    'update a set x = $q$; begin;$q$, "; begin" = 1; -- ; begin\n update b set y = 2 /* ; commit */',
    "update a set x = 1; rollback to s; update b set y = 2",
  ],
  other: [
    "create function f() returns void begin atomic select 1; end",
    "select 1",
    "with x as (select 1) select * from x",
    "call p()",
    "",
    "notify c",
  ],
};

test.each(Object.entries(kinds).flatMap(([kind, texts]) => texts.map((text) => [text, kind])))("%j is %s", (text, kind) => {
  expect(statementKind(text ?? "")).toBe(kind);
});
