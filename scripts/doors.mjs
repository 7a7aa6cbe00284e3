// Owns: which room may import what, as one table for ESLint, the architecture test and the reader.
// A change here is a change of the architecture: docs/ARCHITECTURE.md says the same in words.

/** `files`: single files of a room that the whole room may not be reached through. `packages`: what is bundled into it. */
export const doors = {
  protocol: { rooms: [], files: [], node: false, vscode: false, packages: [] },
  context: {
    rooms: ["protocol"],
    files: [],
    node: false,
    vscode: false,
    packages: [
      "ignore",
      "@vscode/tree-sitter-wasm",
      "@secretlint/secretlint-rule-preset-recommend",
      "@secretlint/types",
    ],
  },
  git: { rooms: ["protocol", "context"], files: [], node: true, vscode: false, packages: [] },
  worker: { rooms: ["protocol", "context"], files: [], node: true, vscode: false, packages: [] },
  models: { rooms: ["protocol"], files: [], node: true, vscode: false, packages: [] },
  engine: { rooms: ["protocol"], files: [], node: true, vscode: false, packages: [] },
  answer: { rooms: ["protocol", "context"], files: ["engine/client"], node: false, vscode: false, packages: [] },
  extension: {
    rooms: ["protocol", "context", "models", "answer", "git"],
    files: ["engine/client", "worker/client"],
    node: true,
    vscode: true,
    packages: [],
  },
  cli: {
    rooms: ["protocol", "context", "models", "answer", "git"],
    files: ["engine/client", "worker/client"],
    node: true,
    vscode: false,
    packages: [],
  },
};

/** The pages: the protocol's words and these packages, nothing else of src/. */
export const pagePackages = ["@vscode/webview-ui-toolkit", "dompurify", "markdown-it"];

/** In native/: from a folder to what its files may include, by folder or by single header. */
export const nativeDoors = {
  binding: ["binding", "engine.h", "error.h"],
  model: ["model", "cpu", "cuda", "reference", "io", "engine.h", "error.h"],
  // A backend implements the table it is called through and shows itself to a tap; it knows nothing else of the model.
  cpu: [
    "cpu",
    "io",
    "model/backend.h",
    "model/backend_errors.h",
    "model/float_formats.h",
    "model/slabs.h",
    "model/tap.h",
    "error.h",
    "owned_memory.h",
  ],
  cuda: [
    "cuda",
    "io",
    "model/backend.h",
    "model/backend_errors.h",
    "model/device_rates.h",
    "model/float_formats.h",
    "model/slabs.h",
    "error.h",
    "owned_memory.h",
  ],
  reference: ["reference", "io", "model/backend.h", "model/backend_errors.h", "model/tap.h", "error.h"],
  io: ["io", "error.h", "owned_memory.h"],
  tools: ["tools", "model", "cpu", "cuda", "reference", "io", "engine.h", "error.h"],
  // The boundary itself: plain structs of the model, nothing that holds a tensor.
  "": ["error.h", "model/config.h", "model/sampler.h", "model/tokenizer.h"],
};
