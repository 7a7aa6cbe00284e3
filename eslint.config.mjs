// Owns: what lint enforces: strict typed rules for TypeScript, and the doors between the rooms (scripts/doors.mjs).
import js from "@eslint/js";
import tseslint from "typescript-eslint";
import { doors, pagePackages } from "./scripts/doors.mjs";
import { root } from "./scripts/paths.mjs";

const nodeGlobals = [
  "AbortSignal",
  "Buffer",
  "URL",
  "clearTimeout",
  "console",
  "fetch",
  "performance",
  "process",
  "setTimeout",
];

const forbid = (regex, message) => ({ regex, message });
const escaped = (names) => names.map((name) => name.replaceAll("/", "\\/")).join("|");
const onlyPackages = (names) =>
  forbid(
    `^(?!\\.|node:|vscode$${names.length > 0 ? `|(?:${escaped(names)})(?:$|\\/)` : ""})`,
    "This package is not for this room.",
  );

/** Folders within a room; from a file `depth` of them down, so many steps up still lead to the room itself. */
const depths = [0, 1, 2];

function zone(room, { rooms, files, node, vscode, packages }, depth) {
  const reachable = [...rooms.map((name) => `${name}/`), ...files.map((file) => `${file}$`)];
  const outside = `^(?:\\.\\./){${depth + 1},}`;
  const patterns = [
    forbid(
      reachable.length > 0 ? `${outside}(?!${escaped(reachable)}|\\.)` : outside,
      "This door is closed (scripts/doors.mjs).",
    ),
    onlyPackages(packages),
  ];
  if (!node) patterns.push(forbid("^node:", "This room runs without Node."));
  if (!vscode) patterns.push(forbid("^vscode$", "Only src/extension/ knows VS Code."));
  return {
    files: [`src/${room}/${"*/".repeat(depth)}*.ts`],
    rules: { "no-restricted-imports": ["error", { patterns }] },
  };
}

const pages = {
  files: ["webview/**/*.ts"],
  rules: {
    "no-restricted-imports": [
      "error",
      {
        patterns: [
          forbid("src/(?!protocol/)", "A page knows the protocol and nothing else of src/."),
          forbid("^node:|^vscode$", "A page runs in the browser."),
          onlyPackages(pagePackages),
        ],
      },
    ],
  },
};

export default tseslint.config(
  { ignores: ["build/**", "dist/**", "node_modules/**", "media/**", "**/*.d.ts"] },
  js.configs.recommended,
  {
    files: ["**/*.mjs"],
    languageOptions: { globals: Object.fromEntries(nodeGlobals.map((name) => [name, "readonly"])) },
    rules: {
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_|^scripts$|^devDependencies$" }],
    },
  },
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: root } },
    rules: {
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "no-restricted-syntax": ["error", { selector: "ExportDefaultDeclaration", message: "Exports have names." }],
      "max-lines": ["error", { max: 600 }],
    },
  },
  {
    files: ["src/**/*.ts", "webview/**/*.ts"],
    rules: { "max-lines-per-function": ["error", { max: 80, skipComments: true, skipBlankLines: true }] },
  },
  {
    files: ["test/**/*.ts"],
    rules: {
      // The runner awaits its own tests.
      "@typescript-eslint/no-floating-promises": [
        "error",
        {
          allowForKnownSafeCalls: [
            { from: "package", package: "node:test", name: ["test", "it", "describe", "suite"] },
          ],
        },
      ],
    },
  },
  ...Object.entries(doors).flatMap(([room, door]) => depths.map((depth) => zone(room, door, depth))),
  pages,
);
