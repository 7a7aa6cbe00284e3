// Owns: the engine host process: it reads requests from the stream its client holds, does them one after another, and replies.
// The only file of the product that opens the native addon. Must never use the network, write a file but snapshots or print a prompt; it
// ends within one second after its client has gone, and with a code of its own when its device is lost.
import { Socket } from "node:net";
import { setPriority } from "node:os";
import type { EngineReply, EngineRequest, EngineResult } from "../protocol/engine";
import { deviceLostExitCode, engineProtocolVersion, mainSession } from "../protocol/engine";
import type { RingsideError } from "../protocol/errors";
import { failure, RingsideFailure } from "../protocol/errors";
import { parseEngineRequest } from "../protocol/validate";
import { openAddon } from "./addon";
import type { NativeAddon } from "./addonTypes";
import { FrameStream } from "./frameStream";
import type { Call } from "./session";
import { ModelSession } from "./session";
import { FolderDisk } from "./snapshotDisk";
import { SnapshotStore } from "./snapshotStore";
import { engineStreamDescriptor } from "./wire";

const maxWaitingRequests = 256;
/** A native call obeys a cancel within 100 ms; a host that is still here after this ends without it. */
const lingerMs = 700;
/** A little below the editor's own threads, which matter on a machine with few cores; not so low that a build beside it starves it. */
const niceness = 3;

type Job = Exclude<EngineRequest, { type: "hello" | "cancel" }>;

/** One of these runs or waits at a time: each of them changes what the session holds. */
const exclusive: ReadonlySet<EngineRequest["type"]> = new Set([
  "load",
  "unload",
  "logits",
  "sync",
  "generate",
  "generateTogether",
]);

class Host {
  readonly #stream: FrameStream;
  readonly #session: ModelSession;
  readonly #waiting: { readonly job: Job; readonly call: Call }[] = [];
  #current: { readonly job: Job; readonly call: Call } | null = null;
  /** Tokens of each session that wait until the client reads again. */
  readonly #heldTokens = new Map<number, Extract<EngineReply, { type: "tokens" }>>();
  #ending = false;

  constructor(socket: Socket, addonPath: string, store: Promise<SnapshotStore> | null) {
    let addon: NativeAddon | null = null;
    this.#session = new ModelSession({ openAddon: () => (addon ??= openAddon(addonPath)), addonPath, store });
    this.#stream = new FrameStream(socket, {
      onValue: (value) => {
        this.#receive(parseEngineRequest(value));
      },
      onClose: () => {
        this.#end();
      },
    });
  }

  #receive(request: EngineRequest): void {
    switch (request.type) {
      case "hello":
        this.#succeed(request.id, { of: "hello", version: engineProtocolVersion, pid: process.pid });
        return;
      case "cancel":
        this.#cancel(request.target, request.session);
        this.#succeed(request.id, { of: "cancel" });
        return;
      default:
        this.#enqueue(request);
    }
  }

  #enqueue(job: Job): void {
    const atWork = this.#current === null ? this.#waiting : [this.#current, ...this.#waiting];
    const blocked = exclusive.has(job.type) && atWork.some((other) => exclusive.has(other.job.type));
    if (blocked || atWork.length > maxWaitingRequests) {
      this.#fail(job.id, failure("engine-busy", job.type).error);
      return;
    }
    const reply = (message: EngineReply): void => {
      this.#interim(message);
    };
    this.#waiting.push({ job, call: { id: job.id, cancelled: false, reply } });
    void this.#work();
  }

  async #work(): Promise<void> {
    if (this.#current !== null) return;
    for (let next = this.#waiting.shift(); next !== undefined && !this.#ending; next = this.#waiting.shift()) {
      this.#current = next;
      const { job, call } = next;
      try {
        if (call.cancelled) throw failure("cancelled");
        const result = await this.#perform(job, call);
        this.#releaseTokens();
        this.#succeed(job.id, result);
      } catch (cause) {
        this.#releaseTokens();
        const error = errorOf(cause);
        this.#fail(job.id, error);
        if (error.kind === "device-lost") return this.#endLost();
      }
      await this.#stream.room();
      this.#current = null;
    }
    if (this.#ending) process.exit(0);
  }

  async #perform(job: Job, call: Call): Promise<EngineResult> {
    switch (job.type) {
      case "load":
        return { of: "load", info: await this.#session.load(job.load, call) };
      case "unload":
        await this.#session.unload();
        return { of: "unload" };
      case "count":
        return { of: "count", tokens: await this.#session.count(job.texts, call) };
      case "tokenize":
        return { of: "tokenize", ids: await this.#session.tokenize(job.texts, job.special, call) };
      case "detokenize":
        return { of: "detokenize", texts: await this.#session.detokenize(job.ids, call) };
      case "logits":
        return { of: "logits", logits: await this.#session.logits(job.ids, job.split, call) };
      case "sync":
        return { of: "sync", sync: await this.#session.sync(job.prompt, job.repository, job.session, call) };
      case "generate":
        return { of: "generate", generate: await this.#session.generate(job, call) };
      case "generateTogether":
        return { of: "generateTogether", generate: await this.#session.generateTogether(job.members, call) };
    }
  }

  #cancel(target: number, session: number): void {
    if (this.#current?.call.id === target) {
      if (session === mainSession) this.#current.call.cancelled = true;
      this.#session.interrupt(session);
      return;
    }
    const waiting = this.#waiting.find(({ call }) => call.id === target);
    // A batch that has not begun has no session to stop yet.
    if (waiting !== undefined && session === mainSession) waiting.call.cancelled = true;
  }

  /** While the client does not read, tokens are joined into one message and progress is dropped: the buffer stays bounded. */
  #interim(reply: EngineReply): void {
    if (reply.type !== "tokens") {
      if (!this.#stream.congested) this.#stream.send(reply);
      return;
    }
    const held = this.#heldTokens.get(reply.session);
    const batch =
      held === undefined
        ? reply.batch
        : { ids: [...held.batch.ids, ...reply.batch.ids], text: held.batch.text + reply.batch.text };
    this.#heldTokens.set(reply.session, { ...reply, batch });
    if (!this.#stream.congested) this.#releaseTokens();
  }

  #releaseTokens(): void {
    const held = [...this.#heldTokens.values()];
    this.#heldTokens.clear();
    for (const reply of held) this.#stream.send(reply);
  }

  #succeed(id: number, result: EngineResult): void {
    try {
      this.#stream.send({ type: "result", id, result } satisfies EngineReply);
    } catch (cause) {
      // A result can be larger than a frame (the tokens of a huge text, say).
      this.#fail(id, errorOf(cause));
    }
  }

  #fail(id: number, error: RingsideError): void {
    this.#stream.send({ type: "failed", id, error } satisfies EngineReply);
  }

  /** After a sticky error each further call on the device fails until the process ends, so it ends once the client is told. */
  async #endLost(): Promise<void> {
    this.#ending = true;
    setTimeout(() => process.exit(deviceLostExitCode), lingerMs);
    await this.#stream.flushed();
    process.exit(deviceLostExitCode);
  }

  /** The client has gone, or sent what is no frame: what runs is stopped, and the process ends even if it does not stop. */
  #end(): void {
    if (this.#ending) return;
    this.#ending = true;
    // process.exit() would wait for the native thread, so what does not stop in time is ended from outside itself.
    setTimeout(() => process.kill(process.pid, "SIGKILL"), lingerMs);
    if (this.#current === null) {
      // A state that is being written is worth the moment.
      void this.#session.written().then(() => process.exit(0));
      return;
    }
    this.#current.call.cancelled = true;
    this.#session.interrupt();
  }
}

function errorOf(cause: unknown): RingsideError {
  if (cause instanceof RingsideFailure) return cause.error;
  return failure("internal", cause instanceof Error ? cause.name : "", "", "").error;
}

/** null: nothing is kept on a disk. What becomes of it is told in the log, once. */
function openStore(folder: string, limitBytes: number): Promise<SnapshotStore> | null {
  if (folder === "" || !(limitBytes > 0)) return null;
  return SnapshotStore.open({
    disk: new FolderDisk(folder),
    limitBytes,
    onDisabled: (code) => console.error(`snapshots are not written any more: ${code}`),
    onDamaged: (key) => console.error(`snapshot ${key.slice(0, 12)} was damaged and is removed`),
  });
}

function main(addonPath: string, snapshotFolder: string, snapshotBytes: string): void {
  // Ctrl-C in a terminal reaches the whole process group; the client decides what it means.
  process.on("SIGINT", () => undefined);
  try {
    setPriority(niceness);
  } catch {
    // Not permitted here: the work is the same at normal priority.
  }
  new Host(
    new Socket({ fd: engineStreamDescriptor, readable: true, writable: true }),
    addonPath,
    openStore(snapshotFolder, Number(snapshotBytes)),
  );
}

const [, , addonPath, snapshotFolder = "", snapshotBytes = "0"] = process.argv;
if (addonPath === undefined) process.exit(2);
main(addonPath, snapshotFolder, snapshotBytes);
