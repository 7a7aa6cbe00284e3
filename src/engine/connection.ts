// Owns: the client's end of one engine process: requests out with ids, replies in, validated, each to the request it answers.
// Must never restart anything: a connection that has ended stays ended.
import type { ChildProcess } from "node:child_process";
import type { Duplex } from "node:stream";
import { deviceLostExitCode } from "../protocol/engine";
import type { EngineReply, EngineRequest, EngineResult } from "../protocol/engine";
import { failure, RingsideFailure } from "../protocol/errors";
import type { RingsideError } from "../protocol/errors";
import { parseEngineReply } from "../protocol/validate";
import { FrameStream } from "./frameStream";

type WithoutId<T> = T extends unknown ? Omit<T, "id"> : never;
export type Job = WithoutId<EngineRequest>;
export type ResultOf<J extends Job> = Extract<EngineResult, { of: J["type"] }>;
export type InterimReply = Exclude<EngineReply, { type: "result" | "failed" }>;

interface Pending {
  readonly of: EngineResult["of"];
  readonly onInterim: (reply: InterimReply) => void;
  readonly resolve: (result: EngineResult) => void;
  readonly reject: (failure: RingsideFailure) => void;
}

/** A process that said that its device is lost is ended when it has not ended by itself by then. */
const lostGraceMs = 2_000;

export class Connection {
  readonly #ended: Promise<void>;
  readonly #onEnd: (connection: Connection, reason: RingsideError | null) => void;
  readonly #child: ChildProcess;
  readonly #stream: FrameStream;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #alive = true;
  /** Why this side ended the process; null: it ended by itself. */
  #killedFor: RingsideError | null = null;
  #closing = false;

  /** `onEnd` is told once, before the requests that wait fail, with the reason when nobody asked for the end. */
  constructor(
    child: ChildProcess,
    stream: Duplex,
    onEnd: (connection: Connection, reason: RingsideError | null) => void,
  ) {
    this.#child = child;
    this.#onEnd = onEnd;
    this.#stream = new FrameStream(stream, {
      onValue: (value) => {
        this.#receive(parseEngineReply(value));
      },
      onClose: (error) => {
        // Without its stream the process is of no use; a host that closed it is about to end anyway.
        if (error !== null) this.kill(error);
      },
    });
    this.#ended = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        const how = signal === null ? `exit code ${String(code)}` : `signal ${signal}`;
        this.#end(failure(code === deviceLostExitCode ? "device-lost" : "engine-died", "", "", how).error);
        resolve();
      });
    });
  }

  get alive(): boolean {
    return this.#alive;
  }

  request<const J extends Job>(
    job: J,
    onInterim: (reply: InterimReply) => void = () => undefined,
  ): { readonly id: number; readonly result: Promise<ResultOf<J>> } {
    this.#lastId += 1;
    const id = this.#lastId;
    const result = new Promise<EngineResult>((resolve, reject) => {
      if (!this.#alive) throw failure("engine-died");
      this.#stream.send({ ...job, id });
      this.#pending.set(id, { of: job.type, onInterim, resolve, reject });
    });
    // #receive() lets only a result of the request's own type through.
    return { id, result: result as Promise<ResultOf<J>> };
  }

  /** Ends the process now; its requests fail with `reason`. */
  kill(reason: RingsideError): void {
    this.#killedFor ??= reason;
    this.#child.kill("SIGKILL");
  }

  /** Asks the process to end by closing its stream, and sees that it does; its requests fail with "cancelled". */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    this.#stream.close();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), graceMs);
    await this.#ended;
    clearTimeout(timer);
  }

  #receive(reply: EngineReply): void {
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) throw failure("frame-invalid", "reply.id", "a request that waits", String(reply.id));
    switch (reply.type) {
      case "result":
        if (reply.result.of !== pending.of) {
          throw failure("frame-invalid", "reply.result.of", pending.of, reply.result.of);
        }
        this.#pending.delete(reply.id);
        pending.resolve(reply.result);
        return;
      case "failed":
        if (reply.error.kind === "device-lost") {
          this.#expectEnd(reply.error);
          return;
        }
        this.#pending.delete(reply.id);
        pending.reject(new RingsideFailure(reply.error));
        return;
      default:
        pending.onInterim(reply);
    }
  }

  /** Its requests fail when the process has ended, so that whoever repeats one finds a new process. */
  #expectEnd(reason: RingsideError): void {
    this.#killedFor ??= reason;
    setTimeout(() => this.#child.kill("SIGKILL"), lostGraceMs).unref();
  }

  #end(how: RingsideError): void {
    this.#alive = false;
    const reason = this.#closing ? null : (this.#killedFor ?? how);
    this.#onEnd(this, reason);
    for (const { reject } of this.#pending.values()) reject(new RingsideFailure(reason ?? failure("cancelled").error));
    this.#pending.clear();
    this.#stream.close();
  }
}
