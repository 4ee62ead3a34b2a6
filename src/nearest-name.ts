/** ` Did you mean "deal"?` where one of the names is near, else what there is. */
export function suggestName(name: unknown, names: readonly string[]): string {
  const nearest = typeof name === "string" ? nearestName(name, names) : undefined;
  if (nearest !== undefined) return `Did you mean "${nearest}"?`;
  if (names.length === 0) return "There are none.";
  const shown = names.slice(0, 12).join(", ");
  return names.length > 12 ? `There are ${shown} and ${names.length - 12} more.` : `There are ${shown}.`;
}

/** As `suggestName`, of tables: one has one name, with its schema unless that is `public`. */
export function suggestTable(name: unknown, names: readonly string[]): string {
  if (typeof name === "string") {
    const [schema, table] = [name.slice(0, name.indexOf(".") + 1), name.slice(name.indexOf(".") + 1)];
    if (schema === "public." && names.includes(table)) return `Write "${table}": a table of the schema public goes by its name alone.`;
    const elsewhere = names.filter((one) => one.endsWith(`.${name}`));
    if (elsewhere.length > 0) return `Write it with its schema: ${elsewhere.map((one) => `"${one}"`).join(" or ")}.`;
  }
  return suggestName(name, names);
}

/** The name that differs least, if by no more than a third of its letters; case does not count. */
export function nearestName(name: string, names: readonly string[]): string | undefined {
  const wanted = name.toLowerCase();
  let nearest: string | undefined;
  let least = Math.max(1, Math.floor(name.length / 3)) + 1;
  for (const candidate of names) {
    const distance = editDistance(wanted, candidate.toLowerCase());
    if (distance < least) [nearest, least] = [candidate, distance];
  }
  return nearest;
}

/** Letters to insert, delete, replace or swap with the next to make one text of the other (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let beforePrevious: readonly number[] = [];
  let previous: readonly number[] = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      const isSwapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      const swapped = isSwapped ? (beforePrevious[column - 2] ?? 0) + 1 : Infinity;
      current.push(Math.min(replaced, swapped, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    [beforePrevious, previous] = [previous, current];
  }
  return previous[b.length] ?? 0;
}
