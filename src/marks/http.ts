import { withMarks } from "./request-marks.ts";

/** The actor whose request it is, as the application knows it: whose token called. Undefined where that is nobody to tell apart. */
type ActorOf<Request> = (request: Request) => string | undefined | Promise<string | undefined>;

const header = "ancrage-cause";

/**
 * Express middleware: what the handlers after it write says who made it, and which delivery caused it. It goes after what finds out
 * who calls, and after what reads bodies.
 *
 * @example
 * ```ts
 * app.use(expressMarks((request) => request.user?.name));
 * ```
 */
export function expressMarks<Request extends { get(name: "ancrage-cause"): string | undefined }>(
  actorOf: ActorOf<Request>,
): (request: Request, response: unknown, next: (error?: unknown) => void) => Promise<void> {
  return async (request, _response, next) => {
    try {
      const actor = await actorOf(request);
      withMarks({ actor, causedBy: request.get(header) }, next);
    } catch (error) {
      next(error);
    }
  };
}

/**
 * Hono middleware, the same.
 *
 * @example
 * ```ts
 * app.use(honoMarks((context) => context.get("user")?.name));
 * ```
 */
export function honoMarks<Context extends { readonly req: { header(name: string): string | undefined } }>(
  actorOf: ActorOf<Context>,
): (context: Context, next: () => Promise<void>) => Promise<void> {
  return async (context, next) => {
    const actor = await actorOf(context);
    await withMarks({ actor, causedBy: context.req.header(header) }, next);
  };
}

/**
 * Wraps a route handler of Next, or any `(request: Request, …) => Response`.
 *
 * @example
 * ```ts
 * export const POST = nextMarks(async (request) => { … }, (request) => actorOfToken(request.headers.get("authorization")));
 * ```
 */
export function nextMarks<Incoming extends Request, Rest extends unknown[], Answer>(
  handler: (request: Incoming, ...rest: Rest) => Answer | Promise<Answer>,
  actorOf: ActorOf<Incoming>,
): (request: Incoming, ...rest: Rest) => Promise<Answer> {
  return async (request, ...rest) => {
    const actor = await actorOf(request);
    return withMarks({ actor, causedBy: request.headers.get(header) ?? undefined }, () => handler(request, ...rest));
  };
}
