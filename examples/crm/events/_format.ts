/** As weavy writes a date: `2023-10-31 00:00:00`, in UTC. A record has it as `2023-10-31T00:00:00.000000Z`. */
export function formatDate(timestamptz: string): string {
  return timestamptz.slice(0, "2023-10-31T00:00:00".length).replace("T", " ");
}
