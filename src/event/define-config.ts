/**
 * Says what `ancrage.config.ts` holds; gives it back as it is.
 *
 * @example
 * ```ts
 * export default defineConfig({ database: process.env.DATABASE_URL, environment: "production" });
 * ```
 */
export function defineConfig<const Config extends object>(config: Config): Config {
  return config;
}
