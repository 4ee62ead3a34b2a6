import { defineConfig } from "vitest/config";

// CI reads the count of tests from this file; see .ci/run.
const report = process.env["VITEST_JSON"];

export default defineConfig({
  resolve: { conditions: ["ancrage-source"] },
  ssr: { resolve: { conditions: ["ancrage-source"], externalConditions: ["ancrage-source"] } },
  test: {
    execArgv: ["-C", "ancrage-source", "--expose-gc"],
    include: ["src/**/*.test.ts", "test/**/*.test.ts", "examples/**/*.test.ts"],
    globalSetup: ["test/global-setup.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    // A machine that stands still for longer than a lease lasts shows another status until it is leased again.
    expect: { poll: { timeout: 30_000, interval: 20 } },
    reporters: report === undefined || report === "" ? ["default"] : ["default", "json"],
    ...(report === undefined || report === "" ? {} : { outputFile: { json: report } }),
    pool: "forks",
    maxWorkers: 2,
    retry: 0,
    env: { NO_COLOR: "1" },
  },
});
