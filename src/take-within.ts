/** The first of them whose bytes together are within `maxBytes`; the first one whatever it has. */
export function takeWithin<Item extends { readonly bytes: number }>(items: readonly Item[], maxBytes: number): readonly Item[] {
  let total = 0;
  const end = items.findIndex(({ bytes }, index) => (total += bytes) > maxBytes && index > 0);
  return end === -1 ? items : items.slice(0, end);
}
