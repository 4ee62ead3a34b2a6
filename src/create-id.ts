const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** A prefix, ten digits of milliseconds and sixteen of ten random bytes, in Crockford's base 32: ids sort as they were made. */
export function createId(prefix: string, nowMs: number, random: Uint8Array): string {
  let number = BigInt(nowMs);
  for (const byte of random) number = (number << 8n) | BigInt(byte);
  let digits = "";
  for (let turn = 0; turn < 26; turn++) {
    digits = crockford.charAt(Number(number & 31n)) + digits;
    number >>= 5n;
  }
  return prefix + digits;
}
