// Owns: the one engine of this window: its process, the model it is to load, and what became of each model folder.
// Must never load native code into the extension host: that is the process's work.
import { EventEmitter, workspace } from "vscode";
import type { LogOutputChannel } from "vscode";
import { createEngineClient } from "../engine/client";
import type { EnginePort, EngineStatus, LoadRequest } from "../protocol/engine";
import { RingsideFailure } from "../protocol/errors";
import type { RingsideError } from "../protocol/errors";
import type { ReadingProgress } from "../protocol/qa";
import type { Installation } from "./installation";
import { readSettings, section } from "./settings";
import type { Disposable } from "./disposable";

export class EngineAccess implements Disposable {
  readonly port: EnginePort;
  readonly #installation: Installation;
  readonly #changed = new EventEmitter<EngineStatus>();
  readonly #subscriptions: Disposable[] = [];
  readonly #loadErrors = new Map<string, RingsideError>();
  readonly #read = new EventEmitter<ReadingProgress | null>();
  #reading: ReadingProgress | null = null;
  readonly onDidChange = this.#changed.event;
  readonly onDidRead = this.#read.event;

  constructor(installation: Installation, log: LogOutputChannel) {
    this.#installation = installation;
    this.port = createEngineClient({
      hostScript: installation.engineHost,
      addonPath: installation.addon,
      snapshots: { folder: installation.snapshots, limitBytes: readSettings().snapshotDiskBytes },
      log: (line) => log.info(line),
    });
    this.port.onStatus((status) => {
      if (status.model !== null) this.#loadErrors.delete(status.model.folder);
      this.#changed.fire(status);
    });
    const settings = workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration(section)) this.#changed.fire(this.port.status());
    });
    this.#subscriptions.push(settings, this.#changed, this.#read);
  }

  /** How far the prompt is read that is being read now, with a question or without one. */
  get reading(): ReadingProgress | null {
    return this.#reading;
  }

  noteReading(progress: ReadingProgress | null): void {
    if (progress === this.#reading) return;
    this.#reading = progress;
    this.#read.fire(progress);
  }

  /** The model that questions are asked of. */
  get folderInUse(): string {
    const { model } = readSettings();
    return model === "" ? this.#installation.embeddedModel : model;
  }

  /** Why a folder could not be loaded the last time. */
  loadError(folder: string): RingsideError | undefined {
    return this.#loadErrors.get(folder);
  }

  loadRequest(folder = this.folderInUse): LoadRequest {
    const { threads, kvFormat, gpuMemoryBytes: deviceMemoryBytes, gpuDevice: device } = readSettings();
    return { folder, backend: "auto", threads, slopeForm: "A", isa: "", kvFormat, deviceMemoryBytes, device };
  }

  async load(folder: string, onProgress: (fraction: number) => void, signal: AbortSignal): Promise<void> {
    try {
      await this.port.load(this.loadRequest(folder), { onProgress, signal });
    } catch (cause) {
      this.noteLoadFailure(folder, cause);
      throw cause;
    }
  }

  /** A question loads by itself; its failure belongs to the model's folder just as well. */
  noteLoadFailure(folder: string, cause: unknown): void {
    if (!(cause instanceof RingsideFailure) || cause.error.kind === "cancelled") return;
    this.#loadErrors.set(folder, cause.error);
    this.#changed.fire(this.port.status());
  }

  /** A new beginning: earlier deaths are forgotten, and the model in use is loaded again. */
  async restart(onProgress: (fraction: number) => void, signal: AbortSignal): Promise<void> {
    await this.port.stop();
    await this.load(this.folderInUse, onProgress, signal);
  }

  dispose(): void {
    for (const subscription of this.#subscriptions) subscription.dispose();
    // The process also ends by itself when this one does.
    void this.port.stop();
  }
}
