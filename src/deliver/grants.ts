/** What stands in line for a connection: a lane. */
export interface Applicant {
  /** The line it stands in; undefined: in none. Written by `Grants` alone. */
  line: Line | undefined;
}

/** Those of one kind at one origin, in turn. What left a line before its turn is passed over when that comes. */
interface Line {
  members: (Applicant | undefined)[];
  head: number;
}

interface Origin {
  readonly name: string;
  inFlight: number;
  readonly lines: Readonly<Record<Rank, Line>>;
}

/**
 * - `now`: a lane of what happens now.
 * - `job`: a job's lane; it yields to those.
 * - `slow`: a lane that runs to the deadline and holds as many connections as it may while others want some.
 */
export type Rank = "now" | "job" | "slow";
const ranks: readonly Rank[] = ["now", "job", "slow"];

/** A connection that was granted. */
export type Grant = Origin;

export interface GrantsOptions<Lane extends Applicant> {
  /** Connections to one origin, at most. */
  readonly perOrigin: number;
  readonly rankOf: (lane: Lane) => Rank;
  /**
   * It is the lane's turn: it starts one attempt with the grant, and gives that back with `release`.
   *
   * @returns whether it started one
   */
  readonly start: (lane: Lane, grant: Grant) => boolean;
  /** Whether it would start another one. */
  readonly wantsMore: (lane: Lane) => boolean;
}

/**
 * Who may use an origin's connections: thousands of subscriptions share `https://hooks.zapier.com`, and none of them may hold up the
 * others. Lanes that have something to send are served in turn, one attempt each; a turn costs the same for two lanes as for thousands.
 */
export class Grants<Lane extends Applicant> {
  readonly #options: GrantsOptions<Lane>;
  readonly #origins = new Map<string, Origin>();

  constructor(options: GrantsOptions<Lane>) {
    this.#options = options;
  }

  /** The lane has something to send: it is served at once, or stands in line. */
  request(lane: Lane, originName: string): void {
    let origin = this.#origins.get(originName);
    if (origin === undefined) {
      const line = (): Line => ({ members: [], head: 0 });
      origin = { name: originName, inFlight: 0, lines: { now: line(), job: line(), slow: line() } };
      this.#origins.set(originName, origin);
    }
    this.#enter(lane, origin);
    this.#serve(origin);
    this.#forgetIdle(origin);
  }

  /** Its attempt is over. The lane itself asks again with `request`. */
  release(grant: Grant): void {
    grant.inFlight--;
    this.#serve(grant);
    this.#forgetIdle(grant);
  }

  /** One that has nothing under way has nobody in line: there was room for all. */
  #forgetIdle(origin: Origin): void {
    if (origin.inFlight === 0 && this.#origins.get(origin.name) === origin) this.#origins.delete(origin.name);
  }

  #enter(lane: Lane, origin: Origin): void {
    const line = origin.lines[this.#options.rankOf(lane)];
    if (lane.line === line) return;
    lane.line = line;
    line.members.push(lane);
  }

  #serve(origin: Origin): void {
    const { start, wantsMore } = this.#options;
    while (origin.inFlight < this.#options.perOrigin) {
      const lane = this.#next(origin);
      if (lane === undefined) return;
      origin.inFlight++;
      if (!start(lane, origin)) origin.inFlight--;
      else if (wantsMore(lane)) this.#enter(lane, origin);
    }
  }

  #next(origin: Origin): Lane | undefined {
    for (const rank of ranks) {
      const line = origin.lines[rank];
      while (line.head < line.members.length) {
        const lane = line.members[line.head];
        line.members[line.head++] = undefined;
        // Cut off now and then: shifting the array for each turn would copy it for each turn.
        if (line.head > 64 && line.head * 2 > line.members.length) {
          line.members = line.members.slice(line.head);
          line.head = 0;
        }
        if (lane?.line !== line) continue;
        lane.line = undefined;
        return lane as Lane;
      }
    }
    return undefined;
  }
}
