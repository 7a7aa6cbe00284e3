// Owns: whether a text holds a key, a token or a password, by secretlint's rules. Must never keep or tell what was found, and never
// let a text switch a rule off: the rules' comments for that are not heeded.
import type { SecretLintRuleContext, SecretLintRuleCreator, SecretLintSourceCode } from "@secretlint/types";
import { extensionOf } from "./definitions";
import { WorkerDied } from "./worker";
import type { ContextWorker } from "./worker";

/** The port through which this room has a text looked at, here or on another thread. */
export interface SecretFinder {
  hasSecret(path: string, text: string, signal?: AbortSignal): Promise<boolean>;
}

/** Addresses with a password that lead nowhere (RFC 2606, RFC 6761) stand in tests and manuals. */
const reservedHosts = String.raw`/:\/\/[^/\s]*@(?:[^/\s:]+\.)?(?:test|example|invalid|localhost|example\.(?:com|net|org))(?![\w.-])/`;
const optionsByRule: Readonly<Record<string, object>> = {
  "@secretlint/secretlint-rule-basicauth": { allows: [reservedHosts] },
};

/** Runs on the calling thread: up to 60 ms for a file at the limit of size. */
export const secretsHere: SecretFinder = {
  hasSecret: async (path, text) => {
    const found = { any: false };
    for (const rule of await scanners()) {
      await rule.create(contextOf(found), optionsByRule[rule.meta.id] ?? {}).file?.(sourceOf(path, text));
      if (found.any) return true;
    }
    return false;
  },
};

/** On the worker's thread. A text on which a rule does not come to an end is not shown to be harmless: it counts as a secret. */
export function secretsOnWorker(worker: ContextWorker): SecretFinder {
  return {
    hasSecret: async (path, text, signal) => {
      try {
        return await worker.run("secrets", { path, text }, signal);
      } catch (error) {
        if (error instanceof WorkerDied) return true;
        throw error;
      }
    },
  };
}

/** Loaded when they are first asked: a process whose worker looks for secrets needs none of them. */
let loadedScanners: Promise<readonly SecretLintRuleCreator[]> | undefined;

function scanners(): Promise<readonly SecretLintRuleCreator[]> {
  // Their types refer to packages that the preset has bundled into itself.
  loadedScanners ??= import("@secretlint/secretlint-rule-preset-recommend").then(({ rules }) =>
    (rules as unknown as readonly SecretLintRuleCreator[]).filter(({ meta }) => meta.type === "scanner"),
  );
  return loadedScanners;
}

function contextOf(found: { any: boolean }): SecretLintRuleContext {
  return {
    sharedOptions: {},
    createTranslator: () => (messageId, data) => ({ message: "", messageId: String(messageId), data }),
    report: () => {
      found.any = true;
    },
    ignore: () => undefined,
  };
}

/** As much of it as the rules read. No path of the machine: with one, a rule would open the file itself. */
function sourceOf(path: string, text: string): SecretLintSourceCode {
  const nowhere = (): never => {
    throw new Error("places in the text are not needed");
  };
  return {
    hasBOM: false,
    content: text,
    filePath: path,
    physicalFilePath: undefined,
    contentType: "text",
    ext: extensionOf(path) === "json" ? ".json" : "",
    getFilePath: () => path,
    getPhysicalFilePath: () => undefined,
    locationToRange: nowhere,
    rangeToLocation: nowhere,
    positionToIndex: nowhere,
    indexToPosition: nowhere,
  };
}
