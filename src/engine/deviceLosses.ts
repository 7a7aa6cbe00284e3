// Owns: how often the device of the wanted model was lost of late, and what follows: where it may, the model moves to the processor.
import type { DeviceLoss, LoadRequest } from "../protocol/engine";
import type { RingsideError } from "../protocol/errors";

/** After so many losses a model that may run anywhere is loaded on the processor; what was lost is repeated as often. */
export const maxDeviceLosses = 2;
/** A GPU that fails once a day is worth starting again each time. */
export const deviceLossWindowMs = 60 * 60 * 1_000;

export class DeviceLosses {
  #atMs: number[] = [];
  #error: RingsideError | null = null;
  #onProcessor = false;

  note(error: RingsideError, request: LoadRequest | null, nowMs: number): void {
    this.#atMs = [...this.#atMs.filter((atMs) => nowMs - atMs < deviceLossWindowMs), nowMs];
    this.#error = error;
    if (request?.backend === "auto" && this.#atMs.length >= maxDeviceLosses) this.#onProcessor = true;
  }

  /** The user asked for a new beginning. */
  forget(): void {
    this.#atMs = [];
    this.#error = null;
    this.#onProcessor = false;
  }

  /** What to load when `request` is wanted. */
  requestFor(request: LoadRequest): LoadRequest {
    return this.#onProcessor ? { ...request, backend: "cpu" } : request;
  }

  /** null: none was lost of late. */
  told(): DeviceLoss | null {
    if (this.#error === null) return null;
    return { error: this.#error, times: this.#atMs.length, onProcessor: this.#onProcessor };
  }
}
