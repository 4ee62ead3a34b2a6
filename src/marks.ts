export { expressMarks, honoMarks, nextMarks } from "./marks/http.ts";
export { markClient, markPool } from "./marks/pg.ts";
export { marksSql, withMarks } from "./marks/request-marks.ts";
export type { Marks, MarksSql } from "./marks/request-marks.ts";
