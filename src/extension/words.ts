// Owns: every sentence in which the extension tells of a failure or of a reason. One clear sentence each: what is wrong, and what
// to do about it. Must never invent a detail: it words the fields that it is given.
import { l10n } from "vscode";
import type { ErrorKind, RingsideError } from "../protocol/errors";
import { gpuCapability, gpuSubjects, RingsideFailure } from "../protocol/errors";
import type { DropReason, FileChoice, KeepReason, PlannedFile, PlanSummary, ReadingProgress } from "../protocol/qa";
import type { FileState } from "./contextTree";
import { rounded } from "./modelFacts";

type Sentence = (error: RingsideError) => string;

const ofModels = {
  "file-missing": ({ subject }) => l10n.t("{0} does not exist. Choose another model folder.", subject),
  "file-unreadable": ({ subject, actual }) =>
    l10n.t("{0} cannot be read{1}. Check its permissions.", subject, because(actual)),
  "file-truncated": (error) =>
    l10n.t("{0} is cut short{1}. Copy or download the model again.", error.subject, found(error)),
  "file-malformed": (error) =>
    l10n.t("{0} is damaged or no file of its kind{1}. Copy or download the model again.", error.subject, found(error)),
  "file-write-failed": ({ subject, actual }) =>
    l10n.t("{0} cannot be written{1}. Check free space and permissions.", subject, because(actual)),
  "config-invalid": (error) =>
    l10n.t("The model's config.json cannot be used: {0}{1}. Choose another model.", error.subject, found(error)),
  "architecture-unknown": ({ actual }) =>
    l10n.t("This engine runs Ring-linear models; this one is {0}. Choose another model.", named(actual, "?")),
  "tensor-missing": ({ subject }) =>
    l10n.t("The model lacks the tensor {0}. Copy or download the model again.", subject),
  "tensor-unknown": ({ subject }) =>
    l10n.t("The model has a tensor that its architecture does not know: {0}. Choose another model.", subject),
  "tensor-shape": (error) =>
    l10n.t(
      "The tensor {0} has the wrong shape{1}. The weights do not fit their config.json.",
      error.subject,
      found(error),
    ),
  "tensor-dtype": (error) =>
    l10n.t(
      "The tensor {0} has a number format that cannot be read{1}. Convert the model.",
      error.subject,
      found(error),
    ),
  "quantization-unsupported": (error) =>
    l10n.t(
      "The model is quantised in a way that is not supported: {0}{1}. Quantise the original with `ringside quantize`.",
      error.subject,
      found(error),
    ),
  "tokenizer-invalid": (error) =>
    l10n.t(
      "The model's tokenizer.json cannot be used: {0}{1}. Copy or download the model again.",
      error.subject,
      found(error),
    ),
  "out-of-memory": (error) =>
    gpuMemory(error) ??
    l10n.t("There is not enough memory{0}. Close other programs, or use a smaller model.", found(error)),
} as const satisfies Partial<Record<ErrorKind, Sentence>>;

const ofRequests = {
  "context-full": (error) =>
    l10n.t(
      "This does not fit into the model's context{0}. Start a new conversation, or choose fewer folders.",
      found(error),
    ),
  "token-out-of-range": (error) =>
    l10n.t("The engine was given a token that the model does not have{0}. Please report this.", found(error)),
  cancelled: () => l10n.t("Stopped."),
  "argument-invalid": (error) =>
    l10n.t("The setting or argument {0} cannot be used{1}. Change it and try again.", error.subject, found(error)),
  "state-invalid": (error) => l10n.t("The engine cannot do that now{0}. Try again.", because(error.subject)),
  "backend-unavailable": (error) =>
    noGpu(error) ??
    l10n.t("The backend {0} cannot run on this machine{1}. Choose another one.", error.subject, found(error)),
  "device-lost": (error) =>
    l10n.t(
      "The GPU stopped in the middle of its work{0}. Ask again: the engine starts anew by itself.",
      because(error.actual),
    ),
  internal: (error) =>
    l10n.t(
      "Something went wrong inside Ringside: {0}{1}. The log tells more; please report it.",
      named(error.subject, "?"),
      found(error),
    ),
  "engine-missing": ({ actual }) =>
    l10n.t(
      "The native engine is not there or cannot be loaded on this machine{0}. Install Ringside for this platform.",
      because(actual),
    ),
  "engine-died": ({ actual }) =>
    l10n.t("The engine process ended unexpectedly{0}. Ask again: it starts by itself.", because(actual)),
  "engine-restart-limit": ({ expected }) =>
    l10n.t(
      "The engine ended too often (at most {0}). Look into the log, then restart the engine.",
      named(expected, "?"),
    ),
  "worker-missing": ({ actual }) =>
    l10n.t(
      "The part of Ringside that looks into files is not there or does not start{0}; without it no file is read. Reload the window, or install Ringside again.",
      because(actual),
    ),
  "engine-busy": () => l10n.t("Ringside answers one question at a time. Wait for it, or stop it."),
  "frame-invalid": (error) =>
    l10n.t(
      "The engine sent something that is not understood: {0}{1}. Restart the engine.",
      error.subject,
      found(error),
    ),
  "model-not-loaded": () => l10n.t("No model is loaded. Load one in the Models view."),
  "repository-empty": ({ subject }) =>
    l10n.t(
      "There is no text file to read in {0}. Open another folder, or choose other folders to read.",
      named(subject, "?"),
    ),
  "repository-gone": ({ subject }) =>
    subject === ""
      ? l10n.t("The folders of this window changed, or none is open. Open a folder, then ask again.")
      : l10n.t("The folder {0} was closed or removed. Open it again, then ask again.", subject),
  "question-empty": () => l10n.t("The question is empty. Write one."),
  "question-too-long": ({ expected, actual }) =>
    l10n.t("The question has {0} characters; at most {1} are possible. Shorten it.", actual, expected),
} as const satisfies Partial<Record<ErrorKind, Sentence>>;

const sentences: Readonly<Record<ErrorKind, Sentence>> = { ...ofModels, ...ofRequests };

export function wordError(error: RingsideError): string {
  return sentences[error.kind](error);
}

/** Any failure as data; what is no failure of ours is a fault in our own code. */
export function errorOf(cause: unknown): RingsideError {
  if (cause instanceof RingsideFailure) return cause.error;
  const actual = cause instanceof Error ? cause.message : String(cause);
  return { kind: "internal", subject: "extension", expected: "", actual };
}

const dropReasons: Readonly<Record<DropReason, () => string>> = {
  "over-budget": () => l10n.t("did not fit into the model's context"),
  "out-of-scope": () => l10n.t("outside the chosen folders"),
  "chosen-out": () => l10n.t("left out because you chose so"),
  ignored: () => l10n.t("ignored by .gitignore or .ringsideignore"),
  binary: () => l10n.t("not text"),
  "too-large": () => l10n.t("too large"),
  minified: () => l10n.t("minified"),
  generated: () => l10n.t("generated"),
  "lock-file": () => l10n.t("lock file of a package manager"),
  secret: () => l10n.t("looks like a secret"),
  symlink: () => l10n.t("symbolic link"),
  unreadable: () => l10n.t("cannot be read"),
  "file-limit": () => l10n.t("beyond the limit on the number of files"),
};

export const dropReasonsInOrder = Object.keys(dropReasons) as readonly DropReason[];

export function wordDropReason(reason: DropReason): string {
  return dropReasons[reason]();
}

const keepReasons: Readonly<Record<KeepReason, () => string>> = {
  base: () => l10n.t("read for every question"),
  supplement: () => l10n.t("read for the last question"),
  pinned: () => l10n.t("read because you asked for it"),
  chosen: () => l10n.t("read as you chose for every question"),
};

export const keepReasonsInOrder = Object.keys(keepReasons) as readonly KeepReason[];

export function wordKeepReason(reason: KeepReason): string {
  return keepReasons[reason]();
}

export function wordFileReason(reason: PlannedFile["reason"]): string {
  return reason in keepReasons ? wordKeepReason(reason as KeepReason) : wordDropReason(reason as DropReason);
}

const states: Readonly<Record<FileState, () => string>> = {
  full: () => l10n.t("full"),
  outline: () => l10n.t("outline"),
  out: () => l10n.t("left out"),
  excluded: () => l10n.t("excluded"),
};

export function wordState(state: FileState): string {
  return states[state]();
}

/** `isKept`: the plan is as the user wants it. */
export function wordChoice(choice: FileChoice, isKept: boolean): string {
  return isKept ? l10n.t("chosen") : l10n.t("wanted: {0}", wordState(choice));
}

/** What the window had no room for; null: nothing. */
export function wordWindowFit({ outlinedFiles, leftOutFiles, overTokens }: PlanSummary): string | null {
  if (outlinedFiles + leftOutFiles === 0) return null;
  const parts = [
    ...(outlinedFiles > 0 ? [l10n.t("{0} outlined", rounded(outlinedFiles))] : []),
    ...(leftOutFiles > 0 ? [l10n.t("{0} not read", rounded(leftOutFiles))] : []),
  ].join(", ");
  return overTokens > 0
    ? l10n.t("About {0} tokens past the window: {1}.", rounded(overTokens), parts)
    : l10n.t("Not all fits into the window: {0}.", parts);
}

export function wordReading({ position, promptTokens, tokensPerSecond, secondsLeft }: ReadingProgress): string {
  const parts = [
    l10n.t("{0} of {1} tokens", rounded(position), rounded(promptTokens)),
    ...(tokensPerSecond > 0 ? [l10n.t("{0} tok/s", rounded(tokensPerSecond)), wordTimeLeft(secondsLeft)] : []),
  ];
  return parts.join(" · ");
}

function wordTimeLeft(seconds: number): string {
  return seconds < 90
    ? l10n.t("{0} s left", rounded(Math.max(1, Math.ceil(seconds))))
    : l10n.t("{0} min left", rounded(Math.ceil(seconds / 60)));
}

/** Why there is no GPU to run on; null when the failure is about something else. */
function noGpu({ subject, expected, actual }: RingsideError): string | null {
  if (subject === gpuSubjects.driver && actual === "none")
    return l10n.t("There is no NVIDIA driver on this machine. Install version {0} to use the GPU.", expected);
  if (subject === gpuSubjects.driver)
    return l10n.t("The NVIDIA driver is too old or broken (needed {0}, found {1}). Update it.", expected, actual);
  if (subject === gpuSubjects.device)
    return l10n.t("The NVIDIA driver finds no GPU that Ringside can use. Check it with `nvidia-smi`.");
  if (expected.startsWith(gpuCapability))
    return l10n.t("{0} is too old for Ringside (needed {1}, found {2}). Use another GPU.", subject, expected, actual);
  if (subject !== gpuSubjects.library) return null;
  return actual === "none"
    ? l10n.t("This installation has no GPU backend. Install a build of Ringside that has one.")
    : l10n.t("The GPU backend does not fit this installation: needed {0}, found {1}. Reinstall it.", expected, actual);
}

/** Planned memory, or an allocation that the CUDA runtime refused, whose call is then the subject; else null. */
function gpuMemory({ subject, expected, actual }: RingsideError): string | null {
  if (subject !== gpuSubjects.memory && !subject.startsWith("cuda")) return null;
  const numbers = [expected, actual].filter((part) => part !== "").join(", ");
  return l10n.t(
    "There is not enough GPU memory{0}. Close other programs on the GPU, or use a smaller model.",
    because(numbers),
  );
}

function found({ expected, actual }: RingsideError): string {
  if (expected !== "" && actual !== "") return l10n.t(" (needed {0}, found {1})", expected, actual);
  if (expected !== "") return l10n.t(" (needed {0})", expected);
  return because(actual);
}

function because(reason: string): string {
  return reason === "" ? "" : ` (${reason})`;
}

function named(text: string, otherwise: string): string {
  return text === "" ? otherwise : text;
}
