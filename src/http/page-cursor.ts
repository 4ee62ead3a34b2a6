import { seal, unseal, type SecretKey } from "../subscription/secret.ts";
import type { Principal } from "./auth.ts";
import { invalid } from "./route.ts";

/** Where a page of a list begins, and how its end is written. */
export interface PageCursor {
  /** The id that `after` stands for. */
  readonly after: string | undefined;
  /** What `after` takes to go on from this id. */
  next(place: string | undefined): string | null;
}

/**
 * A list that looks for what a filter means ends its pages at whatever it has looked at last, of any project: the id of that says when
 * something happened there, and how much the database writes. So a token of one project gets it sealed.
 *
 * @throws a problem where it was sealed for another project or list, or with another key
 */
export function readPageCursor(
  list: "messages" | "deliveries" | "rejections",
  given: string | undefined,
  { project }: Pick<Principal, "project">,
  key: SecretKey,
): PageCursor {
  if (project === undefined) {
    if (given?.startsWith(sealedPrefix) === true) throw notOfThisList(given);
    return { after: given, next: (place) => place ?? null };
  }
  const boundTo = ["cursor", project, list];
  const after = given?.startsWith(sealedPrefix) === true ? open(given, boundTo, key) : given;
  return {
    after,
    next(place) {
      if (place === undefined) return null;
      // Whoever pulls sees by it that nothing is new; each seal is another text.
      if (place === after && given !== undefined) return given;
      return sealedPrefix + Buffer.from(seal(key, boundTo, Buffer.from(place)), "base64").toString("base64url");
    },
  };
}

/** As `cursor` of `route.ts` lets it in. */
const sealedPrefix = "cur_";

function open(given: string, boundTo: readonly string[], key: SecretKey): string {
  const sealed = Buffer.from(given.slice(sealedPrefix.length), "base64url").toString("base64");
  try {
    return unseal(key, boundTo, { sealed, keyId: key.id }, { what: "a cursor", cure: "begin anew" }).toString();
  } catch {
    throw notOfThisList(given);
  }
}

const notOfThisList = (given: string): Error =>
  invalid([{ pointer: "?after", detail: `expected the next of the page before, got ${JSON.stringify(given)}` }]);
