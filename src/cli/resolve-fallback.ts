import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";

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
        throw placeAtImport(error, specifier, context.parentURL);
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

/**
 * Puts the place of the import into the first line of the stack, as Node does for a syntax error. The first place that it has else is
 * this file's, since the hook above stands between.
 */
function placeAtImport(error: Error, specifier: string, importer: string | undefined): Error {
  if (importer?.startsWith("file:") !== true) return error;
  const line = lineOfImport(fileURLToPath(importer), specifier);
  const head = `${error.name}: ${error.message}`;
  error.stack = line === undefined ? head : `${importer}:${line}\n${head}`;
  return error;
}

function lineOfImport(path: string, specifier: string): number | undefined {
  try {
    const lines = readFileSync(path, "utf8").split("\n");
    const index = lines.findIndex((line) => line.includes(`"${specifier}"`) || line.includes(`'${specifier}'`));
    return index === -1 ? undefined : index + 1;
  } catch {
    return undefined;
  }
}

function isNotFound(error: unknown): error is Error {
  return error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND";
}
