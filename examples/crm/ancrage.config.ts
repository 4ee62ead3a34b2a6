import { defineConfig } from "ancrage";

export default defineConfig({
  // `ancrage dev` brings a database of its own where this is not set.
  database: process.env["DATABASE_URL"],
  environment: process.env["ANCRAGE_ENVIRONMENT"] ?? "development",
});
