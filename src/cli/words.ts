// Owns: the sentences in which the command line tells of a failure or of what did not fit: what is wrong and what to do about it.
// Must never invent a detail: it words the fields that it is given.
import { gpuCapability, gpuSubjects } from "../protocol/errors";
import type { ErrorKind, RingsideError } from "../protocol/errors";
import type { PlanSummary } from "../protocol/qa";

const sentences: Readonly<Record<ErrorKind, (error: RingsideError) => string>> = {
  "file-missing": ({ subject }) =>
    `${named(subject, "A file")} does not exist; check the path given with --model or --repo.`,
  "file-unreadable": ({ subject, actual }) =>
    `${named(subject, "A file")} cannot be read${because(actual)}; check its permissions.`,
  "file-truncated": (error) =>
    `${named(error.subject, "A file")} is cut short${found(error)}; copy or download the checkpoint again.`,
  "file-malformed": (error) =>
    `${named(error.subject, "A file")} is not a valid file of its kind${found(error)}; get the checkpoint again.`,
  "file-write-failed": ({ subject, actual }) =>
    `${named(subject, "A file")} cannot be written${because(actual)}; check space and permissions.`,
  "config-invalid": (error) =>
    `The model's config.json cannot be used: ${named(error.subject, "a field is wrong")}${found(error)}; choose another checkpoint.`,
  "architecture-unknown": ({ expected, actual }) =>
    `The checkpoint's architecture is ${named(actual, "unknown")}, but this engine runs ${expected === "" ? "Ring-linear models" : expected} only; choose another checkpoint.`,
  "tensor-missing": ({ subject }) => `The checkpoint lacks ${named(subject, "a tensor")}; get the checkpoint again.`,
  "tensor-unknown": ({ subject }) =>
    `The checkpoint has ${named(subject, "a tensor")}, which this architecture does not have; choose another checkpoint.`,
  "tensor-shape": (error) =>
    `${named(error.subject, "A tensor")} has the wrong shape${found(error)}; the checkpoint does not fit its config.json.`,
  "tensor-dtype": (error) =>
    `${named(error.subject, "A tensor")} has a number format that cannot be read${found(error)}; convert the checkpoint.`,
  "quantization-unsupported": (error) =>
    `The checkpoint is quantised in a way that is not supported: ${named(error.subject, "its layout")}${found(error)}; quantise the original with "ringside quantize".`,
  "tokenizer-invalid": (error) =>
    `The model's tokenizer.json cannot be used: ${named(error.subject, "it is not understood")}${found(error)}; get the checkpoint again.`,
  "out-of-memory": (error) =>
    gpuMemory(error) ??
    `There is not enough memory for ${named(error.subject, "this model")}${found(error)}; choose a smaller model or close other programs.`,
  "context-full": (error) => `The model's context is full${found(error)}; ask about fewer files or a shorter text.`,
  "token-out-of-range": (error) =>
    `A token id is not in the model's vocabulary${found(error)}; give ids made with this model's tokenizer.`,
  cancelled: () => "Stopped.",
  "argument-invalid": (error) =>
    `${named(error.subject, "An argument")} cannot be used${found(error)}; change it and try again.`,
  "state-invalid": (error) =>
    `The engine cannot do that now: ${named(error.subject, "a call came in the wrong state")}${found(error)}; try again.`,
  "backend-unavailable": (error) =>
    noGpu(error) ??
    `The backend ${named(error.subject, "that was asked for")} cannot run on this machine${found(error)}; use --backend auto.`,
  "device-lost": (error) =>
    `The GPU stopped in the middle of its work${because(error.actual)}; try again, the engine restarts by itself.`,
  internal: (error) =>
    `Something went wrong inside the engine: ${named(error.subject, "unknown")}${found(error)}; please report it.`,
  "engine-missing": ({ subject, actual }) =>
    `${named(subject, "The native engine")} cannot be loaded on this machine${because(actual)}; run "npm run build".`,
  "engine-died": ({ actual }) =>
    `The engine process ended unexpectedly${because(actual)}; try again, it restarts by itself.`,
  "engine-restart-limit": ({ expected }) =>
    `The engine process ended too often${expected === "" ? "" : ` (limit: ${expected})`}; check memory and the model folder, then start again.`,
  "worker-missing": ({ subject, actual }) =>
    `${named(subject, "The thread that looks into files")} is not there or does not start${because(actual)}, and without it no file is read; run "npm run build".`,
  "engine-busy": () => "The engine is at work on another request; wait until it has ended.",
  "frame-invalid": (error) =>
    `The engine process sent something that is not understood: ${named(error.subject, "a message")}${found(error)}; run "npm run build".`,
  "model-not-loaded": () => "No model is loaded; name one with --model.",
  "repository-empty": ({ subject }) =>
    `There is no readable text file in ${named(subject, "the repository")}; name another folder with --repo.`,
  "repository-gone": ({ subject }) =>
    `The folder ${named(subject, "of the repository")} is not there or cannot be read; name another one with --repo.`,
  "question-empty": () => "The question is empty; write one.",
  "question-too-long": ({ expected, actual }) =>
    `The question is too long${expected === "" ? "" : `: ${actual} characters, at most ${expected}`}; shorten it.`,
};

/** One sentence for people. */
export function wordError(error: RingsideError): string {
  return sentences[error.kind](error);
}

/** Why there is no GPU to run on; null when the failure is about something else. */
function noGpu({ subject, expected, actual }: RingsideError): string | null {
  if (subject === gpuSubjects.driver && actual === "none")
    return `There is no NVIDIA driver on this machine, and the GPU backend needs version ${expected}; install it, or use --backend auto.`;
  if (subject === gpuSubjects.driver)
    return `The NVIDIA driver of this machine cannot run the GPU backend: needed ${expected}, found ${actual}; update it, or use --backend auto.`;
  if (subject === gpuSubjects.device)
    return "There is a driver, but no NVIDIA GPU that this process can use; check with nvidia-smi, or use --backend auto.";
  if (expected.startsWith(gpuCapability))
    return `${named(subject, "The GPU")} is too old for the GPU backend: needed ${expected}, found ${actual}; use --backend auto.`;
  if (subject !== gpuSubjects.library) return null;
  const reason = actual === "none" ? "is not there" : `cannot be used: needed ${expected}, found ${actual}`;
  return `The GPU backend ${subject} ${reason}; run "npm run build" on this machine with nvcc 13, or use --backend auto.`;
}

/** Planned memory, or an allocation that the CUDA runtime refused, whose call is then the subject; else null. */
function gpuMemory({ subject, expected, actual }: RingsideError): string | null {
  if (subject !== gpuSubjects.memory && !subject.startsWith("cuda")) return null;
  const numbers = [expected, actual].filter((part) => part !== "").join(", ");
  return `There is not enough GPU memory${because(numbers)}; close other programs on the GPU, choose a smaller model, or use --backend cpu.`;
}

function found({ expected, actual }: RingsideError): string {
  if (expected !== "" && actual !== "") return ` (needed ${expected}, found ${actual})`;
  if (expected !== "") return ` (needed ${expected})`;
  return actual === "" ? "" : ` (found ${actual})`;
}

function because(reason: string): string {
  return reason === "" ? "" : ` (${reason})`;
}

function named(subject: string, otherwise: string): string {
  return subject === "" ? otherwise : subject;
}

/** What the window had no room for, and what to do about it; null: everything was read. */
export function wordWindowFit({ outlinedFiles, leftOutFiles, overTokens }: PlanSummary): string | null {
  if (outlinedFiles + leftOutFiles === 0) return null;
  const size =
    overTokens > 0 ? `is about ${overTokens.toLocaleString("en-US")} tokens larger than` : "does not all fit into";
  const parts = [
    ...(outlinedFiles > 0 ? [`${fileCount(outlinedFiles)} read as an outline`] : []),
    ...(leftOutFiles > 0 ? [`${fileCount(leftOutFiles)} not read`] : []),
  ];
  return `The repository ${size} the model's window: ${parts.join(", ")}. Name folders with --scope to read less.`;
}

function fileCount(count: number): string {
  return count === 1 ? "1 file" : `${count.toLocaleString("en-US")} files`;
}
