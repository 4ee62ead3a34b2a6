import { type FSWatcher, watch } from "node:fs";
import { join } from "node:path";

export interface WatchOptions {
  /** Holds `events/`, `tracking/` and the config; the first two may come later. */
  readonly folder: string;
  /** Called once for what changed together, with paths below the folder. */
  readonly onChange: (files: readonly string[]) => void;
  /** Editors save in several steps; a checkout touches many files. */
  readonly debounceMs?: number;
}

export interface DefinitionWatch {
  close(): void;
}

const parts = ["events", "tracking"] as const;

/**
 * Watches what defines events. The folder itself is watched flat, and only the two below it in depth: it may be the root of a
 * repository, and `node_modules` has more folders than a user may watch.
 */
export function watchDefinitions(options: WatchOptions): DefinitionWatch {
  const changed = new Set<string>();
  const watchers = new Map<string, FSWatcher>();
  let timer: NodeJS.Timeout | undefined;

  const report = (): void => {
    timer = undefined;
    const files = [...changed].toSorted();
    changed.clear();
    options.onChange(files);
  };
  const note = (file: string): void => {
    changed.add(file);
    clearTimeout(timer);
    timer = setTimeout(report, options.debounceMs ?? 80);
  };
  const attach = (part: (typeof parts)[number]): void => {
    if (watchers.has(part)) return;
    try {
      const watcher = watch(join(options.folder, part), { recursive: true });
      watchers.set(part, watcher);
      watcher.on("change", (_kind, name) => {
        const file = `${part}/${String(name).replaceAll("\\", "/")}`;
        if (isDefinitionFile(file)) note(file);
      });
      // The folder went; the flat watch above sees when it comes back.
      watcher.on("error", () => detach(part));
    } catch {
      // Not there (yet).
    }
  };
  const detach = (part: string): void => {
    watchers.get(part)?.close();
    watchers.delete(part);
  };

  const root = watch(options.folder);
  root.on("change", (_kind, name) => {
    const part = parts.find((candidate) => candidate === name);
    if (part !== undefined) {
      // Made, removed, or replaced by another of its name: the old watch would look at what is gone.
      detach(part);
      attach(part);
      note(part);
    } else if (isDefinitionFile(String(name))) note(String(name));
  });
  root.on("error", () => root.close());
  for (const part of parts) attach(part);

  return {
    close() {
      clearTimeout(timer);
      root.close();
      for (const part of parts) detach(part);
    },
  };
}

/**
 * Whether a change of this file, named below the folder, can change what events do. What an event file imports from beside it
 * (`events/_shared.ts`, `events/rates.json`) counts; what an editor leaves behind does not.
 */
export function isDefinitionFile(file: string): boolean {
  if (/\.d\.m?ts$|\.test\.m?[tj]s$/.test(file)) return false;
  if (/^ancrage\.config\.m?[tj]s$/.test(file)) return true;
  return /^(events|tracking)\/(.*\/)?[^./][^/]*\.(m?[tj]s|json)$/.test(file);
}
