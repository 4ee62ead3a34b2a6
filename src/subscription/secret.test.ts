import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { Webhook } from "standardwebhooks";
import { createSecret, formatSecret, openSecrets, parseSecret, parseSecretKey, sealSecret } from "./secret.ts";

const keyText = randomBytes(32).toString("base64");
const key = parseSecretKey(keyText);
const owner = { project: "acme", id: "sub_1" };
const at = new Date("2026-11-24T10:00:00Z");

describe("ANCRAGE_SECRET_KEY", () => {
  test.each([
    [undefined, "is not set"],
    ["", "is not set"],
    ["not base64!", "expected base64"],
    [randomBytes(16).toString("base64"), "expected 32 bytes, got 16"],
    [randomBytes(33).toString("base64"), "expected 32 bytes, got 33"],
  ])("%j is refused", (text, message) => {
    expect(() => parseSecretKey(text)).toThrow(
      expect.objectContaining({ code: "ANCRAGE_SECRET_KEY_INVALID", message: expect.stringContaining(message) }),
    );
  });

  test.each(["hunter2-in-the-clear", randomBytes(16).toString("base64")])("is never shown: %s", (text) => {
    expect(() => parseSecretKey(text)).toThrow(expect.not.objectContaining({ message: expect.stringContaining(text) }));
  });

  test("has the same id each time, and another key another one", () => {
    expect(parseSecretKey(`${keyText}\n`).id).toBe(key.id);
    expect(parseSecretKey(randomBytes(32).toString("base64")).id).not.toBe(key.id);
  });
});

describe("sealing", () => {
  test("opens to the bytes that were sealed, and looks different each time", () => {
    const secret = createSecret();
    const sealed = sealSecret(key, owner, secret, at);
    expect(openSecrets(key, { ...owner, secrets: [sealed] }, at)).toEqual([secret]);
    expect(sealSecret(key, owner, secret, at).sealed).not.toBe(sealed.sealed);
    expect(Buffer.from(sealed.sealed, "base64").includes(secret)).toBe(false);
    expect(sealed).toMatchObject({ keyId: key.id, createdAt: "2026-11-24T10:00:00.000Z", expiresAt: null });
  });

  test("a rotated secret signs until it expires", () => {
    const [present, past] = [createSecret(), createSecret()];
    const secrets = [sealSecret(key, owner, present, at), { ...sealSecret(key, owner, past, at), expiresAt: "2026-11-24T11:00:00.000Z" }];
    expect(openSecrets(key, { ...owner, secrets }, new Date("2026-11-24T10:59:59Z"))).toEqual([present, past]);
    expect(openSecrets(key, { ...owner, secrets }, new Date("2026-11-24T11:00:00Z"))).toEqual([present]);
  });

  test.each([
    ["another subscription", { ...owner, id: "sub_2" }],
    ["another project", { ...owner, project: "globex" }],
  ])("does not open in %s", (_what, thief) => {
    const secrets = [sealSecret(key, owner, createSecret(), at)];
    expect(() => openSecrets(key, { ...thief, secrets }, at)).toThrow(/altered or copied/);
  });

  test("does not open where one bit was changed", () => {
    const sealed = sealSecret(key, owner, createSecret(), at);
    const bytes = Buffer.from(sealed.sealed, "base64");
    for (const place of [0, 12, bytes.length - 1]) {
      const altered = Buffer.from(bytes);
      altered[place] = altered[place]! ^ 1;
      expect(() => openSecrets(key, { ...owner, secrets: [{ ...sealed, sealed: altered.toString("base64") }] }, at)).toThrow(
        expect.objectContaining({ code: "ANCRAGE_SECRET_KEY_INVALID" }),
      );
    }
  });

  test("says which key it needs", () => {
    const other = parseSecretKey(randomBytes(32).toString("base64"));
    const secrets = [sealSecret(other, owner, createSecret(), at)];
    expect(() => openSecrets(key, { ...owner, secrets }, at)).toThrow(
      `the secret of subscription sub_1 was sealed with key ${other.id}, ANCRAGE_SECRET_KEY is key ${key.id}.`,
    );
  });
});

describe("whsec_", () => {
  test("what we write, the reference library reads", () => {
    const text = formatSecret(createSecret());
    const webhook = new Webhook(text);
    const signature = webhook.sign("msg_1", new Date(), "{}");
    const headers = { "webhook-id": "msg_1", "webhook-timestamp": String(Math.floor(Date.now() / 1000)), "webhook-signature": signature };
    expect(webhook.verify("{}", headers)).toEqual({});
  });

  test("a secret of 24 to 64 bytes is taken", () => {
    for (const count of [24, 64]) {
      const bytes = randomBytes(count);
      expect(parseSecret(formatSecret(bytes))).toEqual(bytes);
    }
    expect(parseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).toHaveLength(24);
  });

  test.each([
    [`whsec_${randomBytes(23).toString("base64")}`, "got 23 bytes"],
    [`whsec_${randomBytes(65).toString("base64")}`, "got 65 bytes"],
    ["whsec_", "not base64"],
    [`whsec_${"a".repeat(31)}_`, "not base64"],
    [randomBytes(32).toString("base64"), `does not begin with "whsec_"`],
  ])("%s is refused without being shown", (text, fault) => {
    const parsed = parseSecret(text);
    expect(parsed).toEqual({ fault: expect.stringContaining(fault) });
    expect(JSON.stringify(parsed)).not.toContain(text.slice(6) || "\0");
  });
});
