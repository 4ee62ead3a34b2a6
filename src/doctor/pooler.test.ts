import { expect, test } from "vitest";
import { isRefusalOfPooler, recognisePooler } from "./pooler.ts";

test.each([
  ["postgres://postgres.abcdefghijklmnopqrst:x@aws-0-eu-central-1.pooler.supabase.com:6543/postgres", "Supavisor"],
  ["postgres://postgres.abcdefghijklmnopqrst:x@db.internal:5432/postgres", "Supavisor"],
  ["postgresql://app:x@ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech/app", "Neon"],
  ["postgres://app:x@shop.proxy-abcdef.eu-west-1.rds.amazonaws.com:5432/app", "RDS Proxy"],
  ["postgres://app:x@shop.postgres.database.azure.com:6432/app", "Azure"],
  ["postgres://app:x@pg-1-shop.aivencloud.com:12345/app-pool", "Aiven"],
  ["postgres://app:x@10.0.0.5:6432/app", "PgBouncer"],
  ["postgres://app:x@pgbouncer.svc.local:5432/app", "PgBouncer"],
])("%s is one", (url, name) => {
  expect(recognisePooler(url)?.name).toContain(name);
  expect(recognisePooler(url)?.instead).toMatch(/^Take /);
});

test.each([
  "postgres://postgres:x@db.abcdefghijklmnopqrst.supabase.co:5432/postgres",
  "postgres://app:x@ep-cool-darkness-123456.us-east-2.aws.neon.tech/app",
  "postgres://app:x@shop.abcdef.eu-west-1.rds.amazonaws.com:5432/app",
  "postgres://app:x@shop.postgres.database.azure.com:5432/app",
  "postgres://app:x@127.0.0.1:5432/app",
  "nonsense",
])("%s is none", (url) => {
  expect(recognisePooler(url)).toBeUndefined();
});

test("the direct host of Neon is named", () => {
  expect(recognisePooler("postgresql://app:x@ep-a-1-pooler.us-east-2.aws.neon.tech/app")?.instead).toContain(
    "ep-a-1.us-east-2.aws.neon.tech",
  );
});

test("PgBouncer tells itself by what it refuses", () => {
  expect(isRefusalOfPooler("unsupported startup parameter: options")).toBe(true);
  expect(isRefusalOfPooler("password authentication failed for user")).toBe(false);
});
