import { z } from "@hono/zod-openapi";
import { AncrageError } from "../errors.ts";
import { subscriptionFaults } from "../subscription/subscription.ts";
import { notFound, refusal, type Problem } from "./problem.ts";
import { invalid, text } from "./route.ts";

/** What the routes of subscriptions answer alike. */

export const subscriptionParams = z.object({ id: text("the id of a subscription").openapi({ param: { name: "id", in: "path" } }) });

export function noSubscription(id: string): Problem {
  return notFound(`there is no subscription ${JSON.stringify(id)}.`);
}

/** Runs a change of one subscription; a missing one, and what cannot be done, become problems. */
export async function answerChange<Result>(id: string, change: () => Promise<Result | undefined>): Promise<Result> {
  const result = await orRefuse(change);
  if (result === undefined) throw refusal(noSubscription(id));
  return result;
}

/** What is wrong with the input, or with the subscription's state, becomes a problem. */
export async function orRefuse<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    const faults = subscriptionFaults(error);
    if (faults !== undefined) throw invalid(faults);
    if (error instanceof AncrageError && error.code === "ANCRAGE_SAMPLE_NONE") throw refusal(problemOf("sample-none", error));
    if (!(error instanceof AncrageError) || error.code !== "ANCRAGE_SUBSCRIPTION_STATE") throw error;
    throw refusal(problemOf("wrong-state", error));
  }
}

function problemOf(code: Problem["code"], { message, hint }: AncrageError): Problem {
  return { code, detail: message, ...(hint === undefined ? {} : { hint }) };
}
