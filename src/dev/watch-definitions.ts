import { type FSWatcher, readdirSync, watch } from "node:fs";
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

const parts = ["events", "tracking"];

/**
 * Watches what defines events. The folder itself is watched flat, and in depth only the two below it: it may be the root of a
 * repository, and `node_modules` has more folders than a user may watch.
 *
 * Each folder has a flat watch of its own. Node's recursive watch on Linux follows the files that it found at first: of one that is
 * replaced by a rename, as many editors save, it saw the first replacement and nothing after it.
 */
export function watchDefinitions(options: WatchOptions): DefinitionWatch {
  const changed = new Set<string>();
  /** By path below the folder, with slashes. */
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
  /** Watches a folder and those in it; answers with the definition files that it found there. */
  const attach = (path: string): readonly string[] => {
    if (watchers.has(path)) return [];
    let watcher: FSWatcher;
    let entries: readonly string[];
    try {
      // Fails on what is a file, which `watch` would take.
      readdirSync(join(options.folder, path));
      watcher = watch(join(options.folder, path));
      watchers.set(path, watcher);
      // Now that nothing that comes is missed.
      entries = readdirSync(join(options.folder, path));
    } catch {
      // Not there (yet), gone again, or no folder.
      detach(path);
      return [];
    }
    watcher.on("change", (_kind, name) => {
      const entry = `${path}/${String(name)}`;
      if (isDefinitionFile(entry)) note(entry);
      else if (!isIgnoredFolder(String(name))) renew(entry);
    });
    // The folder went; the watch of the one above sees when it comes back.
    watcher.on("error", () => detach(path));
    return entries.flatMap((name) => {
      const entry = `${path}/${name}`;
      if (isDefinitionFile(entry)) return [entry];
      return isIgnoredFolder(name) ? [] : attach(entry);
    });
  };
  const detach = (path: string): boolean => {
    const gone = [...watchers.keys()].filter((watched) => watched === path || watched.startsWith(`${path}/`));
    for (const watched of gone) {
      watchers.get(watched)?.close();
      watchers.delete(watched);
    }
    return gone.length > 0;
  };
  /** Something came, went or was replaced by another of its name: the old watch would look at what is gone. */
  const renew = (path: string): void => {
    const wasWatched = detach(path);
    const files = attach(path);
    if (wasWatched || watchers.has(path)) note(path);
    // Written before the watch began, so that nobody will tell of them.
    for (const file of files) note(file);
  };

  const root = watch(options.folder);
  root.on("change", (_kind, name) => {
    if (parts.includes(String(name))) renew(String(name));
    else if (isDefinitionFile(String(name))) note(String(name));
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

function isIgnoredFolder(name: string): boolean {
  return name === "node_modules" || name.startsWith(".");
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
