import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { conditions: ["ancrage-source"] },
  ssr: { resolve: { conditions: ["ancrage-source"], externalConditions: ["ancrage-source"] } },
  test: {
    execArgv: ["-C", "ancrage-source"],
    include: ["src/**/*.test.ts", "test/**/*.test.ts", "examples/**/*.test.ts"],
    globalSetup: ["test/global-setup.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    pool: "forks",
    maxWorkers: 2,
    retry: 0,
    env: { NO_COLOR: "1" },
  },
});
