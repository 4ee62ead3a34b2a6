import { registerHooks } from "node:module";

let isRegistered = false;

/**
 * Lets definitions import `ancrage` and `zod` from a folder that has neither: where Node finds none, those of the running installation
 * are taken. What a folder has of its own goes first. Called any number of times.
 *
 * `ancrage dev` in an empty folder is then all that a first event needs. (The hooks run for every import of this process, and ask
 * nothing of those that resolve.)
 */
export function registerResolveFallback(): void {
  if (isRegistered) return;
  isRegistered = true;
  registerHooks({
    resolve(specifier, context, nextResolve) {
      try {
        return nextResolve(specifier, context);
      } catch (error) {
        if (!isNotFound(error)) throw error;
        const own = ownModule(specifier);
        if (own !== undefined)
          return { url: own.href, format: own.href.endsWith(".ts") ? "module-typescript" : "module", shortCircuit: true };
        if (/^zod(\/|$)/.test(specifier)) return nextResolve(specifier, { ...context, parentURL: import.meta.url });
        throw error;
      }
    },
  });
}

/** By URL and not by name: a checkout that is run from its sources has no built files for the name to lead to. */
function ownModule(specifier: string): URL | undefined {
  const ending = import.meta.url.endsWith(".ts") ? "ts" : "js";
  if (specifier === "ancrage") return new URL(`../index.${ending}`, import.meta.url);
  if (specifier === "ancrage/testing") return new URL(`../testing.${ending}`, import.meta.url);
  return undefined;
}

function isNotFound(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND";
}
