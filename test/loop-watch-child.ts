import { watchLoop } from "../src/cli/loop-watch.ts";

// A process whose event loop a file of events holds for two seconds: see src/cli/loop-watch.test.ts.
const stop = watchLoop({ afterMs: 500 });
const { hold } = (await import(process.argv[2] ?? "")) as { readonly hold: (ms: number) => void };
setTimeout(() => {
  hold(2_000);
  setTimeout(() => void stop(), 500);
}, 300);
