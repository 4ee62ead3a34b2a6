/**
 * Which pooler a connection string names, as far as host, port and user tell. A pooler in transaction mode breaks what Ancrage builds on:
 * session locks (who leads), session settings (how values are written), and replication, which none of them passes on.
 *
 * @returns its name and how to go past it; undefined where nothing tells of one
 */
export function recognisePooler(connectionString: string): { readonly name: string; readonly instead: string } | undefined {
  if (!URL.canParse(connectionString)) return undefined;
  const { hostname, port, username } = new URL(connectionString);
  const host = hostname.toLowerCase();
  if (host.endsWith(".pooler.supabase.com")) {
    return {
      name: "Supabase's pooler (Supavisor)",
      instead: "Take the direct connection: postgres://postgres:…@db.<project>.supabase.co:5432/postgres (IPv6, or with the IPv4 add-on).",
    };
  }
  if (host.endsWith(".neon.tech") && /-pooler\./.test(host)) {
    return { name: "Neon's pooler", instead: `Take the direct host: ${host.replace("-pooler.", ".")}.` };
  }
  if (host.includes(".proxy-") && host.endsWith(".rds.amazonaws.com")) {
    return { name: "RDS Proxy", instead: "Take the endpoint of the instance, or of the cluster's writer." };
  }
  if (host.endsWith(".postgres.database.azure.com") && port === "6432") {
    return { name: "Azure's built-in PgBouncer", instead: "Take port 5432." };
  }
  if (host.endsWith(".aivencloud.com") && /pool/.test(new URL(connectionString).pathname)) {
    return { name: "an Aiven connection pool", instead: "Take the service URI of the database itself (another port)." };
  }
  if (port === "6432" || port === "6543" || /pgbouncer|pgcat|pooler|odyssey/.test(host)) {
    return { name: "a pooler such as PgBouncer", instead: "Take the host and port of PostgreSQL itself (5432, most often)." };
  }
  // Supavisor's users carry the project.
  if (/^[^.]+\.[a-z]{20}$/.test(username)) {
    return {
      name: "Supabase's pooler (Supavisor)",
      instead: "Take the direct connection: postgres://postgres:…@db.<project>.supabase.co:5432/postgres.",
    };
  }
  return undefined;
}

/** What a pooler answers to a session that pins its settings: PgBouncer refuses the start-up parameter, others say so too. */
export function isRefusalOfPooler(words: string): boolean {
  return /unsupported startup parameter|Unsupported or invalid secret|no such database: |server_login_retry|Tenant or user not found/i.test(
    words,
  );
}
