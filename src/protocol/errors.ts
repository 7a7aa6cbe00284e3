// Owns: the kinds of failure that cross a wall, with their fields. Must never hold a sentence for people:
// those are worded at the door (src/extension/, src/cli/).

/** Failures of the native engine; the same words as native/error.h. */
export const nativeErrorKinds = [
  "file-missing",
  "file-unreadable",
  "file-truncated",
  "file-malformed",
  "file-write-failed",
  "config-invalid",
  "architecture-unknown",
  "tensor-missing",
  "tensor-unknown",
  "tensor-shape",
  "tensor-dtype",
  "quantization-unsupported",
  "tokenizer-invalid",
  "out-of-memory",
  "context-full",
  "token-out-of-range",
  "cancelled",
  "argument-invalid",
  "state-invalid",
  "backend-unavailable",
  "device-lost", // the GPU serves this process no more; another process can begin anew
  "internal",
] as const;

/** Failures of the process wall and of the rooms above it. */
export const hostErrorKinds = [
  "engine-missing", // the native addon is not there or cannot be loaded on this machine
  "engine-died", // the engine process ended while the request ran
  "engine-restart-limit", // it died too often in too short a time
  "worker-missing", // the thread that looks into files is not there or does not start
  "engine-busy", // another request runs
  "frame-invalid", // bytes on the wire that are not a frame of this protocol
  "model-not-loaded",
  "repository-empty", // no readable text file
  "repository-gone", // the folder was closed or removed
  "question-empty",
  "question-too-long",
] as const;

export type NativeErrorKind = (typeof nativeErrorKinds)[number];
export type ErrorKind = NativeErrorKind | (typeof hostErrorKinds)[number];
export const errorKinds: readonly ErrorKind[] = [...nativeErrorKinds, ...hostErrorKinds];

/**
 * What a failure of the GPU backend is about, by the names that native/model/backend_library.cc and native/cuda/ give it as
 * its subject: the doors have words of their own for each.
 */
export const gpuSubjects = {
  driver: "NVIDIA driver",
  device: "NVIDIA GPU",
  library: "libringside_cuda.so",
  memory: "GPU memory",
} as const;

/** How a card that is too old is refused: its name is the subject, and what was needed begins so. */
export const gpuCapability = "compute capability";

/** One failure as plain data. Empty strings mean "not applicable". */
export interface RingsideError {
  readonly kind: ErrorKind;
  /** The file, tensor, field or argument that is wrong. */
  readonly subject: string;
  /** The limit or value that was needed. */
  readonly expected: string;
  /** The value that was found. */
  readonly actual: string;
}

/** The longest field of an error: more than any path, and what the validators on both walls accept. */
export const errorFieldCharacters = 4_096;

/** Carries a {@link RingsideError} through code that throws; fields that are too long for the walls are cut. */
export class RingsideFailure extends Error {
  readonly error: RingsideError;
  constructor({ kind, subject, expected, actual }: RingsideError) {
    const cut = (field: string): string => field.slice(0, errorFieldCharacters);
    const error = { kind, subject: cut(subject), expected: cut(expected), actual: cut(actual) };
    super([error.kind, error.subject, error.expected, error.actual].filter((part) => part !== "").join(": "));
    this.name = "RingsideFailure";
    this.error = error;
  }
}

export function failure(kind: ErrorKind, subject = "", expected = "", actual = ""): RingsideFailure {
  return new RingsideFailure({ kind, subject, expected, actual });
}
