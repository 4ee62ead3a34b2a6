/**
 * - `error`: `start` refuses, or changes would be missed. - `warning`: it works, and may not one day. - `ok`: checked, and right.
 */
export type Severity = "ok" | "warning" | "error";

/** One thing that doctor looked at. */
export interface Finding {
  /** Stable, for programs: `wal-level`, `slots`, `plan`. */
  readonly check: string;
  readonly severity: Severity;
  /** What is there, with its value, and what was expected. */
  readonly message: string;
  /** What mends it: SQL with its semicolon, a setting, or a command; one a line. */
  readonly mend: readonly string[];
  /** Whether `--fix` does so. */
  readonly isFixable: boolean;
}

export const fine = (check: string, message: string): Finding => ({ check, severity: "ok", message, mend: [], isFixable: false });

export const fault = (severity: "warning" | "error", check: string, message: string, ...mend: readonly string[]): Finding => ({
  check,
  severity,
  message,
  mend,
  isFixable: false,
});

/** The worst that was found. */
export function worstOf(findings: readonly Finding[]): Severity {
  if (findings.some(({ severity }) => severity === "error")) return "error";
  return findings.some(({ severity }) => severity === "warning") ? "warning" : "ok";
}
