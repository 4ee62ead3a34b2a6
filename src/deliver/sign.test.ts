import { createSecretKey } from "node:crypto";
import fc from "fast-check";
import { Webhook } from "standardwebhooks";
import { expect, test } from "vitest";
import { computeSignature } from "./sign.ts";

const keyOf = (secret: string) => createSecretKey(Buffer.from(secret.slice("whsec_".length), "base64"));

test("the known answers of the reference library and of Svix", () => {
  const first = keyOf("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
  expect(computeSignature([first], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, Buffer.from('{"test": 2432232314}'))).toBe(
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  );
  const second = keyOf("whsec_plJ3nmyCDGBKInavdOK15jsl");
  const body = Buffer.from('{"event_type":"ping","data":{"success":true}}');
  expect(computeSignature([second], "msg_loFOjxBNrRLzqYUf", 1_731_705_121, body)).toBe("v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=");
});

test("what we sign, the independent verifier accepts, with either key of a rotation", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 24, maxLength: 64 }),
      fc.uint8Array({ minLength: 24, maxLength: 64 }),
      fc.json(),
      (a, b, json) => {
        const timestampS = Math.floor(Date.now() / 1000);
        const keys = [createSecretKey(Buffer.from(a)), createSecretKey(Buffer.from(b))];
        const headers = {
          "webhook-id": "msg_1",
          "webhook-timestamp": String(timestampS),
          "webhook-signature": computeSignature(keys, "msg_1", timestampS, Buffer.from(json)),
        };
        for (const secret of [a, b]) {
          expect(new Webhook(Buffer.from(secret).toString("base64")).verify(json, headers)).toEqual(JSON.parse(json));
        }
      },
    ),
  );
});
