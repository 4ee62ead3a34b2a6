import { createServer, type AddressInfo, type Socket } from "node:net";
import { hostileScripts } from "../test/hostile-scripts.ts";
import { answerParent, type Methods } from "./child.ts";

/** Receivers that do harm, each on a port of its own, in a process of its own. */
export interface HostileMethods extends Methods {
  /** @returns their URLs */
  listen(): Promise<readonly string[]>;
}

/** Whatever comes of a request, it is answered once: one packet holds it. */
async function listen(answer: (socket: Socket) => void): Promise<string> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on("data", () => answer(socket));
    socket.on("error", () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

answerParent({ listen: () => Promise.all(Object.values(hostileScripts).map(listen)) } satisfies HostileMethods);
