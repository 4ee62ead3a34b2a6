/**
 * The bytes that are signed and sent: the payload in the envelope that a subscription asked for. Pure, and the same for ever, since
 * it is made from what the journal keeps.
 *
 * - `standard`: `{"id", "type", "timestamp", "data"}`, as Standard Webhooks advises; `id` lets a receiver that sees no headers
 *   (Zapier, Workato) tell two messages apart.
 * - `result`: `{"result": …}`, weavy's.
 * - `bare`: the payload alone.
 * - `cloudevents`: CloudEvents 1.0 in structured mode.
 */
export type Format = "standard" | "result" | "bare" | "cloudevents";

/** What an envelope needs of a message. */
export interface Formattable {
  readonly id: string;
  readonly event: string;
  readonly key: string;
  /** Microseconds since the Unix epoch. */
  readonly committedAtUs: bigint;
  /** The payload as JSON in UTF-8. */
  readonly body: Buffer;
}

export const contentTypeOf: Readonly<Record<Format, string>> = {
  standard: "application/json",
  result: "application/json",
  bare: "application/json",
  cloudevents: "application/cloudevents+json; charset=utf-8",
};

export function formatMessage(format: Format, message: Formattable): Buffer {
  switch (format) {
    case "standard":
      return wrap(
        `{"id":"${message.id}","type":${JSON.stringify(message.event)},"timestamp":"${formatTime(message)}","data":`,
        message.body,
      );
    case "result":
      return wrap(`{"result":`, message.body);
    case "bare":
      return message.body;
    case "cloudevents": {
      const attributes = `"specversion":"1.0","id":"${message.id}","source":"urn:ancrage","type":${JSON.stringify(message.event)}`;
      const subject = message.key === "" ? "" : `"subject":${JSON.stringify(message.key)},`;
      return wrap(`{${attributes},${subject}"time":"${formatTime(message)}","datacontenttype":"application/json","data":`, message.body);
    }
    default:
      return format satisfies never;
  }
}

function wrap(head: string, body: Buffer): Buffer {
  const length = Buffer.byteLength(head);
  const bytes = Buffer.allocUnsafe(length + body.length + 1);
  bytes.write(head, "utf8");
  body.copy(bytes, length);
  bytes[length + body.length] = 0x7d; // }
  return bytes;
}

/** When the event was committed, ISO 8601 in UTC with its milliseconds. */
function formatTime({ committedAtUs }: Formattable): string {
  // The messages of a transaction come together: its time is written once.
  if (committedAtUs !== lastTime.us) lastTime = { us: committedAtUs, text: new Date(Number(committedAtUs / 1000n)).toISOString() };
  return lastTime.text;
}
let lastTime = { us: -1n, text: "" };
