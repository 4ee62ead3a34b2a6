import { createServer, type AddressInfo, type Socket } from "node:net";
import { setPriority } from "node:os";
import { hostileScripts } from "../test/hostile-scripts.ts";
import { answerParent, type Methods } from "./child.ts";

/** Who subscribes beside the healthy receiver, each on a port of its own, in a process of their own. */
export interface NeighbourMethods extends Methods {
  /** @returns their URLs */
  listen(): Promise<Neighbours>;
}

export interface Neighbours {
  readonly hanging: readonly string[];
  /** The ones that hang, and others that do harm. */
  readonly hostile: readonly string[];
  /** As many that answer at once. */
  readonly healthy: readonly string[];
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

const ok = Buffer.from("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");

answerParent({
  async listen() {
    // Whoever floods us does it with a processor of its own: here it gets what the measured ones leave of ours.
    setPriority(19);
    const names = Object.keys(hostileScripts);
    const hostile = await Promise.all(Object.values(hostileScripts).map(listen));
    return {
      hanging: hostile.filter((_, index) => names[index]?.startsWith("hangs") === true),
      hostile,
      healthy: await Promise.all(names.map(() => listen((socket) => socket.write(ok)))),
    };
  },
} satisfies NeighbourMethods);
