import type { Directive, Outcome } from "./outcome.ts";
import { parseRetryAfter } from "./retry-after.ts";

/** A whole answer, or as much of it as is read. */
export interface Answer {
  readonly status: number;
  /** What the headers of these names say, where they are there. */
  readonly headers: AnswerHeaders;
  /** The first bytes of an answer that is no success; a success's are of no use. */
  readonly body: Buffer | undefined;
}

export interface AnswerHeaders {
  readonly "retry-after"?: string | undefined;
  readonly "webhook-delivery"?: string | undefined;
  readonly location?: string | undefined;
}

export const isSuccess = (status: number): boolean => status >= 200 && status < 300;

/**
 * What an answer means for the attempt: 2xx alone is a success (Standard Webhooks).
 *
 * @param nowMs wall clock, for a `Retry-After` that is a date
 */
export function judgeAnswer({ status, headers, body }: Answer, durationMs: number, nowMs: number): Outcome {
  const directive = directiveOf(status, headers["webhook-delivery"]);
  if (isSuccess(status)) return { kind: "delivered", status, durationMs, directive };
  return {
    kind: "failed",
    reason: "status",
    status,
    durationMs,
    response: headers.location !== undefined && isRedirect(status) ? Buffer.from(describeRedirect(headers.location)) : body,
    // Elsewhere the header means something else: with a 301, how long until the other URL is there.
    retryAfterMs: status === 429 || status === 503 ? parseRetryAfter(headers["retry-after"], nowMs) : undefined,
    directive,
  };
}

/** Svix's extension, which receivers know; a 410 is the standard's own way to say `disable`. */
function directiveOf(status: number, header: string | undefined): Directive | undefined {
  if (status === 410) return "disable";
  const value = header?.trim().toLowerCase();
  return value === "disable" || value === "abort-message" ? value : undefined;
}

const isRedirect = (status: number): boolean => status >= 300 && status < 400 && status !== 304;

const longestLocation = 500;

/** A redirect is never followed: its target would be a URL that nobody checked or subscribed. */
function describeRedirect(location: string): string {
  const target = location.length > longestLocation ? `${location.slice(0, longestLocation)}…` : location;
  return `a redirect to ${target} is a failure: give the final URL`;
}
