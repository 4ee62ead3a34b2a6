import type { AncrageProcess } from "./ancrage-process.ts";
import type { DemoReceiver } from "./receiver.ts";

/** As a customer of weavy does it. Its answer has no place for the secret, so that is asked for afterwards. */
export async function subscribeAsWeavy(ancrage: AncrageProcess, receiver: DemoReceiver, path: string, event: string): Promise<void> {
  const { result } = await call<{ result: { codeWebhookSubscription: string } }>(
    ancrage,
    "POST",
    "/v1/EntryPoints/default/process/?c=EPT_WebhookSubscribe",
    { event, hookUrl: receiver.url + path },
  );
  const { secret } = await call<{ secret: string }>(ancrage, "GET", `/v1/subscriptions/${result.codeWebhookSubscription}/secret`);
  receiver.trust(path, secret);
}

/** As everybody else does it. */
export async function subscribe(ancrage: AncrageProcess, receiver: DemoReceiver, path: string, events: readonly string[]): Promise<void> {
  const { secret } = await call<{ secret: string }>(ancrage, "POST", "/v1/subscriptions", { events, url: receiver.url + path });
  receiver.trust(path, secret);
}

async function call<Answer>({ url, token }: AncrageProcess, method: string, path: string, body?: object): Promise<Answer> {
  const response = await fetch(url + path, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error(`${method} ${path} was answered ${response.status}: ${await response.text()}`);
  return (await response.json()) as Answer;
}
