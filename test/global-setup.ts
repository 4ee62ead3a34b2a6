import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import type { TestProject } from "vitest/node";
import { EmbeddedPostgres, makeCluster } from "../src/dev/embedded-postgres.ts";
import { migrateSchema } from "../src/store/migrate.ts";
import { copyCluster } from "./copy-cluster.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** A superuser's connection string to the server under test; its database is the maintenance one. */
    serverUrl: string;
    /** The database that each test file clones: the schema `ancrage` is in it. */
    templateDatabase: string;
    /** A cluster that was initialised and never started; servers of a test's own are copies of it. */
    templateCluster: string;
  }
}

/** One server for the whole run: the one of `TEST_DATABASE_URL`, else an embedded PostgreSQL in a temporary folder. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env["TEST_DATABASE_URL"] || undefined;
  const templateCluster = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  await makeCluster(templateCluster);
  let embedded: EmbeddedPostgres | undefined;
  if (given === undefined) {
    embedded = new EmbeddedPostgres({ directory: await copyCluster(templateCluster), isThrowaway: true });
    await embedded.start();
  }
  const serverUrl = given ?? embedded?.url() ?? "";
  const templateDatabase = `ancrage_template_${process.pid}`;
  const admin = new pg.Client({ connectionString: serverUrl });
  await admin.connect();
  await admin.query(`drop database if exists ${templateDatabase}`);
  await admin.query(`create database ${templateDatabase}`);
  const template = new pg.Client({ connectionString: withDatabase(serverUrl, templateDatabase) });
  await template.connect();
  await migrateSchema(template);
  await template.end();
  project.provide("serverUrl", serverUrl);
  project.provide("templateDatabase", templateDatabase);
  project.provide("templateCluster", templateCluster);
  return async () => {
    await admin.query(`drop database if exists ${templateDatabase} with (force)`);
    await admin.end();
    await embedded?.remove();
    await rm(templateCluster, { recursive: true, force: true });
  };
}

function withDatabase(serverUrl: string, database: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${database}`;
  return url.href;
}
