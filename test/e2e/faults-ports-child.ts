import type { ServerResponse } from "node:http";
import { startReceiver, type ReceivedRequest } from "../receiver.ts";
import { startSending } from "../sending.ts";

// Twelve requests at once where there are eight local ports, one of which the receiver may have: prints what came of each.
const receiver = await startReceiver();
const held: ServerResponse[] = [];
receiver.answer((_: ReceivedRequest, response: ServerResponse): void => void held.push(response));
const sending = startSending({ connectionsPerOrigin: 16 });
let unsent = 0;
const outcomes = Array.from({ length: 12 }, async (_, index) => {
  const outcome = await sending.send(receiver.url, `msg_${index}`);
  if (outcome.kind === "unsent") unsent++;
  return outcome;
});
while (held.length + unsent < outcomes.length) await new Promise((resolve) => setTimeout(resolve, 10));
for (const response of held) response.writeHead(200).end();
process.stdout.write(JSON.stringify(await Promise.all(outcomes)));
await sending.close();
await receiver.close();
