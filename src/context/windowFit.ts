// Owns: by how much a repository is larger than its share of the window, and what that cost its files. Must never hide that the
// size of files that were not counted is an estimate: what is shown of it says "about".
import type { PlannedFile, PlanSummary } from "../protocol/qa";

export type WindowFit = Pick<PlanSummary, "outlinedFiles" | "leftOutFiles" | "overTokens">;

interface SizedFile {
  readonly path: string;
  readonly bytes: number;
}

/** Source text of the tokenizer's languages; used only where nothing was counted. */
const usualBytesPerToken = 3.5;

/** `known`: the tokens of the whole file; 0 when it was never counted. */
export function windowFit<F extends SizedFile>(
  planned: readonly PlannedFile[],
  files: readonly F[],
  known: (file: F) => number,
  budgetTokens: number,
): WindowFit {
  const outlinedFiles = planned.filter(({ mode, reason }) => mode === "outline" && reason !== "chosen").length;
  const left = new Set(planned.filter(({ reason }) => reason === "over-budget").map(({ path }) => path));
  if (outlinedFiles + left.size === 0) return { outlinedFiles: 0, leftOutFiles: 0, overTokens: 0 };
  const wanted = new Set(planned.filter(({ mode }) => mode !== "dropped").map(({ path }) => path));
  let countedTokens = 0;
  let countedBytes = 0;
  let uncountedBytes = 0;
  for (const file of files) {
    if (!wanted.has(file.path) && !left.has(file.path)) continue;
    const tokens = known(file);
    countedTokens += tokens;
    if (tokens > 0) countedBytes += file.bytes;
    else uncountedBytes += file.bytes;
  }
  const bytesPerToken = countedTokens > 0 && countedBytes > 0 ? countedBytes / countedTokens : usualBytesPerToken;
  const neededTokens = countedTokens + Math.ceil(uncountedBytes / bytesPerToken);
  return { outlinedFiles, leftOutFiles: left.size, overTokens: about(Math.max(0, neededTokens - budgetTokens)) };
}

/** No more digits than an estimate has. */
function about(tokens: number): number {
  return Math.round(Number(tokens.toPrecision(2)));
}
