/** The same in each process of a run: the database keeps what was sealed with it. */
export const secretKey = Buffer.alloc(32, "bench").toString("base64");
