// Owns: whether a text holds a key, a token or a password, by secretlint's rules. Must never keep or tell what was found, and never
// let a text switch a rule off: the rules' comments for that are not heeded.
import { rules } from "@secretlint/secretlint-rule-preset-recommend";
import type { SecretLintRuleContext, SecretLintRuleCreator, SecretLintSourceCode } from "@secretlint/types";
import { extensionOf } from "./definitions";
import type { SecretFinder } from "./secrets";

/** Addresses with a password that lead nowhere (RFC 2606, RFC 6761) stand in tests and manuals. */
const reservedHosts = String.raw`/:\/\/[^/\s]*@(?:[^/\s:]+\.)?(?:test|example|invalid|localhost|example\.(?:com|net|org))(?![\w.-])/`;
const optionsByRule: Readonly<Record<string, object>> = {
  "@secretlint/secretlint-rule-basicauth": { allows: [reservedHosts] },
};

// Their types refer to packages that the preset has bundled into itself.
const scanners = (rules as unknown as readonly SecretLintRuleCreator[]).filter(({ meta }) => meta.type === "scanner");

/** Runs on the calling thread: up to 60 ms for a file at the limit of size. */
export const secretsHere: SecretFinder = {
  hasSecret: async (path, text) => {
    const found = { any: false };
    for (const rule of scanners) {
      await rule.create(contextOf(found), optionsByRule[rule.meta.id] ?? {}).file?.(sourceOf(path, text));
      if (found.any) return true;
    }
    return false;
  },
};

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
