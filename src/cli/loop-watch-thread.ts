import { writeSync } from "node:fs";
import { Session, type Debugger, type InspectorNotification } from "node:inspector";
import { workerData } from "node:worker_threads";
import { frameOfDefinition } from "./last-words.ts";
import type { LoopWatchData } from "./loop-watch.ts";

// The thread of `watchLoop`. It counts its own turns and asks no clock: a machine that was suspended has held neither loop.
const { beats, afterMs } = workerData as LoopWatchData;
const turnsUntilTold = 5;
/** What goes on is said again after so many turns; at the usual length of one, after a minute. */
const turnsUntilAgain = 60;
/** How long the other thread may take to say where it is. */
const answerMs = 1_000;

let seen = -1;
let silentTurns = 0;
setInterval(() => {
  const beat = Atomics.load(beats, 0);
  if (beat === seen) {
    silentTurns++;
    if (silentTurns === turnsUntilTold || silentTurns % turnsUntilAgain === 0) tellWhere(silentTurns);
    return;
  }
  if (silentTurns >= turnsUntilTold) say("warn", "the event loop turns again", {});
  seen = beat;
  silentTurns = 0;
}, afterMs / turnsUntilTold);

function tellWhere(turns: number): void {
  const seconds = Math.round((turns * afterMs) / turnsUntilTold / 1_000);
  const session = new Session();
  session.connectToMainThread();
  let isTold = false;
  const tell = (at: string | undefined): void => {
    if (isTold) return;
    isTold = true;
    say(
      "error",
      `code has held the event loop for ${seconds} s: nothing is sent or answered, and the lead is lost; no deadline ends it`,
      at === undefined ? {} : { at, hint: "Let the function at this place return sooner, or await between its steps." },
    );
  };
  const urls = new Map<string, string>();
  session.on("Debugger.scriptParsed", ({ params }: InspectorNotification<Debugger.ScriptParsedEventDataType>) => {
    urls.set(params.scriptId, params.url);
  });
  session.on("Debugger.paused", ({ params }: InspectorNotification<Debugger.PausedEventDataType>) => {
    tell(placeOf(params.callFrames, urls));
    session.post("Debugger.resume", () => session.disconnect());
  });
  // It answers in the midst of JavaScript that never returns, and not in the midst of a call into the system.
  session.post("Debugger.enable");
  session.post("Debugger.pause");
  setTimeout(() => {
    if (!isTold) session.disconnect();
    tell(undefined);
  }, answerMs);
}

/** The user's own file, where one is on the stack; else where it is now. */
function placeOf(frames: readonly Debugger.CallFrame[], urls: ReadonlyMap<string, string>): string | undefined {
  const places = frames.map(
    ({ location: { scriptId, lineNumber, columnNumber = 0 } }) => `${urls.get(scriptId) ?? ""}:${lineNumber + 1}:${columnNumber + 1}`,
  );
  return frameOfDefinition(places.join("\n")) ?? places[0];
}

/** As the log writes it; it cannot be asked to. */
function say(level: "error" | "warn", msg: string, more: object): void {
  writeSync(2, `${JSON.stringify({ level, time: new Date().toISOString(), ...more, msg })}\n`);
}
