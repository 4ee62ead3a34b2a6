import { isSuccess, type Answer, type AnswerHeaders } from "./judge-answer.ts";

/** How much of an answer's headers is read, of its body, and how much of that is kept. */
const mostHeadBytes = 16 * 1024;
const mostBodyBytes = 64 * 1024;
const keptBytes = 16 * 1024;
/** Answers of 1xx before the one that counts. */
const mostInterim = 16;
const longestSizeLine = 256;

export interface Fault {
  readonly reason: "protocol" | "too-large" | "reset";
  readonly words: string;
}

//   head ──► length ──────────────────────────────┐
//    ▲ │ ──► size ──► chunk ──► chunk-end ─┐       ├──► whole
//    │ │      ▲ └──► trailer ──────────────│───────┤
//   1xx│      └────────────────────────────┘       │
//    └─┴───► until-close ──────────────────────────┘        any ──► failed
type Stage = "head" | "length" | "size" | "chunk" | "chunk-end" | "trailer" | "until-close" | "whole" | "failed";

/**
 * Reads one HTTP/1.1 answer to a POST, in whatever pieces it comes. No I/O; never throws.
 *
 * Strict, since a lenient reader and a lenient server disagree on where an answer ends: what has two meanings (both a length and
 * chunks, two lengths, a folded or spaced-off header, a lone LF) is a fault, and its connection is not used again (RFC 9112, 6.3).
 */
export class AnswerParser {
  #stage: Stage = "head";
  #fault: Fault | undefined;
  /** The head so far, where it did not come in one piece. Latin-1, so that a character is a byte. */
  #head = "";
  #interim = 0;
  /** 0 until the head of the answer that counts was read. */
  #status = 0;
  #headers: AnswerHeaders = {};
  #keepsConnection = false;
  #idleLimitS: number | undefined;
  /** Bytes of the body so far, with what frames them. */
  #bodyBytes = 0;
  /** What is left of the body, or of the chunk. */
  #left = 0;
  /** The line of a chunk's size, of its end or of a trailer so far. */
  #line = "";
  #kept: Buffer[] | undefined;
  #keptCount = 0;

  /** `whole` also where no more is read of an answer that goes on. */
  get state(): "more" | "whole" | "failed" {
    return this.#stage === "whole" || this.#stage === "failed" ? this.#stage : "more";
  }

  get fault(): Fault | undefined {
    return this.#fault;
  }

  get status(): number | undefined {
    return this.#status === 0 ? undefined : this.#status;
  }

  /** Once it is whole. */
  get answer(): Answer {
    return { status: this.#status, headers: this.#headers, body: this.#kept === undefined ? undefined : Buffer.concat(this.#kept) };
  }

  /** Whether the connection may carry another request. */
  get isReusable(): boolean {
    return this.#stage === "whole" && this.#keepsConnection;
  }

  /** For how many idle seconds the receiver says that it keeps the connection. */
  get idleLimitS(): number | undefined {
    return this.#idleLimitS;
  }

  /** @param chunk is read within the call and may be overwritten after it */
  feed(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && this.state === "more") {
      at = this.#stage === "head" ? this.#readHead(chunk, at) : this.#readBody(chunk, at);
    }
    // More than was announced: whose answer that is nobody knows.
    if (at < chunk.length) this.#keepsConnection = false;
  }

  /** The receiver ended the connection. */
  end(): void {
    if (this.#stage === "until-close") this.#stage = "whole";
    else if (this.#stage === "head") this.#fail("reset", "closed the connection without an answer");
    else if (this.#stage !== "whole") this.#fail("reset", "closed the connection before its answer was whole");
    this.#keepsConnection = false;
  }

  /** @returns where in the chunk to go on */
  #readHead(chunk: Buffer, at: number): number {
    const before = this.#head.length;
    // One piece is the rule: then nothing is put together.
    const head = before === 0 ? chunk.toString("latin1", at) : this.#head + chunk.toString("latin1", at);
    const end = head.indexOf("\r\n\r\n", Math.max(0, before - 3));
    const lineEnd = end === -1 ? head.indexOf("\r\n") : 0;
    // Told at once, and not by the deadline: whoever speaks another protocol may now wait for us.
    if (!head.startsWith(versionStart.slice(0, head.length))) this.#fail("protocol", "it does not begin with HTTP/1");
    else if (lineEnd > 0 && !statusLine.test(head.slice(0, lineEnd))) this.#fail("protocol", "its status line cannot be read");
    if (this.#stage === "failed") return chunk.length;
    if (end === -1) {
      if (head.length > mostHeadBytes + 3) this.#fail("too-large", "");
      this.#head = head;
      return chunk.length;
    }
    this.#head = "";
    this.#takeHead(head.slice(0, end));
    return at + end + 4 - before;
  }

  #takeHead(head: string): void {
    const lines = head.split("\r\n");
    const [, minor, digits] = statusLine.exec(lines[0] ?? "") ?? [];
    if (digits === undefined) return this.#fail("protocol", "its status line cannot be read");
    if (head.length > mostHeadBytes) return this.#fail("too-large", "");
    const status = Number(digits);
    const fields: Record<string, string | undefined> = {};
    for (let index = 1; index < lines.length; index++) {
      const [, name, value] = headerLine.exec(lines[index] ?? "") ?? [];
      if (name === undefined || value === undefined) return this.#fail("protocol", `its header line ${index} cannot be read`);
      const key = name.toLowerCase();
      if (!readHeaders.has(key)) continue;
      const first = fields[key];
      if (first !== undefined && framingHeaders.has(key)) return this.#fail("protocol", `it has two ${key} headers`);
      fields[key] = first === undefined ? value.trim() : `${first}, ${value.trim()}`;
    }
    if (status < 200) return this.#skipInterim(status);
    this.#status = status;
    this.#headers = fields;
    this.#begin(minor === "1", fields);
  }

  /** 100 Continue that nobody asked for, 103 Early Hints: allowed before any answer. */
  #skipInterim(status: number): void {
    if (status === 101) this.#fail("protocol", "it changes to a protocol that was not asked for");
    else if (++this.#interim > mostInterim) this.#fail("protocol", `more than ${mostInterim} answers of 1xx came before one that counts`);
  }

  /** How the body is framed: RFC 9112, section 6.3. */
  #begin(isHttp11: boolean, fields: Record<string, string | undefined>): void {
    const length = fields["content-length"];
    const encoding = fields["transfer-encoding"]?.toLowerCase();
    this.#keepsConnection = isHttp11 && !/(?:^|,)[ \t]*close[ \t]*(?:,|$)/i.test(fields["connection"] ?? "");
    const idleLimit = /(?:^|[,;])\s*timeout=(\d{1,6})/i.exec(fields["keep-alive"] ?? "")?.[1];
    this.#idleLimitS = idleLimit === undefined ? undefined : Number(idleLimit);
    if (length !== undefined && encoding !== undefined) return this.#fail("protocol", "it has both a length and a transfer-encoding");
    if (length !== undefined && !/^\d{1,15}$/.test(length)) return this.#fail("protocol", "its content-length is no number");
    if (encoding !== undefined && (encoding !== "chunked" || !isHttp11)) {
      return this.#fail("protocol", "its transfer-encoding is not the chunked one of HTTP/1.1");
    }
    if (this.#status === 204 || this.#status === 304) this.#stage = "whole";
    else if (encoding !== undefined) this.#stage = "size";
    else if (length === undefined) this.#stage = "until-close";
    else {
      this.#left = Number(length);
      this.#stage = this.#left === 0 ? "whole" : "length";
    }
    if (this.#stage === "until-close") this.#keepsConnection = false;
  }

  #readBody(chunk: Buffer, at: number): number {
    const readable = Math.min(chunk.length - at, mostBodyBytes - this.#bodyBytes);
    const next = this.#readPart(chunk, at, at + readable);
    this.#bodyBytes += next - at;
    if (this.#bodyBytes < mostBodyBytes || this.state !== "more") return next;
    // Enough was read to know the outcome; the connection is not kept for the rest.
    this.#stage = "whole";
    this.#keepsConnection = false;
    return chunk.length;
  }

  #readPart(chunk: Buffer, at: number, end: number): number {
    if (this.#stage === "until-close") {
      this.#keep(chunk, at, end);
      return end;
    }
    if (this.#stage !== "length" && this.#stage !== "chunk") return this.#readLine(chunk, at, end);
    const next = Math.min(end, at + this.#left);
    this.#keep(chunk, at, next);
    this.#left -= next - at;
    if (this.#left === 0) this.#stage = this.#stage === "length" ? "whole" : "chunk-end";
    return next;
  }

  /** The lines between and after chunks. */
  #readLine(chunk: Buffer, at: number, end: number): number {
    const lineFeed = chunk.subarray(at, end).indexOf(0x0a);
    const next = lineFeed === -1 ? end : at + lineFeed + 1;
    this.#line += chunk.toString("latin1", at, next);
    if (this.#line.length > longestSizeLine && this.#stage !== "trailer") this.#fail("protocol", "its chunks cannot be read");
    else if (lineFeed !== -1) this.#takeLine();
    return next;
  }

  #takeLine(): void {
    const line = this.#line.slice(0, -2);
    const isLine = this.#line.endsWith("\r\n") && !line.includes("\r");
    this.#line = "";
    if (!isLine) return this.#fail("protocol", "its chunks cannot be read");
    if (this.#stage === "chunk-end") {
      if (line === "") this.#stage = "size";
      else this.#fail("protocol", "a chunk is longer than it says");
    } else if (this.#stage === "trailer") {
      if (line === "") this.#stage = "whole";
    } else {
      const digits = /^([0-9a-f]{1,13})(?:;.*)?$/i.exec(line)?.[1];
      if (digits === undefined) return this.#fail("protocol", "the size of a chunk is no number");
      this.#left = Number.parseInt(digits, 16);
      this.#stage = this.#left === 0 ? "trailer" : "chunk";
    }
  }

  /** A success needs no more of its answer than that it ends. */
  #keep(chunk: Buffer, at: number, end: number): void {
    const count = Math.min(end - at, keptBytes - this.#keptCount);
    if (count <= 0 || isSuccess(this.#status)) return;
    (this.#kept ??= []).push(Buffer.from(chunk.subarray(at, at + count)));
    this.#keptCount += count;
  }

  #fail(reason: Fault["reason"], words: string): void {
    this.#stage = "failed";
    this.#fault = { reason, words };
    this.#keepsConnection = false;
  }
}

const versionStart = "HTTP/1.";
const statusLine = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const headerLine = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)$/;
const framingHeaders = new Set(["content-length", "transfer-encoding"]);
const readHeaders = new Set([...framingHeaders, "connection", "keep-alive", "retry-after", "webhook-delivery", "location"]);
