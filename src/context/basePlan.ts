// Owns: the files that are read for every question. Depends on the repository, the model and the scope alone, so that the
// state after them can be kept between questions. Must never look at a question, a clock or a path of the machine.
import type { ScannedFile } from "./contentCache";
import { Pace } from "./pace";
import { promptOrder, rankFiles } from "./rank";
import type { RepositoryScan } from "./scan";
import type { CountedFile, TokenCounts } from "./tokenCounts";

export interface BaseRequest {
  readonly scan: RepositoryScan;
  readonly counts: TokenCounts;
  /** Room for all files of a prompt. */
  readonly budgetTokens: number;
  /** Part of it that stays free for files a question names, unless the whole repository fits. */
  readonly reserveTokens: number;
  /** Folders to read; empty: all. */
  readonly scope: readonly string[];
}

export interface BasePlan {
  /** In prompt order. */
  readonly files: readonly CountedFile[];
  readonly tokens: number;
}

const countedAtOnce = 32;
/** No text has fewer tokens than its bytes by this; larger files are passed over uncounted. */
const bytesPerTokenAtMost = 12;
/** When this many files in a row did not fit, the rest is not tried. */
const missesAtMost = 64;

export function inScope(path: string, scope: readonly string[]): boolean {
  return (
    scope.length === 0 || scope.some((folder) => folder === "" || path === folder || path.startsWith(`${folder}/`))
  );
}

export async function planBase(request: BaseRequest, signal?: AbortSignal): Promise<BasePlan> {
  const { scan, budgetTokens, reserveTokens, scope } = request;
  const inside = scan.files.filter((file) => inScope(file.path, scope));
  const candidates = await rankFiles(inside, new Pace(signal));
  const everything = await fill(request, candidates, budgetTokens, signal);
  const complete = everything.files.length === candidates.length;
  const chosen = complete ? everything : await fill(request, candidates, budgetTokens - reserveTokens, signal);
  return { files: [...chosen.files].sort((a, b) => promptOrder(a.file, b.file)), tokens: chosen.tokens };
}

async function fill(
  { scan, counts }: BaseRequest,
  candidates: readonly ScannedFile[],
  limitTokens: number,
  signal: AbortSignal | undefined,
): Promise<BasePlan> {
  const pace = new Pace(signal);
  const files: CountedFile[] = [];
  let tokens = 0;
  let misses = 0;
  for (let start = 0; start < candidates.length && misses < missesAtMost; start += countedAtOnce) {
    await pace.breathe();
    const batch = candidates.slice(start, start + countedAtOnce);
    const plausible = batch.filter((file) => file.bytes / bytesPerTokenAtMost <= limitTokens - tokens);
    const counted = new Map((await counts.files(scan, plausible, signal)).map((item) => [item.file, item]));
    for (const file of batch) {
      const item = counted.get(file);
      if (item === undefined || tokens + item.tokens > limitTokens) {
        misses++;
        continue;
      }
      misses = 0;
      files.push(item);
      tokens += item.tokens;
    }
  }
  return { files, tokens };
}
