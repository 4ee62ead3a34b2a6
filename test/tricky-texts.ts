import fc from "fast-check";

/** Texts made of all that an array's text uses itself. */
export const trickyTexts = fc.oneof(
  fc.string({ unit: fc.constantFrom("{", "}", '"', "\\", ",", " ", "\n", "N", "é", "𝄞"), maxLength: 6 }),
  fc.constantFrom("", "NULL", "null", "\\", '"', "{}", "[0:1]={1}"),
  fc.string({ maxLength: 10 }),
);
