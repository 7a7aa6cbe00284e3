// Owns: taking out of an answer's words what they say of the whole repository: how often something stands there, or that it does
// not. Whoever has seen one part of many cannot know. Must never touch a quote, nor add a word.

const things =
  "(?:use|usage|call|caller|reference|mention|occurrence|import|match|place|file|location|result)(?:s|es)?";
const claims = [
  new RegExp(String.raw`\bno (?:other |further |more )?${things}\b`, "i"),
  // Only with a count: "it only calls `x`" and "takes only file paths" say nothing of the whole.
  new RegExp(String.raw`\b(?:the only|only (?:one|two|three|four|five|a single|\d+)) (?:\w+ )?${things}\b`, "i"),
  new RegExp(String.raw`\b(?:in|at) (?:exactly |just )?(?:one|two|three|four|five|a single|\d+) ${things}\b`, "i"),
  /\b(?:not|n['’]t|never) (?:used|called|referenced|mentioned|imported)\b[^.]*\b(?:anywhere|elsewhere|repository|codebase|files)\b/i,
  /\b(?:nowhere|could(?: not|n['’]t) find)\b/i,
];

/** Sentences without such a claim, and of those with one what stands before it: "A is set in `b` and I found no use of it:". */
export function withoutWholeClaims(words: string): string {
  const lines = words.split("\n").map((line) => ({
    before: line,
    after: line
      .split(/(?<=[.!?:;])\s+/)
      .map(withoutClaim)
      .filter((sentence) => sentence !== "")
      .join(" "),
  }));
  return lines.flatMap(({ before, after }) => (after === "" && before.trim() !== "" ? [] : [after])).join("\n");
}

function withoutClaim(sentence: string): string {
  let rest = sentence;
  while (isClaim(rest)) {
    const clause = [...rest.matchAll(/,?\s+(?:and|but|though|although)\s/gi)].at(-1);
    if (clause === undefined) return "";
    rest = rest.slice(0, clause.index);
  }
  if (rest === sentence) return sentence;
  const end = /[.!?:;]\s*$/.exec(sentence);
  return rest + (end === null ? "" : end[0]);
}

function isClaim(text: string): boolean {
  return claims.some((claim) => claim.test(text));
}
